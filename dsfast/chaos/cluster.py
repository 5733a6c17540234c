"""A cluster of separate processes, one per role, on a database and a registry that exist already.

Daemons are known by name. A worker is a chain of processes: its guardians, and the daemon at the end.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import dsfast
from dsfast.chaos.network import Loopback, Network
from dsfast.chaos.ports import free_port
from dsfast.client import Client
from dsfast.errors import DsfastError, Unavailable
from dsfast.runtime.keys import load_keys
from dsfast.tasks import proc

READY_SECONDS = 60.0
LOOK_SECONDS = 0.02
STOP_SECONDS = 30.0
CHAIN_MAX = 3  # processes of a worker: two guardians and the daemon
STORY_BYTES = 2500  # of each daemon's log, when something went wrong


class Cluster:
    """Masters, workers and one api. `kill` is kill -9."""

    def __init__(
        self,
        folder: Path,
        store_url: str,
        registry_url: str,
        *,
        session_seconds: float = 4.0,
        network: Network | None = None,
        settings: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.network = network or Loopback()
        (folder / "state").mkdir(mode=0o700, exist_ok=True)
        key = folder / "state" / "cluster.key"
        load_keys(key, create=True)  # an api does not make one, and may come first
        token = folder / "state" / "api.token"
        if self.network.can_cut:  # beyond the loopback, an api takes none that it makes up itself
            token.touch(mode=0o600)
            token.write_text(secrets.token_urlsafe())
        self.port = free_port()
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.environ = clean_environ(folder) | {
            "DSFAST_CLUSTER_KEY_FILE": str(key),
            "DSFAST_STORE_URL": store_url,
            "DSFAST_REGISTRY_URL": registry_url,
            "DSFAST_REGISTRY_SESSION_SECONDS": str(session_seconds),
            "DSFAST_API_PORT": str(self.port),
            **({"DSFAST_API_TOKEN_FILE": str(token)} if self.network.can_cut else {}),
            "DSFAST_WORKER_DRAIN_SECONDS": "0",  # tasks that wait for a test do not outlive it
            **(settings or {}),
        }

    def start(self, role: str, name: str, *, program: str = "dsfast", **settings: object) -> subprocess.Popen[bytes]:
        """Start a daemon; settings are those of its section of the configuration."""
        prefix = f"DSFAST_{role.upper()}_"
        own = {prefix + key.upper(): str(value) for key, value in settings.items()}
        own |= {f"{prefix}HOST": self.network.address(name)} if self.network.can_cut else {}
        if role != "api":
            own = {f"{prefix}NAME": name, f"{prefix}PORT": "0"} | own
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [*self.network.enter(name), sys.executable, "-m", program, role]
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
        """Start a worker with folders of its own."""
        own = {"log_dir": self.folder / f"{name}-logs", "work_dir": self.folder / f"{name}-work"}
        self.start("worker", name, program=program, **own, **settings)

    def complete(self, masters: int, workers: int) -> bool:
        """Whether so many are listed."""
        with self.client() as client:
            return len(client.masters()) == masters and len(client.workers()) == workers

    def client(self, timeout: float = 60.0) -> Client:
        """A client of the api. Raises Unavailable before it has ever started."""
        token = self.folder / "state" / "api.token"
        if not token.exists():
            raise Unavailable("the api has not started yet")
        host = self.network.address("api")
        return Client(f"http://{host}:{self.port}", token.read_text().strip(), timeout=timeout)

    def pids(self, name: str) -> list[int]:
        """A daemon's guardians, if it has some, from the outer to the inner one, and its own; none if it has ended."""
        process = self.daemons[name]
        return guarded_pids(process.pid) if process.poll() is None else []

    def kill(self, name: str) -> None:
        """End a daemon's own process without warning, and wait until its guardians have ended, too."""
        os.kill(self.pids(name)[-1], signal.SIGKILL)
        self.daemons[name].wait(STOP_SECONDS)

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
        return "\n".join(f"--- {log.name}\n{log.read_text()[-STORY_BYTES:]}" for log in logs)

    def stop(self) -> None:
        """End all daemons."""
        for process in self.daemons.values():
            if process.poll() is None:
                process.terminate()
        for process in self.daemons.values():
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def clean_environ(folder: Path) -> dict[str, str]:
    """The environment of a cluster's processes: nothing of this user's configuration, and this very dsfast."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DSFAST_")}
    package = str(Path(dsfast.__file__).parents[1])
    return environ | {
        "DSFAST_STATE_DIR": str(folder / "state"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")])),
        "NO_COLOR": "1",
    }


def guarded_pids(outer: int) -> list[int]:
    """This process and those that it guards, as told by their having been started by the same command.

    So has, until it becomes what it is to run, every child of a worker: the chain ends before it.
    """
    found = [outer]
    with suppress(OSError):  # they may be ending
        while len(found) < CHAIN_MAX and (below := [pid for pid in proc.children(found[-1]) if _is_like(pid, outer)]):
            found.append(below[0])
    return found


def _is_like(pid: int, other: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes() == Path(f"/proc/{other}/cmdline").read_bytes()
