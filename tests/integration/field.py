"""A small cluster with short leases, whose tasks are witnesses of themselves, for daemons that die or stand still.

Each task appends a line when it starts and when it ends, and meanwhile holds a lock on a file of its own: should two
attempts of it run at a time, the kernel refuses the second one the lock, and it says so.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from dsfast.client import Client
from dsfast.failpoint import VARIABLE
from dsfast.model import Task, Workflow, canonical
from dsfast.tasks import proc
from dsfast.views import AttemptView, RunView
from tests.integration.cluster import Cluster
from tests.integration.nursery import Daemon, Nursery
from tests.servers.postgres import PostgresServer
from tests.workflows import shell

_one_at_a_time = threading.Lock()
RUN_SECONDS = 40.0
SESSION_SECONDS = 2.0
SETTINGS = {
    "DSFAST_CLUSTER_HEARTBEAT_SECONDS": "0.5",
    "DSFAST_CLUSTER_HEARTBEAT_TIMEOUT_SECONDS": "1.5",
    "DSFAST_MASTER_KILL_GRACE_SECONDS": "0.3",
}
WITNESS = """
exec 9>>{folder}/$DSFAST_TASK.lock
flock -n 9 || echo overlap $DSFAST_ATTEMPT_KEY >>{folder}/witness
echo start $DSFAST_ATTEMPT_KEY >>{folder}/witness
{work}
echo end $DSFAST_ATTEMPT_KEY >>{folder}/witness
"""


class Field(Cluster):
    """A cluster on a database of its own, which is its registry, too."""

    def __init__(self, folder: Path, server: PostgresServer, nursery: Nursery) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.server = server
        with _one_at_a_time:  # the first database is the template of the others
            self.database = server.new_migrated_database()
        super().__init__(folder, self.database, f"database+{self.database}", session_seconds=SESSION_SECONDS)
        self.environ |= SETTINGS
        self._nursery = nursery

    def start(self, role: str, name: str, failpoint: str = "", **settings: object) -> Daemon:  # type: ignore[override]
        """Start a daemon, perhaps with orders; settings are those of its section of the configuration."""
        prefix = f"DSFAST_{role.upper()}_"
        own = {prefix + key.upper(): str(value) for key, value in settings.items()} | {VARIABLE: failpoint}
        if role != "api":
            own |= {f"{prefix}NAME": name, f"{prefix}PORT": "0"}
        daemon = self._nursery.start(role, self.environ | own, self.folder, self.folder / f"{name}.log")
        self.daemons[name] = daemon  # type: ignore[assignment]
        return daemon

    def begin(self, masters: Mapping[str, str], workers: Mapping[str, str], api: str = "") -> None:
        """Start daemons with these orders; returns when they see each other."""
        for name, order in masters.items():
            self.start("master", name, order)
        for name, order in workers.items():
            folders = {"log_dir": self.folder / f"{name}-logs", "work_dir": self.folder / f"{name}-work"}
            self.start("worker", name, order, slots=2, drain_seconds=5, **folders)
        self.start("api", "api", api)
        self.until_complete(len(masters), len(workers))

    def until_complete(self, masters: int, workers: int) -> None:
        """Wait until the api sees so many."""
        self.until(lambda: self.complete(masters, workers))

    # -- witnesses -----------------------------------------------------------------------------------------

    def task(self, name: str, work: str, **traits: object) -> Task:
        """A task that is its own witness."""
        return shell(name, WITNESS.format(folder=self.folder, work=work), **traits)

    def witnessed(self) -> list[tuple[str, str]]:
        """What the tasks have written: (start, end or overlap; attempt key), in order."""
        path = self.folder / "witness"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(word, key) for word, key in (line.split() for line in lines)]

    @property
    def waiting(self) -> str:
        """The work of a task that ends when `open_gate` is called."""
        return f"until [ -e {self.folder}/gate ]; do sleep 0.05; done"

    def open_gate(self) -> None:
        (self.folder / "gate").touch()

    def judge(self, *views: RunView) -> None:
        """No overlap; no attempt started twice; whatever succeeded has run to its end; nothing is left running."""
        seen = Counter(self.witnessed())
        assert not [key for word, key in seen if word == "overlap"], self.story()
        twice = [event for event, count in seen.items() if count > 1]
        assert not twice, f"{twice}\n{self.story()}"
        for view in views:
            for attempt in self.attempts(view):
                if attempt[2] == "succeeded":
                    assert seen["end", attempt[1]] == 1, (attempt, self.story())

    def attempts(self, view: RunView) -> list[tuple[str, str, str, str]]:
        """(task, attempt key, state, worker's name) of every attempt of a run."""
        assert isinstance(view.tasks, list)
        found = []
        with self.client() as client:
            for place, task in enumerate(view.tasks):
                history: list[AttemptView] = client.task(view.id, task.name).history
                for each in history:
                    worker = (each.worker or "").partition("@")[0]
                    found.append((task.name, f"{view.id}.{place}.{each.attempt}", each.state, worker))
        return found

    def rows(self) -> str:
        """All that the store says of runs and attempts."""
        runs = "SELECT id, state, owner, epoch, ended_at, reason FROM runs ORDER BY id"
        attempts = "SELECT * FROM attempts ORDER BY run_id, task, attempt"
        return self.server.sql(f"{runs}; {attempts}", self.database)

    # -- daemons ---------------------------------------------------------------------------------------------

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def reached(self, name: str, point: str) -> bool:
        return f"reached point={point} " in self.log(name)

    def stopped(self, name: str) -> int | None:
        """The process of a daemon that was sent SIGSTOP."""
        root = self.daemons[name].pid
        for pid in (root, *(pid for pid, _ in proc.descendants([root]))):
            seen = proc.stat(pid)
            if seen is not None and seen.state == "T":
                return pid
        return None

    def wake(self, name: str) -> None:
        """SIGCONT to a daemon that stands still."""
        pid = self.stopped(name)
        if pid is not None:
            with suppress(ProcessLookupError):  # a guardian may have ended it this moment
                os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        for name in self.daemons:
            if self.stopped(name):
                self.wake(name)
        super().stop()


@contextmanager
def field(folder: Path, server: PostgresServer, nursery: Nursery) -> Iterator[Field]:
    """A field without daemons; those started in it end with it, and so do all their tasks."""
    made = Field(folder, server, nursery)
    try:
        yield made
    finally:
        made.stop()
    left = processes_in(folder)
    assert not left, f"{left} still run\n{made.story()}"


def processes_in(folder: Path) -> list[str]:
    """Command lines of tasks of this field that are still alive."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                mine = f"{folder}/".encode() in (entry / "environ").read_bytes()
                if mine and b"DSFAST_ATTEMPT_KEY=" in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
    return found


def submit(client: Client, workflow: Workflow, key: str | None = None) -> RunView:
    return client.submit(msgspec.Raw(canonical(workflow)), idempotency_key=key)


def accepted(field: Field, workflow: Workflow, key: str) -> RunView:
    """Submit until an api and a master have accepted it, as clients should: always under the same key."""
    runs: list[RunView] = []

    def try_again() -> bool:
        with field.client() as client:
            runs.append(submit(client, workflow, key))
        return True

    field.until(try_again)
    return runs[0]


def ended(field: Field, client: Client, run: RunView) -> RunView:
    """The run as it ended, with its tasks."""
    assert client.wait(run.id, RUN_SECONDS) is not None, field.story()
    return client.run(run.id)
