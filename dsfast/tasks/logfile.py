"""An attempt's log: opened for its processes, and kept under its cap while they write.

Processes write straight to the file, so nothing of ours sees the bytes go by. A log that outgrows its cap
loses its middle: the blocks between its head and its tail are given back to the disk (a hole), the file's
length stays true, and a line at the hole says so. Later cuts make the same hole longer. A writer can exceed
the cap by what the disk takes between two looks, so a log that grows fast is looked at more often. Where the
file system cannot make holes, the log is cut off at its head and goes on from there.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import threading

LOOK_SECONDS_FIRST = 0.1  # most attempts end before their first look
LOOK_SECONDS_MIN = 0.02  # a disk that takes 2 GB/s exceeds the cap by 40 MB between two such looks
LOOK_SECONDS_MAX = 0.5
LOG_BYTES_MIN = 64 << 10  # a smaller cap leaves no room for head, tail and the line between them
_BLOCK = 4096  # holes are made of whole blocks
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_FLAGS = os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)
_logger = logging.getLogger("dsfast.tasks")


class AttemptLog:
    """One attempt's log file."""

    __slots__ = ("_cap", "_cut_to", "_head", "_lock", "look_seconds", "path", "size")

    def __init__(self, path: str, bytes_max: int) -> None:
        self.path = path
        self.size = 0  # bytes written so far, as of the last look
        self.look_seconds = LOOK_SECONDS_FIRST  # until the next look
        self._cap = max(bytes_max, LOG_BYTES_MIN)
        self._head = self._cap // 4 // _BLOCK * _BLOCK
        self._lock = threading.Lock()
        self._cut_to = self._head  # where the tail begins: nothing is cut while it equals the head's end

    def open(self) -> int:
        """A descriptor that appends to the log; readable by nobody else. Raises OSError."""
        return os.open(self.path, os.O_WRONLY | _FLAGS, 0o600)

    def say(self, sentence: str) -> None:
        """Add a line of ours. A disk that does not take it is not worth failing for: the reason is kept elsewhere."""
        try:
            fd = self.open()
        except OSError:
            return
        try:
            os.write(fd, f"dsfast: {sentence}\n".encode(errors="replace"))
        except OSError:
            return
        finally:
            os.close(fd)

    def look(self) -> bool:
        """Note the size and decide when to look again; True if `cut` should be called, in a thread."""
        try:
            size = os.stat(self.path).st_size
        except OSError:  # never opened, or removed by the task itself
            return False
        grown, self.size = size - self.size, size
        self.look_seconds = min(2 * self.look_seconds, LOOK_SECONDS_MAX, self._until_an_eighth(grown))
        return self._over(size)

    def cut(self) -> None:
        """Cut the middle out. Waits for the disk, and for another cut of this log."""
        with self._lock:
            try:
                size = os.stat(self.path).st_size
                if self._over(size):
                    self._cut(size)
            except OSError as error:  # the attempt goes on; the next look tries again
                _logger.warning("cannot keep the log %s under its cap: %s", self.path, error)

    def _over(self, size: int) -> bool:
        return size - self._cut_to + self._head > self._cap

    def _until_an_eighth(self, grown: int) -> float:
        """Seconds in which the log grows by an eighth of its cap, going by its growth since the last look."""
        seconds = self._cap / 8 * self.look_seconds / grown if grown > 0 else LOOK_SECONDS_MAX
        return max(seconds, LOOK_SECONDS_MIN)

    def _cut(self, size: int) -> None:
        tail = (size - self._cap // 2) // _BLOCK * _BLOCK
        fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            notice = f"\n[dsfast: the log has outgrown {self._cap} bytes; what followed here was dropped]\n".encode()
            os.pwrite(fd, notice, self._head - len(notice))
            if _punch(fd, self._cut_to, tail - self._cut_to):
                self._cut_to = tail
            else:
                os.ftruncate(fd, self._head)
        finally:
            os.close(fd)


def _punch(fd: int, offset: int, length: int) -> bool:
    """Give these bytes back to the disk; False where the file system cannot. Raises OSError."""
    mode = ctypes.c_int(_KEEP_SIZE | _PUNCH_HOLE)
    if _libc.fallocate(ctypes.c_int(fd), mode, ctypes.c_int64(offset), ctypes.c_int64(length)) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EOPNOTSUPP, errno.ENOSYS):
        return False
    raise OSError(number, os.strerror(number))
