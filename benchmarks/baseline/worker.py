"""A worker of 1.2.0: it looks for tasks in ZooKeeper once a second, and writes what becomes of them to the database."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from benchmarks.baseline import tables
from benchmarks.baseline.calls import Calls
from benchmarks.baseline.database import Database, Row
from benchmarks.baseline.heartbeat import Membership
from benchmarks.baseline.locks import WORKERS, mutex
from benchmarks.baseline.queue import TaskQueue, node_name, task_of
from benchmarks.baseline.settings import Settings
from benchmarks.baseline.shell import ShellTask, applications, kill_tree
from benchmarks.baseline.tables import State
from benchmarks.baseline.tree import Tree, has_resources

WAIT_TRIES = 30  # of one sleep each, for a row that is not committed yet
log = logging.getLogger("baseline.worker")


class Worker:
    """What the worker's threads share."""

    def __init__(self, settings: Settings, calls: Calls, stop: Callable[[str], None]) -> None:
        self._settings, self._calls = settings, calls
        self._database = Database(settings.database, calls)
        self._tree = Tree(settings, calls)
        self._queue = TaskQueue(self._tree, settings.poll_seconds)
        self._membership = Membership(settings, self._tree, calls, "worker", stop)
        self._pool = ThreadPoolExecutor(settings.exec_threads)
        self._running = 0
        self._counting = threading.Lock()
        self._task: Row | None = None  # a field, as in the original: see Settings.keep_race
        self._folder = Path(settings.folder)

    def start(self) -> None:
        self._membership.register()
        threading.Thread(target=self._fetch, daemon=True).start()
        threading.Thread(target=self._kill, daemon=True).start()

    def close(self) -> None:
        """Leave the tree; threads end with the process."""
        self._tree.close()

    # Fetching.

    def _fetch(self) -> None:
        while True:
            try:
                may = has_resources(self._settings) and self._running < self._settings.exec_threads
                time.sleep(self._settings.poll_seconds)
                with self._calls.step("fetch"):
                    if may and self._queue.names():
                        self._fetch_locked()
            except Exception:
                log.exception("the fetch loop")

    def _fetch_locked(self) -> None:
        with self._calls.step("poll"), mutex(self._tree, WORKERS):
            for name in self._queue.poll(self._settings.fetch_tasks, self._settings.host):
                with self._calls.step("take"):
                    self._take(name)

    def _take(self, name: str) -> None:
        number = task_of(name)
        if self._settings.keep_race:
            self._wait_for_row(number)
        detail = self._detail(number)
        if detail is None and not self._settings.keep_race:
            self._task = None
            self._wait_for_row(number)
            detail = self._detail(number)
        if detail is None:
            log.warning("task %s is null: its node is removed", number)
            return self._queue.remove(name)
        task, _, definition = detail
        tenant = self._database.row(tables.TENANT, definition["tenant_id"])
        if tenant is None:
            return self._queue.remove(name)
        self._user_queue(definition)
        group = self._database.row(tables.WORKER_GROUP, task["worker_group_id"])
        if group is not None and self._settings.host not in group["ip_list"].split(","):
            return None  # the node stays at the head
        self._submit(task)
        return self._queue.remove(name)

    def _wait_for_row(self, number: int) -> None:
        tries = WAIT_TRIES
        while self._task is None and tries:
            time.sleep(self._settings.poll_seconds)
            self._task = self._database.row(tables.TASK, number)
            tries -= 1

    def _detail(self, number: int) -> tuple[Row, Row, Row] | None:
        """The task with its workflow and its definition: three reads."""
        task = self._database.row(tables.TASK, number)
        if task is None:
            return None
        instance = self._database.row(tables.INSTANCE, task["process_instance_id"])
        return task, instance, self._database.row(tables.DEFINITION, task["process_definition_id"])

    def _user_queue(self, definition: Row) -> Row | None:
        user = self._database.row(tables.USER, definition["user_id"])
        return None if user is None else self._database.row(tables.USER_QUEUE, user["tenant_id"])

    def _submit(self, task: Row) -> None:
        script = msgspec.json.decode(task["task_json"])["params"]["rawScript"]
        process = ShellTask(self._folder, task["id"], script)
        process.prepare()
        with self._counting:
            self._running += 1
        self._pool.submit(self._run, task["id"], process)

    # Running.

    def _run(self, number: int, process: ShellTask) -> None:
        try:
            with self._calls.step("run"):
                self._database.row(tables.TASK, number)
                values = (number, State.RUNNING, time.time(), self._settings.host, str(process.log))
                self._database.execute(tables.SET_TASK_RUNNING, *values)
                pid = process.start()
                self._database.row(tables.TASK, number)
                self._database.execute(tables.SET_TASK_PID, number, pid)
            state = process.wait()
            with self._calls.step("finish"):
                self._finish(number, process, state)
        except Exception:
            log.exception("task %s", number)
        finally:
            with self._counting:
                self._running -= 1

    def _finish(self, number: int, process: ShellTask, state: State) -> None:
        ended = time.time()
        self._database.row(tables.TASK, number)
        process.applications()
        self._database.row(tables.TASK, number)
        self._database.execute(tables.SET_TASK_STATE, number, state, ended)

    # Killing.

    def _kill(self) -> None:
        """The set is read a sleep before it is acted on, by every worker: nearly all act on every entry."""
        entries = self._queue.kills()
        while True:
            try:
                time.sleep(self._settings.poll_seconds)
                for entry in entries:
                    with self._calls.step("kill entry"):
                        self._kill_entry(entry)
                with self._calls.step("kill poll"):
                    entries = self._queue.kills()
            except Exception:
                log.exception("the kill loop")

    def _kill_entry(self, entry: str) -> None:
        host, _, number = entry.partition("-")
        detail = self._detail(int(number))
        if detail is not None and not State(detail[0]["state"]).finished:
            if host == "NULL":
                with self._calls.step("kill waiting"):
                    self._kill_waiting(detail[0])
            elif detail[0]["pid"]:
                self._kill_running(detail[0])
        self._queue.remove_kill(entry)

    def _kill_waiting(self, task: Row) -> None:
        """Nobody has it yet: take its node away."""
        with mutex(self._tree, WORKERS):
            instance = self._database.row(tables.INSTANCE, task["process_instance_id"])
            assert instance is not None
            self._queue.remove(node_name(instance["priority"], instance["id"], task["priority"], task["id"], []))
            self._database.execute(tables.SET_TASK_STATE, task["id"], State.KILL, time.time())

    def _kill_running(self, task: Row) -> None:
        """By process id, whoever's worker started it; then the sleep before the log is searched for YARN's ids."""
        kill_tree(task["pid"], self._folder)
        time.sleep(self._settings.poll_seconds)
        applications(Path(task["log_path"]))
