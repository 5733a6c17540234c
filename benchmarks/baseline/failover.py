"""What masters do about a member whose node has gone: one master at a time, one task at a time.

Every master is told; each takes the role's failover lock in turn, and finds what is left to do.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import msgspec

from benchmarks.baseline import tables
from benchmarks.baseline.calls import Calls
from benchmarks.baseline.database import Database, Row
from benchmarks.baseline.heartbeat import created_at
from benchmarks.baseline.locks import FAILOVER, STARTUP, mutex
from benchmarks.baseline.settings import Settings
from benchmarks.baseline.tables import State
from benchmarks.baseline.tree import Tree, host_of

ALERTS = 3  # WARN_TIMES_FAILOVER
log = logging.getLogger("baseline.failover")


class Failover:
    """One master's part in failovers."""

    def __init__(self, settings: Settings, tree: Tree, database: Database, calls: Calls) -> None:
        self._settings, self._tree, self._database, self._calls = settings, tree, database, calls

    def watch(self) -> None:
        """React to members that go."""
        for role in ("master", "worker"):
            self._tree.watch_removals(self._tree.members[role], lambda node, role=role: self._gone(role, node))  # type: ignore[misc]

    def at_startup(self) -> None:
        """The first master alive fails over everything, workers' tasks first."""
        with mutex(self._tree, STARTUP):
            if len(self._tree.children(self._tree.members["master"])) == 1:
                self._fail_worker(None)
                self._fail_master(None)

    def _gone(self, role: str, node: str) -> None:
        try:
            with self._calls.step(f"{role} failover"), mutex(self._tree, FAILOVER[role]):
                self._tree.add_once(f"dead-servers/{role}_{node}")
                for _ in range(ALERTS):
                    self._database.execute(tables.ADD_ALERT, f"{role} {node} is dead", time.time())
                fail = self._fail_master if role == "master" else self._fail_worker
                fail(host_of(node))
        except Exception:
            log.exception("failover of %s", node)

    def _fail_worker(self, host: str | None) -> None:
        for task in self._database.rows(tables.LOST_TASKS, host):
            with self._calls.step("task failover"):
                if self._runs_elsewhere(task):
                    continue
                self._database.row(tables.INSTANCE, task["process_instance_id"])
                time.sleep(self._settings.poll_seconds)  # killYarnJob sleeps before it asks for the log
                if task["log_path"] and Path(task["log_path"]).exists():
                    Path(task["log_path"]).read_bytes()
                self._database.execute(tables.SET_TASK_STATE, task["id"], State.NEED_FAULT_TOLERANCE, time.time())

    def _runs_elsewhere(self, task: Row) -> bool:
        """Whether a worker of that host is alive which had started before the task did."""
        if task["host"] is None:
            return True  # nobody has it: it still waits
        folder = self._tree.members["worker"]
        for node in self._tree.children(folder):
            facts = self._tree.get(f"{folder}/{node}")
            if facts and host_of(node).startswith(task["host"]):
                return float(task["start_time"] or 0.0) > created_at(facts)
        return False

    def _fail_master(self, host: str | None) -> None:
        for instance in self._database.rows(tables.LOST_INSTANCES, host):
            with self._calls.step("workflow failover"):
                self._database.execute(tables.RELEASE_INSTANCE, instance["id"])
                parameter = msgspec.json.encode({"ProcessInstanceId": instance["id"]}).decode()
                definition = instance["process_definition_id"]
                self._database.execute(tables.ADD_COMMAND, tables.RECOVER, definition, parameter, time.time())
