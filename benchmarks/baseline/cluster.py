"""Masters and workers of the baseline as processes, each with a loopback address of its own, and what users do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.baseline import tables
from benchmarks.baseline.calls import Calls, Occurrence
from benchmarks.baseline.database import Database, Row
from benchmarks.baseline.settings import Mode, shipped
from benchmarks.baseline.tables import State

ROOT = Path(__file__).parents[2]
WAIT_SECONDS_MAX = 120.0
LOOK_SECONDS = 0.01
STOP_SECONDS_MAX = 20.0


class Baseline:
    """One cluster. Daemons are known by name; `kill` is kill -9."""

    def __init__(self, folder: Path, database: str, zookeeper: str, mode: Mode, **settings: Any) -> None:
        self.folder = folder
        self._places = {"database": database, "zookeeper": zookeeper, "root": f"/{folder.name}/dolphinscheduler"}
        self._mode, self._settings = mode, settings
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.hosts: dict[str, str] = {}  # a daemon's address
        self.database = Database(database, Calls())
        for statement in tables.TABLES.split(";"):
            self.database.execute(statement)

    def start(self, role: str, name: str) -> None:
        """Start a daemon; returns once it is a member."""
        self._launch(role, name)
        assert self._line(name) == b"ready\n", self.story()

    def start_all(self, masters: int, workers: int) -> None:
        """Masters m1..., workers w1..., all at a time, but for the first: it looks after what dead ones have left."""
        self.start("master", "m1")
        names = [f"m{number}" for number in range(2, masters + 1)] + [f"w{number}" for number in range(1, workers + 1)]
        for name in names:
            self._launch("master" if name[0] == "m" else "worker", name)
        for name in names:
            assert self._line(name) == b"ready\n", self.story()

    def _launch(self, role: str, name: str) -> None:
        self.hosts[name] = f"127.0.0.{len(self.hosts) + 2}"
        values = {"host": self.hosts[name], "folder": str(self.folder / "tasks"), **self._places, **self._settings}
        body = msgspec.json.encode(shipped(self._mode, **values)).decode()
        command = [sys.executable, "-m", "benchmarks.baseline", role, body]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )

    def define(self, tasks: list[dict[str, Any]]) -> int:
        """A definition's id; see `task`."""
        row = self.database.row(tables.DEFINE, "workflow", msgspec.json.encode({"tasks": tasks}).decode())
        assert row is not None
        return int(row["id"])

    def submit(self, definition: int) -> None:
        """What the API server does to start a workflow: a command's row."""
        self.database.execute(tables.ADD_COMMAND, tables.START, definition, "{}", time.time())

    def instances(self, definition: int) -> list[Row]:
        """Workflows of a definition, oldest first."""
        return self.database.rows(
            "SELECT * FROM process_instance WHERE process_definition_id = $1 ORDER BY id", definition
        )

    def tasks(self, instance: int) -> list[Row]:
        """All rows of a workflow's tasks, those that were retired too, oldest first."""
        return self.database.rows("SELECT * FROM task_instance WHERE process_instance_id = $1 ORDER BY id", instance)

    def stop_workflow(self, instance: int) -> None:
        """What the API server does to stop one: a state that watchers will read."""
        self.database.execute("UPDATE process_instance SET state = $2 WHERE id = $1", instance, State.READY_STOP)

    def run(self, tasks: list[dict[str, Any]]) -> Row:
        """Run a workflow to its end."""
        definition = self.define(tasks)
        self.submit(definition)
        return self.ended(definition)[0]

    def ended(self, definition: int, count: int = 1) -> list[Row]:
        """So many workflows of a definition, once all have ended."""
        self.until(lambda: sum(State(row["state"]).finished for row in self.instances(definition)) == count)
        return self.instances(definition)

    def until(self, condition: Callable[[], bool], seconds: float = WAIT_SECONDS_MAX) -> None:
        """Wait for a condition. Fails with the daemons' logs."""
        deadline = time.monotonic() + seconds
        pause = threading.Event()
        while not condition():
            assert time.monotonic() < deadline, self.story()
            pause.wait(LOOK_SECONDS)

    def calls(self) -> Counter[Occurrence]:
        """What all daemons that live have counted: how often a step took so many SQL statements and ZooKeeper calls."""
        counted: Counter[Occurrence] = Counter()
        for name, process in self.daemons.items():
            if process.poll() is None:
                assert process.stdin is not None
                process.stdin.write(b"\n")
                process.stdin.flush()
                for occurrence, times in msgspec.json.decode(self._line(name), type=list[tuple[Occurrence, int]]):
                    counted[occurrence] += times
        return counted

    def at(self, host: str) -> str:
        """Which daemon a row's host (with a port, in 1.3.5) names."""
        return next(name for name, own in self.hosts.items() if own == host.partition(":")[0])

    def kill(self, name: str) -> None:
        self.daemons[name].kill()
        self.daemons[name].wait()

    def story(self) -> str:
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text()[-2500:]}" for log in logs)

    def stop(self) -> None:
        """End all daemons and what their tasks have left running."""
        for process in self.daemons.values():
            assert process.stdin is not None
            process.stdin.close()
        for process in self.daemons.values():
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
        self._end_tasks()
        self.database.close()

    def _end_tasks(self) -> None:
        """Tasks outlive a worker of this design."""
        for entry in Path("/proc").glob("[0-9]*/cwd"):
            with suppress(OSError):
                if Path(os.readlink(entry)).is_relative_to(self.folder / "tasks"):
                    os.kill(int(entry.parent.name), signal.SIGKILL)

    def _line(self, name: str) -> bytes:
        stdout = self.daemons[name].stdout
        assert stdout is not None
        return stdout.readline()


def task(name: str, script: str, *needs: str, retries: int = 0) -> dict[str, Any]:
    """A SHELL task as the original's definitions have it."""
    return {
        "name": name,
        "type": "SHELL",
        "params": {"rawScript": script},
        "preTasks": list(needs),
        "maxRetryTimes": retries,
    }


@contextmanager
def baseline(folder: Path, database: str, zookeeper: str, mode: Mode, **settings: Any) -> Iterator[Baseline]:
    """A cluster without daemons; those started in it end with it."""
    folder.mkdir(exist_ok=True)
    made = Baseline(folder, database, zookeeper, mode, **settings)
    try:
        yield made
    finally:
        made.stop()
