"""A worker of 1.3.5: it is sent tasks, reports through the channel they came by, and never sees the database.

A report is kept until a master says that it is in the database, and sent again every five minutes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from benchmarks.baseline.calls import Calls
from benchmarks.baseline.heartbeat import Membership
from benchmarks.baseline.settings import Settings
from benchmarks.baseline.shell import KILLED, ShellTask, kill_tree
from benchmarks.baseline.tables import State
from benchmarks.baseline.tree import Tree
from benchmarks.baseline.wire import Body, Channel, Kind, connect, listen

BACKOFF = (1, 2, 3, 5, 10, 20, 40, 100, 100, 100, 100, 200, 200, 200)  # seconds, while no master can be reached
KEPT = {Kind.DB_ACK: Kind.ACK, Kind.DB_RESULT: Kind.RESULT}
log = logging.getLogger("baseline.tcp_worker")


class TcpWorker:
    """What the worker's threads share."""

    def __init__(self, settings: Settings, calls: Calls, stop: Callable[[str], None]) -> None:
        host = listen(settings.host, self._on_frame)
        self._settings = msgspec.structs.replace(settings, host=host)
        self._tree = Tree(settings, calls)
        self._membership = Membership(self._settings, self._tree, calls, "worker", stop)
        self._pool = ThreadPoolExecutor(settings.exec_threads)
        self._pids: dict[int, int] = {}  # 0 until its process runs; gone if it was killed before
        self._channels: dict[int, Channel] = {}
        self._kept: dict[tuple[int, Kind], Body] = {}

    def start(self) -> None:
        self._membership.register()
        threading.Thread(target=self._repeat, daemon=True).start()

    def close(self) -> None:
        """Leave the tree; threads end with the process."""
        self._tree.close()

    def _on_frame(self, channel: Channel, kind: Kind, body: Body) -> None:
        if kind is Kind.EXECUTE:
            self._on_execute(channel, msgspec.json.decode(body["taskExecutionContext"]))
        elif kind is Kind.KILL:
            self._on_kill(channel, body["taskInstanceId"])
        elif body["status"] == State.SUCCESS:
            self._kept.pop((body["taskInstanceId"], KEPT[kind]), None)

    def _on_execute(self, channel: Channel, context: Body) -> None:
        number = context["taskInstanceId"]
        script = msgspec.json.decode(context["taskJson"])["params"]["rawScript"]
        process = ShellTask(Path(self._settings.folder), number, script)
        process.prepare()
        self._channels[number], self._pids[number] = channel, 0
        started = {"startTime": time.time(), "host": self._settings.host, "status": State.RUNNING}
        paths = {"logPath": str(process.log), "executePath": str(process.folder)}
        self._report(number, Kind.ACK, started | paths)
        self._pool.submit(self._run, number, process)

    def _run(self, number: int, process: ShellTask) -> None:
        try:
            state, pid = self._run_process(number, process)
            ended = {"status": state, "endTime": time.time(), "processId": pid, "appIds": process.applications()}
            self._report(number, Kind.RESULT, ended)
            self._pids.pop(number, None)
            self._channels.pop(number, None)
        except Exception:
            log.exception("task %s", number)

    def _run_process(self, number: int, process: ShellTask) -> tuple[State, int]:
        if number not in self._pids:
            return State.KILL, 0  # its context was taken away: exit code 137
        pid = self._pids[number] = process.start()
        return process.wait(), pid

    def _on_kill(self, channel: Channel, number: int) -> None:
        """On the thread that reads the channel: what comes after waits."""
        pid = self._pids.get(number, 0)
        if pid:
            kill_tree(pid, Path(self._settings.folder))
        else:
            self._pids.pop(number, None)
        answer = {"taskInstanceId": number, "host": self._settings.host, "status": KILLED, "processId": pid}
        channel.send(Kind.KILL_RESPONSE, answer)

    # Reporting.

    def _report(self, number: int, kind: Kind, facts: Body) -> None:
        body = {"taskInstanceId": number} | facts
        self._kept[number, kind] = body
        self._send(number, kind, body)

    def _send(self, number: int, kind: Kind, body: Body) -> None:
        channel = self._channels.get(number)
        if channel is not None and channel.active:
            try:
                return channel.send(kind, body)
            except OSError:
                log.warning("task %s: its master's channel has ended", number)
        return self._any_master(number).send(kind, body)

    def _any_master(self, number: int) -> Channel:
        """A new channel to whichever master answers; any of them may write the result down."""
        for seconds in BACKOFF:
            for host in self._tree.children(self._tree.members["master"]):
                try:
                    channel = self._channels[number] = connect(host, self._on_frame)
                    return channel
                except OSError:
                    log.warning("no answer from master %s", host)
            time.sleep(seconds)
        raise ConnectionError("no master answers")

    def _repeat(self) -> None:
        while True:
            time.sleep(self._settings.report_seconds)
            for (number, kind), body in list(self._kept.items()):
                try:
                    self._send(number, kind, body)
                except Exception:
                    log.exception("repeating %s of task %s", kind.name, number)
