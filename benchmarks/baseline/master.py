"""A master: it takes commands one by one under the cluster's lock, and runs a thread for each workflow (1.4)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from benchmarks.baseline import tables
from benchmarks.baseline.calls import Calls
from benchmarks.baseline.database import Connection, Database, Row
from benchmarks.baseline.dispatch import Dispatcher
from benchmarks.baseline.failover import Failover
from benchmarks.baseline.heartbeat import Membership
from benchmarks.baseline.locks import MASTERS, mutex
from benchmarks.baseline.queue import TaskQueue
from benchmarks.baseline.settings import Settings
from benchmarks.baseline.submit import Submission
from benchmarks.baseline.tables import State
from benchmarks.baseline.tree import Tree, has_resources
from benchmarks.baseline.workflow import WorkflowThread

log = logging.getLogger("baseline.master")


class Master:
    """What the master's threads share."""

    def __init__(self, settings: Settings, calls: Calls, stop: Callable[[str], None]) -> None:
        self.settings, self.calls = settings, calls
        self.database = Database(settings.database, calls)
        self._tree = Tree(settings, calls)
        self._queue = TaskQueue(self._tree, settings.poll_seconds) if settings.mode == "queue" else None
        self.submission = Submission(self.database, self._queue)
        self._pool = ThreadPoolExecutor(settings.exec_threads)
        self._dispatcher: Dispatcher | None = None
        if settings.mode == "tcp":
            self._dispatcher = Dispatcher(settings, self._tree, self.database, calls)
            self.settings = msgspec.structs.replace(settings, host=self._dispatcher.listen())
        self._membership = Membership(self.settings, self._tree, calls, "master", stop)

    def start(self) -> None:
        if self._dispatcher is not None:
            self._dispatcher.start()
        self._membership.register()
        failover = Failover(self.settings, self._tree, self.database, self.calls)
        failover.at_startup()
        failover.watch()
        threading.Thread(target=self._take_commands, daemon=True).start()

    def close(self) -> None:
        """Leave the tree; threads end with the process."""
        self._tree.close()

    def hand_on(self, task: Row) -> None:
        """After the commit: 1.3.5 dispatches from memory, 1.2.0 has queued already."""
        if self._dispatcher is not None and task["state"] == State.SUBMITTED:
            self._dispatcher.add(task)

    def kill(self, task: Row) -> None:
        """Ask for the end of a task: an entry in the kill set, or a frame to its worker."""
        if self._queue is not None:
            self._queue.add_kill(f"{task['host'] or 'NULL'}-{task['id']}")
        elif task["host"] is None:
            self.database.execute(tables.SET_TASK_STATE, task["id"], State.KILL, time.time())
        elif self._dispatcher is not None:
            self._dispatcher.kill(task)

    def _take_commands(self) -> None:
        while True:
            try:
                if has_resources(self.settings):
                    self._scan()
                else:
                    time.sleep(self.settings.poll_seconds)
            except Exception:
                log.exception("the command loop")

    def _scan(self) -> None:
        """One turn under the lock. 1.2.0 sleeps before it lets go of it, 1.3.5 only if there was no command."""
        with self.calls.step("command scan"), mutex(self._tree, MASTERS):
            command = self.database.row(tables.COMMAND)
            if command is not None:
                with self.calls.step("command"):
                    instance = self._handle(command)
                self._pool.submit(WorkflowThread(self, instance).run)
            if command is None or self.settings.mode == "queue":
                time.sleep(self.settings.poll_seconds)

    def _handle(self, command: Row) -> Row:
        with self.database.transaction() as connection:
            definition = connection.row(tables.DEFINITION, command["process_definition_id"])
            assert definition is not None
            instance = self._instance(connection, command, definition)
            connection.row(tables.DEFINITION, definition["id"])  # how many threads sub-processes would take: none
            connection.execute(tables.DELETE_COMMAND, command["id"])
        return instance

    def _instance(self, connection: Connection, command: Row, definition: Row) -> Row:
        """A new instance, or the one that a failover hands on."""
        host = self.settings.host
        if command["command_type"] == tables.RECOVER:
            number = msgspec.json.decode(command["command_param"])["ProcessInstanceId"]
            found = connection.row(tables.INSTANCE, number)
            assert found is not None
            taken = State.READY_STOP if found["state"] == State.READY_STOP else State.RUNNING
            instance = connection.row(tables.TAKE_INSTANCE, number, taken, host)
        else:
            body = definition["process_definition_json"]
            values = (definition["id"], State.RUNNING, host, time.time(), body)
            instance = connection.row(tables.ADD_INSTANCE, *values)
        assert instance is not None
        return instance
