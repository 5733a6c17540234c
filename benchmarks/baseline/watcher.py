"""One thread per running task: it submits it, then reads the database once a second until the task has ended."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from benchmarks.baseline import tables
from benchmarks.baseline.database import Row
from benchmarks.baseline.tables import State

if TYPE_CHECKING:
    from benchmarks.baseline.master import Master

log = logging.getLogger("baseline.watcher")


class Watcher:
    """MasterTaskExecThread: `run` on the workflow's pool; `task` is the last row that was read."""

    def __init__(self, master: Master, node: dict[str, Any], instance: Row, previous: Row | None) -> None:
        self._master, self._node, self._instance, self._previous = master, node, instance, previous
        self.name = str(node["name"])
        self.task: Row | None = None
        self._killed = False

    def run(self) -> None:
        try:
            self.task = self._submit()
            if self.task is not None:
                self._watch(self.task["id"])
        except Exception:
            log.exception("the watcher of %s", self.name)

    def _submit(self) -> Row | None:
        settings = self._master.settings
        for _ in range(settings.commit_tries):
            try:
                with self._master.calls.step("resubmit" if self._left_running() else "submit"):
                    task = self._master.submission.submit(self._node, self._instance, self._previous)
                if not State(task["state"]).finished:
                    self._master.hand_on(task)
                return task
            except Exception:
                log.exception("submitting %s", self.name)
                time.sleep(settings.commit_pause_seconds)
        return None

    def _left_running(self) -> bool:
        """Whether a dead master had submitted it."""
        return self._previous is not None and not State(self._previous["state"]).finished

    def _watch(self, number: int) -> None:
        calls, database = self._master.calls, self._master.database
        workflow: Row = self._instance
        while True:
            assert self.task is not None
            if workflow["state"] == State.READY_STOP:
                self._kill_once()
            if State(self.task["state"]).finished:
                break
            with calls.step("watch"):
                self.task = database.row(tables.TASK, number)
                workflow = database.row(tables.INSTANCE, self._instance["id"])
            time.sleep(self._master.settings.poll_seconds)  # once more after the end was read
        with calls.step("watched"):
            database.execute(tables.SET_TASK_STATE, number, self.task["state"], self.task["end_time"] or time.time())

    def _kill_once(self) -> None:
        assert self.task is not None
        if not self._killed and not State(self.task["state"]).finished:
            self._killed = True
            with self._master.calls.step("kill"):
                self._master.kill(self.task)
