"""What a worker keeps on its machine from one life to the next: `<work_dir>/<name>`, held by one life at a time.

    lock       held by the daemon and its guardians, so until the last of them is gone; holds the home's own mark
    results    what no master has acknowledged yet (journal.py)
    attempts   the private directories of attempts that run, and empty ones for those to come (private.py)

Every process of a task carries the mark in its environment. Whoever holds the lock and has started nothing yet
knows that a process with the mark is left over from a former life whose guardians were all killed: `sweep` ends it. No
process is ever known by its number, which may be somebody else's by now; after a reboot there is none to be found.

Imports nothing heavy: the lock is taken before the program divides itself (guardian.py).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from pathlib import Path

from dsfast.config import Config
from dsfast.errors import Problem, Unavailable, UsageError
from dsfast.tasks import proc
from dsfast.tasks.environment import WORKER

CLAIM_SECONDS = 10.0  # for guardians of a former life to end what it left, when a worker is started again at once
SWEEP_SECONDS = 30.0  # for killed processes to be gone: one that hangs in a broken file system may take for ever
LOOK_SECONDS = 0.05
MARK_BYTES = 12  # of chance: no two homes share a mark, whichever machines and containers they are on


class Home:
    """The directory of one worker, and the lock on it."""

    def __init__(self, path: Path, lock: int, mark: str) -> None:
        self.path = path
        self.mark = mark
        self._lock = lock

    @property
    def results(self) -> Path:
        """Where results wait."""
        return self.path / "results"

    @property
    def attempts(self) -> Path:
        """Where attempts have their private directories."""
        return self.path / "attempts"

    def sweep(self) -> int:
        """End what former lives have left; how many processes that were. Raises Unavailable if they do not end."""
        ended, deadline = 0, time.monotonic() + SWEEP_SECONDS
        mark = f"{WORKER}={self.mark}".encode()
        while left := proc.carrying(mark):
            ended += proc.end(left, mark, deadline - time.monotonic())
            if time.monotonic() >= deadline:
                hint = f"processes {', '.join(map(str, left))} cannot be killed; see what they wait for, or reboot"
                raise Unavailable(Problem("tasks of this worker's former life do not end", hint=hint))
        shutil.rmtree(self.attempts, ignore_errors=True)
        return ended

    def close(self) -> None:
        """Let go of our copy of the lock."""
        os.close(self._lock)


def claim_home(config: Config) -> Home:
    """Hold the worker's home. Raises UsageError when it cannot be made, or when another process keeps holding it."""
    path = Path(os.path.abspath(config.worker.work_dir)) / config.worker.name
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise UsageError(
            Problem(f"the worker cannot use {path}: {error.strerror}", hint="see worker.work_dir")
        ) from None
    if not _locked(lock):
        hint = "its former life has not ended yet, or a worker of the same name is running; give one another --name"
        raise UsageError(Problem(f"another worker uses {path}", hint=hint))
    return Home(path, lock, _mark_in(lock))


def _locked(lock: int) -> bool:
    deadline = time.monotonic() + CLAIM_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK_SECONDS)


def _mark_in(lock: int) -> str:
    mark = os.pread(lock, 2 * MARK_BYTES, 0)
    if len(mark) < 2 * MARK_BYTES or not mark.isalnum():
        mark = os.urandom(MARK_BYTES).hex().encode()
        os.pwrite(lock, mark, 0)
    return mark.decode()
