"""The master's side of 1.3.5: tasks wait in memory, one thread reads seven rows for each and sends it to a worker.

Reports come back to one thread, whichever master they reach: the row is where the master that owns the workflow finds
them, by reading it once a second as before.
"""

from __future__ import annotations

import logging
import queue
import threading
import time

import msgspec

from benchmarks.baseline import tables
from benchmarks.baseline.calls import Calls
from benchmarks.baseline.database import Database, Row
from benchmarks.baseline.hosts import Hosts
from benchmarks.baseline.settings import Settings
from benchmarks.baseline.tables import State
from benchmarks.baseline.tree import Tree
from benchmarks.baseline.wire import Body, Channel, Kind, connect, listen

GROUP = "default"
PRIORITY = 2  # the workflow's, in both places, as in 1.3.5
QUEUE_MAX = 3000
REPORTS_MAX = 5000
log = logging.getLogger("baseline.dispatch")


class Undelivered(Exception):
    """ExecuteException: no worker took the task."""


class Dispatcher:
    """TaskPriorityQueueConsumer, with the channels to workers."""

    def __init__(self, settings: Settings, tree: Tree, database: Database, calls: Calls) -> None:
        self._settings, self._database, self._calls = settings, database, calls
        self._hosts = Hosts(settings, tree, calls)
        self._reports = Reports(database, calls)
        self._queue: queue.PriorityQueue[str] = queue.PriorityQueue(QUEUE_MAX)  # compared as text: 10 before 9
        self._channels: dict[str, Channel] = {}

    def listen(self) -> str:
        """Take reports of workers that come by themselves; returns this master's `ip:port`."""
        return listen(self._settings.host, self._reports)

    def start(self) -> None:
        self._hosts.start()
        self._reports.start()
        threading.Thread(target=self._consume, daemon=True).start()

    def add(self, task: Row) -> None:
        self._queue.put(f"{PRIORITY}_{task['process_instance_id']}_{PRIORITY}_{task['id']}_{GROUP}")

    def kill(self, task: Row) -> None:
        """Sent once; nobody looks whether it arrived."""
        self._channel(task["host"]).send(Kind.KILL, {"taskInstanceId": task["id"]})

    def _consume(self) -> None:
        while True:
            failed: list[str] = []
            try:
                for _ in range(self._settings.fetch_tasks):
                    self._consume_one(failed)
                for entry in failed:
                    self._queue.put(entry)
                if failed and self._queue.qsize() <= len(failed):
                    time.sleep(self._settings.poll_seconds)
            except Exception:
                log.exception("the dispatch loop")  # what it had taken is lost

    def _consume_one(self, failed: list[str]) -> None:
        if self._queue.empty():
            return time.sleep(self._settings.poll_seconds)
        entry = self._queue.get()
        try:
            with self._calls.step("dispatch"):
                self._dispatch(int(entry.split("_")[3]))
        except Undelivered as error:
            log.warning("task %s: %s", entry, error)
            failed.append(entry)
        return None

    def _dispatch(self, number: int) -> None:
        body = {"taskExecutionContext": msgspec.json.encode(self._context(number)).decode()}
        state = self._database.row(tables.TASK, number)
        if state is None or State(state["state"]).finished:
            return
        first = self._hosts.select()
        if first is None:
            raise Undelivered("there is no worker")
        if self._deliver(first, body) or any(self._deliver(host, body) for host in self._hosts.others(first)):
            return
        raise Undelivered("no worker of the group can be reached")

    def _context(self, number: int) -> Body:
        """Six reads for what the worker is told."""
        task = self._read(tables.TASK, number)
        self._read(tables.INSTANCE, task["process_instance_id"])
        definition = self._read(tables.DEFINITION, task["process_definition_id"])
        tenant = self._read(tables.TENANT, definition["tenant_id"])
        user = self._read(tables.USER, definition["user_id"])
        queue_name = self._read(tables.USER_QUEUE, user["tenant_id"])["queue_name"]
        return {
            "taskInstanceId": number,
            "taskName": task["name"],
            "taskType": "SHELL",
            "taskJson": task["task_json"],
            "processInstanceId": task["process_instance_id"],
            "processDefineId": definition["id"],
            "tenantCode": tenant["tenant_code"],
            "queue": queue_name,
            "workerGroup": GROUP,
        }

    def _read(self, sql: str, number: int) -> Row:
        row = self._database.row(sql, number)
        assert row is not None
        return row

    def _deliver(self, host: str, body: Body) -> bool:
        for _ in range(self._settings.send_tries):
            try:
                self._channel(host).send(Kind.EXECUTE, body)
                return True
            except OSError:
                time.sleep(self._settings.send_pause_seconds)
        return False

    def _channel(self, host: str) -> Channel:
        channel = self._channels.get(host)
        if channel is None or not channel.active:
            channel = self._channels[host] = connect(host, self._reports)
        return channel


class Reports:
    """TaskResponseService: one queue and one thread for what workers say."""

    def __init__(self, database: Database, calls: Calls) -> None:
        self._database, self._calls = database, calls
        self._events: queue.Queue[tuple[Channel, Kind, Body]] = queue.Queue(REPORTS_MAX)

    def start(self) -> None:
        threading.Thread(target=self._work, daemon=True).start()

    def __call__(self, channel: Channel, kind: Kind, body: Body) -> None:
        if kind in (Kind.ACK, Kind.RESULT):
            self._events.put((channel, kind, body))
        else:
            log.info("%s %s", kind.name, body)  # the answer to a kill is only logged

    def _work(self) -> None:
        while True:
            channel, kind, body = self._events.get()
            try:
                with self._calls.step("report"):
                    self._persist(kind, body)
                answer = Kind.DB_ACK if kind is Kind.ACK else Kind.DB_RESULT
                channel.send(answer, {"taskInstanceId": body["taskInstanceId"], "status": State.SUCCESS})
            except Exception:
                log.exception("%s %s", kind.name, body)

    def _persist(self, kind: Kind, body: Body) -> None:
        """Two reads and a write. What has ended stays ended, if the word of its start comes late."""
        number = body["taskInstanceId"]
        found, task = self._database.row(tables.TASK, number), self._database.row(tables.TASK, number)
        if found is None or task is None:
            return
        if kind is Kind.RESULT:
            values = (number, body["status"], body["endTime"], body["processId"])
            self._database.execute(tables.SET_TASK_ENDED, *values)
        else:
            state = task["state"] if State(task["state"]).finished else body["status"]
            started = (number, state, body["startTime"], body["host"], body["logPath"])
            self._database.execute(tables.SET_TASK_RUNNING, *started)
