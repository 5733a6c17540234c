"""Daemons in a moment: one process that has loaded everything forks them.

A daemon's own start costs a third of a second of processor time, nearly all of it imports. What is forked here is the
same program from its command line on, in a process of its own; only the imports are shared. All end with this process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from select import poll

from dsfast.tasks import proc

MILLISECONDS = 1000
LOADED = (
    "dsfast.api.server",
    "dsfast.cli.main",
    "dsfast.registry.postgres",
    "dsfast.runtime.daemons",
    "dsfast.store.postgres",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.ext.asyncio",
)


class Daemon:
    """A process that is not our child: what a test needs of `subprocess.Popen`, by its pidfd."""

    def __init__(self, pid: int, role: str) -> None:
        self.pid = pid
        self.role = role
        self._fd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """0 when it has ended."""
        return 0 if self._ended(0) else None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        if not self._ended(None if timeout is None else timeout * MILLISECONDS):
            raise subprocess.TimeoutExpired(self.role, timeout or 0)
        return 0

    def _ended(self, milliseconds: float | None) -> bool:
        if self._fd < 0:
            return True
        ready = poll()
        ready.register(self._fd)
        if ready.poll(milliseconds):
            os.close(self._fd)
            self._fd = -1
            return True
        return False

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._fd, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Nursery:
    """Forks daemons; may be used by several threads."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.integration.nursery"]
        self._process = subprocess.Popen(
            command, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._turn = threading.Lock()

    def start(self, role: str, environ: Mapping[str, str], folder: Path, log: Path) -> Daemon:
        """Start `dsfast ROLE` in this folder with this environment; its output goes to the end of the log."""
        order = json.dumps([role, dict(environ), str(folder), str(log)])
        with self._turn:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(order + "\n")
            self._process.stdin.flush()
            return Daemon(int(self._process.stdout.readline()), role)

    def close(self) -> None:
        self._process.communicate()


def _serve() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps them
    nursery = os.getpid()
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(nursery, *order)
        print(pid, flush=True)


def _become(nursery: int, role: str, environ: dict[str, str], folder: str, log: str) -> None:
    """Go on as that daemon; never returns."""
    proc.prctl(proc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != nursery:
        os._exit(1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    null, output = os.open("/dev/null", os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = ["dsfast", role]
    from dsfast.cli.main import main

    try:
        main()
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    finally:
        os._exit(1)


if __name__ == "__main__":
    for name in LOADED:
        import_module(name)
    _serve()
