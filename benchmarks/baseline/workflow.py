"""One thread per workflow: it looks at its watchers, makes successors, submits what stands by, and sleeps (1.5)."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.baseline import tables
from benchmarks.baseline.database import Row
from benchmarks.baseline.tables import State
from benchmarks.baseline.tree import has_resources
from benchmarks.baseline.watcher import Watcher

if TYPE_CHECKING:
    from benchmarks.baseline.master import Master

log = logging.getLogger("baseline.workflow")


class WorkflowThread:
    """MasterExecThread: `run` on the master's pool."""

    def __init__(self, master: Master, instance: Row) -> None:
        self._master, self._instance = master, instance
        nodes = msgspec.json.decode(instance["process_instance_json"])["tasks"]
        self._nodes: dict[str, dict[str, Any]] = {node["name"]: node for node in nodes}
        self._followers: dict[str | None, list[str]] = {}
        for node in nodes:
            for need in node["preTasks"] or [None]:
                self._followers.setdefault(need, []).append(node["name"])
        self._state = State(instance["state"])
        self._done: dict[str, State] = {}
        self._active: dict[Watcher, Future[None]] = {}
        self._standby: dict[str, Row | None] = {}  # by name, with the row of the try before
        self._unsubmitted = False

    def run(self) -> None:
        try:
            with self._master.calls.step("workflow begins"):
                self._restore()
            with ThreadPoolExecutor(self._master.settings.task_threads) as self._pool:
                self._loop()
        except Exception:
            log.exception("workflow %s", self._instance["id"])

    def _restore(self) -> None:
        """What a dead master has left; nothing for a new workflow."""
        for task in self._master.database.rows(tables.TASKS, self._instance["id"]):
            state = State(task["state"])
            if state is State.SUCCESS or (state.finished and not may_retry(task)):
                self._done[task["name"]] = state

    def _loop(self) -> None:
        self._stand_by(self._ready(None))
        for name in list(self._done):
            self._stand_by(self._ready(name))
        while not self._state.finished:
            self._settle_finished()
            if has_resources(self._master.settings):
                self._submit_standby()
            time.sleep(self._master.settings.poll_seconds)
            with self._master.calls.step("workflow turn"):
                self._update_state()

    def _settle_finished(self) -> None:
        for watcher in [watcher for watcher, future in self._active.items() if future.done()]:
            del self._active[watcher]
            if watcher.task is None:
                self._unsubmitted = True
                self._done[watcher.name] = State.FAILURE
            else:
                self._settle(watcher.name, watcher.task)

    def _settle(self, name: str, task: Row) -> None:
        state = State(task["state"])
        if state.failed and may_retry(task):
            self._standby[name] = task
            return
        self._done[name] = state
        if state is State.SUCCESS:
            self._stand_by(self._ready(name))

    def _ready(self, name: str | None) -> list[str]:
        """Followers whose needs have all succeeded."""
        return [
            follower
            for follower in self._followers.get(name, [])
            if all(self._done.get(need) is State.SUCCESS for need in self._nodes[follower]["preTasks"])
        ]

    def _stand_by(self, names: list[str]) -> None:
        running = {watcher.name for watcher in self._active}
        for name in names:
            if name not in self._done and name not in self._standby and name not in running:
                with self._master.calls.step("successor"):
                    self._standby[name] = self._find(name)

    def _find(self, name: str) -> Row | None:
        """findTaskIfExists: all rows of the workflow are read for each node."""
        rows = self._master.database.rows(tables.TASKS, self._instance["id"])
        return next((row for row in rows if row["name"] == name), None)

    def _submit_standby(self) -> None:
        for name, previous in list(self._standby.items()):
            del self._standby[name]
            watcher = Watcher(self._master, self._nodes[name], self._instance, previous)
            self._active[watcher] = self._pool.submit(watcher.run)

    def _update_state(self) -> None:
        """One read; with a change another read and a write."""
        instance = self._master.database.row(tables.INSTANCE, self._instance["id"])
        assert instance is not None
        state = self._next_state(State(instance["state"]))
        if state is not State(instance["state"]):
            self._master.database.row(tables.INSTANCE, self._instance["id"])
            self._master.database.execute(tables.SET_INSTANCE_STATE, self._instance["id"], state, time.time())
        self._state = state

    def _next_state(self, state: State) -> State:
        if self._active:
            return state
        if state is State.READY_STOP:
            return State.STOP
        if self._standby:
            return state
        bad = self._unsubmitted or any(done is not State.SUCCESS for done in self._done.values())
        return State.FAILURE if bad else State.SUCCESS


def may_retry(task: Row) -> bool:
    """A fault is always tried again; a failure while tries are left."""
    state = State(task["state"])
    retries: int = task["retry_times"]
    return state is State.NEED_FAULT_TOLERANCE or (state is State.FAILURE and retries < task["max_retry_times"])
