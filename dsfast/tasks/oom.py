"""Has the kernel, when it is short of memory, end a task rather than its worker, and all other tasks with it."""

from __future__ import annotations

import os
from contextlib import suppress
from types import TracebackType

SCORE_ADDED = 300  # a task is taken for this many thousandths of the machine's memory larger than it is
_SCORE_MAX = 1000


class Offered:
    """What is started inside of this context is offered to the kernel, with everything that it will start.

    A process is born with the score of who starts it, so ours is raised for that moment. To set the child's, when it is
    there, would cost several times as much and miss what it has started meanwhile. Belongs to one operating system
    process: a fork has to make its own.
    """

    def __init__(self) -> None:
        self._fd, self._own = -1, b""
        with suppress(OSError):
            self._fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)

    def __enter__(self) -> None:
        with suppress(OSError):
            self._own = os.pread(self._fd, 16, 0)  # every time, because whoever runs this machine may change it
            os.pwrite(self._fd, b"%d" % min(int(self._own) + SCORE_ADDED, _SCORE_MAX), 0)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with suppress(OSError):
            os.pwrite(self._fd, self._own, 0)
