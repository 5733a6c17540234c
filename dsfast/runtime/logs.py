"""Where the logs of attempts lie on a worker, and how they are read.

A log is named by its attempt and nothing else: <root>/<run>/<task>.<attempt>.log, made of numbers only, so no
name that a user chose is ever part of a path. Files are opened through their directory without following
symbolic links, because the tasks of this user could plant some. A log that outgrew its cap has a hole in its
middle (tasks/logfile.py): reading skips it, so the offset that comes back may be later than the one asked for.
"""

from __future__ import annotations

import errno
import os
import stat

from dsfast.errors import NotFound, Problem, Unavailable
from dsfast.ids import run_text
from dsfast.wire.commands import Attempt

LOG_CHUNK_BYTES_MAX = 1 << 20  # of one read: it is copied into one frame, and others want the link as well
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO in a log's place must not block us


class LogDir:
    """The logs of one worker."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = os.path.abspath(root)

    def path(self, key: Attempt) -> str:
        """Where the attempt's log is, or would be."""
        run_id, task, attempt = key
        return f"{self.root}/{run_text(run_id)}/{task:d}.{attempt:d}.log"

    def create(self, key: Attempt) -> str:
        """The attempt's log, its directory made if need be and closed to other users. Raises OSError."""
        path = self.path(key)
        directory = os.path.dirname(path)
        if not os.access(directory, os.W_OK):  # most runs have several attempts here: asking is cheaper than trying
            os.makedirs(self.root, 0o700, exist_ok=True)
            os.makedirs(directory, 0o700, exist_ok=True)
        return path

    def read(self, key: Attempt, offset: int, limit: int) -> tuple[int, bytes, int]:
        """(offset, data, size): up to `limit` bytes from `offset`, or from that far before the end if it is negative.

        Less than the limit may come back before the end. Raises NotFound when the attempt has no log here.
        """
        fd = self._open(key)
        try:
            size = os.fstat(fd).st_size
            start = max(size + offset, 0) if offset < 0 else offset
            start, stop = _data_span(fd, start, size)
            return start, os.pread(fd, max(min(limit, LOG_CHUNK_BYTES_MAX, stop - start), 0), start), size
        except OSError as error:
            raise Unavailable(f"the log of {describe(key)} cannot be read: {error}") from error
        finally:
            os.close(fd)

    def tail_lines(self, key: Attempt, count: int) -> list[str]:
        """The last lines, as far as they lie within one chunk. Raises NotFound when the attempt has no log here."""
        _, data, _ = self.read(key, -LOG_CHUNK_BYTES_MAX, LOG_CHUNK_BYTES_MAX)
        lines = data.decode(errors="replace").split("\n")
        if lines[-1] == "":
            lines.pop()
        return lines[max(len(lines) - count, 0) :]

    def _open(self, key: Attempt) -> int:
        parent, name = os.path.split(self.path(key))
        try:
            directory = os.open(parent, _DIRECTORY)
            try:
                fd = os.open(name, _FILE, dir_fd=directory)
            finally:
                os.close(directory)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise _no_log(key) from None
            raise Unavailable(f"the log of {describe(key)} cannot be opened: {error}") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise _no_log(key)
        return fd


def describe(key: Attempt) -> str:
    """The attempt as people see it."""
    run_id, task, attempt = key
    return f"attempt {attempt} of task {task} of run {run_text(run_id)}"


def _no_log(key: Attempt) -> NotFound:
    hint = "it has not written anything, it ran on another worker, or its log has been removed"
    return NotFound(Problem(f"there is no log of {describe(key)} on this worker", hint=hint))


def _data_span(fd: int, start: int, size: int) -> tuple[int, int]:
    """Where data begins at or after `start`, and where the next hole does."""
    if start >= size:
        return size, size
    try:
        begin = os.lseek(fd, start, os.SEEK_DATA)
        return begin, os.lseek(fd, begin, os.SEEK_HOLE)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a hole up to the end
            return size, size
        raise
