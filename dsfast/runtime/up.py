"""`dsfast up`: a whole cluster on this machine, as child processes of one small supervisor.

Theory of operation. The supervisor waits on descriptors only: a pidfd per child (it has ended), a notify socket per
child (it is ready, told as systemd would be), and a pipe for signals. A role starts once the roles that it needs
have been ready: the api needs the database and the key that a master makes. A child that ends is started again
after a pause that doubles, unless it never was ready: then its own last words say why, and everything is taken
down. Stopping goes the other way: the worker drains first, while master and api still serve; another signal is
passed on and makes it end what runs. Children sit in process groups of their own, so that a Ctrl-C in the terminal
reaches the supervisor alone, and the kernel ends them should the supervisor be killed.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import dsfast

ROLES = ("master", "worker", "api")
NEEDS: Mapping[str, tuple[str, ...]] = {"master": (), "worker": (), "api": ("master",)}
PAUSE_SECONDS_MIN = 0.5  # before a child is started again
PAUSE_SECONDS_MAX = 30.0
STABLE_SECONDS = 60.0  # a child that has lived this long is started again without a growing pause
NOTIFY_BYTES = 4096
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


class Child:
    """One role: its process while it runs, when to start it again while it does not."""

    def __init__(self, role: str, environ: Mapping[str, str], folder: Path) -> None:
        self.role = role
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = str(folder / role)
        self.notify.bind(address)
        self._environ = {**environ, "NOTIFY_SOCKET": address}
        self._pause = PAUSE_SECONDS_MIN
        self._started_at = 0.0
        self.process: subprocess.Popen[bytes] | None = None
        self.pidfd = -1
        self.ready = False  # has been ready at least once
        self.start_at: float | None = 0.0  # monotonic; None while it runs or is not to be started

    def start(self) -> None:
        """Start the process."""
        self.start_at = None
        self._started_at = time.monotonic()
        self.process = subprocess.Popen(
            [*_interpreter(), "-m", "dsfast", self.role],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - there are no threads here
        )
        self.pidfd = os.pidfd_open(self.process.pid)

    def ended(self) -> tuple[int, float]:
        """Take note of the end of the process: its exit code, and the pause before the next start."""
        assert self.process is not None
        code = self.process.wait()
        os.close(self.pidfd)
        self.process = None
        if time.monotonic() - self._started_at >= STABLE_SECONDS:
            self._pause = PAUSE_SECONDS_MIN
        pause, self._pause = self._pause, min(self._pause * 2, PAUSE_SECONDS_MAX)
        self.start_at = time.monotonic() + pause
        return code, pause

    def ask_to_stop(self) -> None:
        """Send SIGTERM, if it runs."""
        self.start_at = None
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)


class Supervisor:
    """Starts the roles, keeps them up, takes them down; `announce` is called once, when all are ready."""

    def __init__(self, environ: Mapping[str, str], say: Callable[[str], None], announce: Callable[[], None]) -> None:
        self._environ = environ
        self._say = say
        self._announce = announce
        self._announced = False
        self._children: dict[str, Child] = {}
        self._selector = selectors.DefaultSelector()
        self._stop_asked = 0
        self._failed = False

    def run(self) -> int:
        """Returns the exit code once everything has stopped."""
        with tempfile.TemporaryDirectory(prefix="dsfast-up-") as folder:
            self._children = {role: Child(role, self._environ, Path(folder)) for role in ROLES}
            for child in self._children.values():
                self._selector.register(child.notify, selectors.EVENT_READ, (self._on_ready, child))
            with _caught_signals() as signals:
                self._selector.register(signals, selectors.EVENT_READ, (self._on_signal, signals))
                while not self._stopped():
                    self._start_those_due()
                    for key, _ in self._selector.select(self._patience()):
                        handle, subject = key.data
                        handle(subject)
        return 1 if self._failed else 0

    def _stopped(self) -> bool:
        return bool(self._stop_asked) and all(child.process is None for child in self._children.values())

    def _start_those_due(self) -> None:
        now = time.monotonic()
        for child in self._children.values():
            able = all(self._children[role].ready for role in NEEDS[child.role])
            if child.start_at is not None and child.start_at <= now and able:
                child.start()
                self._selector.register(child.pidfd, selectors.EVENT_READ, (self._on_end, child))

    def _patience(self) -> float | None:
        """Seconds until a child is to be started again."""
        now = time.monotonic()
        times = [child.start_at - now for child in self._children.values() if child.start_at and child.start_at > now]
        return min(times, default=None)

    def _on_ready(self, child: Child) -> None:
        child.notify.recv(NOTIFY_BYTES)
        child.ready = True
        if not self._announced and all(each.ready for each in self._children.values()):
            self._announced = True
            self._announce()

    def _on_end(self, child: Child) -> None:
        self._selector.unregister(child.pidfd)
        code, pause = child.ended()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if self._stop_asked:
            child.start_at = None
            self._stop_next()
        elif child.ready:
            self._say(f"the {child.role} {how}; it is started again in {pause:g} s")
        else:
            self._say(f"the {child.role} {how} before it was ready; stopping")
            self._failed = True
            self._on_stop()

    def _on_signal(self, signals: socket.socket) -> None:
        signals.recv(NOTIFY_BYTES)
        self._on_stop()

    def _on_stop(self) -> None:
        self._stop_asked += 1
        if self._stop_asked == 1:
            self._say("stopping: the worker lets its tasks end; Ctrl-C again ends them at once")
            for child in self._children.values():
                child.start_at = None
        self._stop_next()

    def _stop_next(self) -> None:
        """The worker first; what it needs to report its results goes when it has gone."""
        worker = self._children["worker"]
        if worker.process is not None:
            worker.ask_to_stop()
            return
        for child in self._children.values():
            child.ask_to_stop()


class _caught_signals:  # noqa: N801 - used like a function
    """SIGINT and SIGTERM as bytes on a socket, while inside."""

    def __enter__(self) -> socket.socket:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._old_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._old = {number: signal.signal(number, _noted) for number in (signal.SIGINT, signal.SIGTERM)}
        return self._reader

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._old_fd)
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._reader.close()
        self._writer.close()


def _noted(number: int, frame: object) -> None:
    """A signal that the wake-up descriptor tells of."""


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _interpreter() -> list[str]:
    """Python that imports the dsfast that we are, and not another that lies in the working directory, as sources do."""
    here = Path(dsfast.__file__).parents[1] == Path.cwd()
    return [sys.executable] if here else [sys.executable, "-P"]


def free_port() -> int:
    """A port of the loopback interface that nobody uses at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port
