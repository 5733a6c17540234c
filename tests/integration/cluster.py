"""A cluster of separate processes, one per role, on a database and a registry that exist already."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dsfast.client import Client
from dsfast.errors import DsfastError, Unavailable
from dsfast.runtime.keys import load_keys
from dsfast.tasks import proc
from tests.integration.local_cluster import clean_environ, free_port

READY_SECONDS = 60.0
LOOK_SECONDS = 0.02
STOP_SECONDS = 30.0


class Cluster:
    """Masters, workers and one api. Daemons are known by name; `kill` is kill -9."""

    def __init__(self, folder: Path, store_url: str, registry_url: str, *, session_seconds: float = 4.0) -> None:
        self.folder = folder
        (folder / "state").mkdir(mode=0o700, exist_ok=True)
        load_keys(folder / "state" / "cluster.key", create=True)  # an api does not make one, and may come first
        self.port = free_port()
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.environ = clean_environ(folder) | {
            "DSFAST_STORE_URL": store_url,
            "DSFAST_REGISTRY_URL": registry_url,
            "DSFAST_REGISTRY_SESSION_SECONDS": str(session_seconds),
            "DSFAST_API_PORT": str(self.port),
            "DSFAST_WORKER_DRAIN_SECONDS": "0",  # tasks that wait for a test do not outlive it
        }

    def start(self, role: str, name: str, *, program: str = "dsfast", **settings: object) -> subprocess.Popen[bytes]:
        """Start a daemon; settings are those of its section of the configuration."""
        prefix = f"DSFAST_{role.upper()}_"
        own = {prefix + key.upper(): str(value) for key, value in settings.items()}
        if role != "api":
            own |= {f"{prefix}NAME": name, f"{prefix}PORT": "0"}
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", program, role]
            environ = self.environ | own
            self.daemons[name] = subprocess.Popen(command, env=environ, cwd=self.folder, stderr=log, stdout=log)
        return self.daemons[name]

    def start_all(self, masters: int, workers: int, *, slots: int = 2) -> None:
        """Masters m1..., workers w1... with logs of their own, and the api; returns once all see each other."""
        for number in range(1, masters + 1):
            self.start("master", f"m{number}")
        for number in range(1, workers + 1):
            self.start_worker(f"w{number}", slots=slots)
        self.start("api", "api")
        self.until(lambda: self.complete(masters, workers))

    def start_worker(self, name: str, *, program: str = "dsfast", **settings: object) -> None:
        own = {"log_dir": self.folder / f"{name}-logs", "work_dir": self.folder / f"{name}-work"}
        self.start("worker", name, program=program, **own, **settings)

    def complete(self, masters: int, workers: int) -> bool:
        """Whether the api sees so many."""
        with self.client() as client:
            return len(client.masters()) == masters and len(client.workers()) == workers

    def client(self) -> Client:
        token = self.folder / "state" / "api.token"
        if not token.exists():
            raise Unavailable("the api has not started yet")
        return Client(f"http://127.0.0.1:{self.port}", token.read_text().strip())

    def kill(self, name: str) -> None:
        """End a daemon's own process without warning: a worker's, not its guardian's."""
        process = self.daemons[name]
        os.kill(self.pids(name)[-1], signal.SIGKILL)
        process.wait(STOP_SECONDS)

    def pids(self, name: str) -> list[int]:
        """A daemon's guardians, if it has some, from the outer to the inner one, and its own process."""
        return guarded_pids(self.daemons[name].pid)

    def until(self, condition: Callable[[], bool], seconds: float = READY_SECONDS) -> None:
        """Wait for a condition; what is not there yet may raise. Fails with the daemons' logs after `seconds`."""
        deadline = time.monotonic() + seconds
        pause = threading.Event()
        while not self._holds(condition):
            assert time.monotonic() < deadline, self.story()
            pause.wait(LOOK_SECONDS)

    @staticmethod
    def _holds(condition: Callable[[], bool]) -> bool:
        try:
            return condition()
        except DsfastError:
            return False

    def story(self) -> str:
        """The last lines of every daemon's log."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text()[-2500:]}" for log in logs)

    def stop(self) -> None:
        """End all daemons, workers last so that nothing fails over."""
        for process in self.daemons.values():
            if process.poll() is None:
                process.terminate()
        for process in self.daemons.values():
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def guarded_pids(outer: int) -> list[int]:
    """This process and those that it guards, as told by their having been started by the same command."""
    found = [outer]
    while below := [pid for pid in proc.children(found[-1]) if _command(pid) == _command(outer)]:
        found.append(below[0])
    return found


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@contextmanager
def cluster(folder: Path, store_url: str, registry_url: str) -> Iterator[Cluster]:
    """A cluster without daemons; those started in it end with it."""
    made = Cluster(folder, store_url, registry_url)
    try:
        yield made
    finally:
        made.stop()
