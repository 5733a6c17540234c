"""By when a worker has to move, lest its tasks run beside their replacements: it tells its guardians, who see to it.

Theory of operation. Masters replace what a worker runs once they have seen neither link nor lease of it for
`absent_seconds` and what the task's `on_disconnect` grants. A worker that moves ends such tasks itself
(engine/fence.py). One that stands still cannot; but while it had a lease, nobody replaces anything before the end of
that lease plus `absent_seconds`, whatever became of its links, and it has until shortly before then. Without a lease it
has as long as the engine's own fence would let it be unsure. The deadline is put off every second, and set before
anything is started. So a loop that is blocked for seconds harms nobody, nor does a registry that is down: a worker
that is ended for standing still was about to be given up by its masters. Where nothing runs there is no deadline; but
what has waited in sockets and queue may have been given to others since, so the worker is told (`stood_still`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from dsfast.engine.fence import UNSURE_SECONDS
from dsfast.runtime.guardian import Deadline

RENEW_SECONDS = 1.0
SHARE = 0.8  # of `absent_seconds`; the rest is for the guardian to notice, and for every process to be dead


class Standstill:
    """Sets a deadline from the lease, as told by `listed_until`, and from the patience that the running tasks grant."""

    def __init__(self, deadline: Deadline, listed_until: Callable[[], float], absent_seconds: float) -> None:
        self._deadline = deadline
        self._listed_until = listed_until
        self._absent_seconds = absent_seconds
        self._grace = SHARE * absent_seconds
        self._moved_at = time.monotonic()
        self._stood_still = False

    def stood_still(self) -> bool:
        """Whether we may have been replaced before we moved again, by the time and our lease; said once."""
        self._look(time.monotonic(), self._listed_until())
        found, self._stood_still = self._stood_still, False
        return found

    def _look(self, now: float, lease_end: float) -> None:
        if now - self._moved_at >= self._absent_seconds and lease_end <= now:
            self._stood_still = True
        self._moved_at = now

    def renew(self, patience: float) -> None:
        """We move. What runs may run on for `patience` seconds without lease and link; inf is for good."""
        now, lease_end = time.monotonic(), self._listed_until()
        self._look(now, lease_end)
        until = lease_end + self._grace if lease_end > now else now + UNSURE_SECONDS
        self._deadline.set(until + patience)

    def end(self) -> None:
        """Nothing runs any more, and nothing will."""
        self._deadline.set(math.inf)
