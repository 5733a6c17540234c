"""The lock that gives one SQLite database to one master: flock on a file beside it, held while the process lives.

Processes of `dsfast run` share it instead: each owns only its own runs, so they may write side by side, but not
beside a master that would take over what looks ownerless to it.
"""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from dsfast.errors import UsageError


class FileLock:
    """`<database>.lock`. The kernel releases it when the process ends, however it ends; the file itself stays."""

    def __init__(self, database: Path, *, shared: bool = False) -> None:
        self.shared = shared
        self._database = database
        self._kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._path = Path(f"{database}.lock")
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock and note who holds it. Raises UsageError naming the process that has it, or OSError."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, self._kind | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 200, 0).decode(errors="replace").strip() or "another process"
            os.close(fd)
            raise UsageError(
                f"{self._database} is in use by {holder}: one SQLite database serves one master. "
                "Stop that one first, or use PostgreSQL or MySQL for several masters"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Give the lock back; the file stays, since deleting it would race with whoever opens it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
