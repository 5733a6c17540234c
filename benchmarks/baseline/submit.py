"""Submitting one task: a transaction of nine statements, with three ZooKeeper calls inside it (1.2.0).

The node is in the queue before the row is committed: the race that a worker may lose. In 1.3.5 nothing but the database
is asked, and the task goes into a queue in the master's memory.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from benchmarks.baseline import tables
from benchmarks.baseline.database import Connection, Database, Row
from benchmarks.baseline.queue import MEDIUM, TaskQueue, node_name
from benchmarks.baseline.tables import State

Node = dict[str, Any]  # a task as the definition's JSON has it


class Submission:
    """submitTask of one master. `queue` is None in 1.3.5."""

    def __init__(self, database: Database, queue: TaskQueue | None) -> None:
        self._database, self._queue = database, queue

    def submit(self, node: Node, instance: Row, previous: Row | None) -> Row:
        """The row of the task, which is in the queue if it is to run."""
        with self._database.transaction() as connection:
            workflow = connection.row(tables.INSTANCE, instance["id"])
            assert workflow is not None
            if previous is not None and not State(previous["state"]).finished:
                return self._resubmit(connection, previous, node)
            if self._queue is not None:
                self._queue.has(task_node(connection, workflow["id"], 0, node))  # no id yet: it never matches
            state = self._state(connection, workflow)
            task = add_row(connection, node, workflow, previous, state)
            if state is State.SUBMITTED and self._queue is not None:
                self._enqueue(connection, task, node)
            return task

    def _state(self, connection: Connection, workflow: Row) -> State:
        """KILL when nothing may start any more. (With the failure strategy END the original reads all tasks, too.)"""
        instance = connection.row(tables.INSTANCE, workflow["id"])
        assert instance is not None
        return State.KILL if instance["state"] == State.READY_STOP else State.SUBMITTED

    def _resubmit(self, connection: Connection, task: Row, node: Node) -> Row:
        """A task that a dead master had submitted: it is watched again, and queued if it is not."""
        if task["state"] == State.SUBMITTED and self._queue is not None:
            self._enqueue(connection, task, node)
        return task

    def _enqueue(self, connection: Connection, task: Row, node: Node) -> None:
        assert self._queue is not None
        workflow, number = task["process_instance_id"], task["id"]
        if not self._queue.has(task_node(connection, workflow, number, node)):
            self._queue.add(task_node(connection, workflow, number, node))


def task_node(connection: Connection, workflow: int, task: int, node: Node) -> str:
    """taskZkInfo: two reads for one name."""
    instance = connection.row(tables.INSTANCE, workflow)
    assert instance is not None
    group = connection.row(tables.WORKER_GROUP, instance["worker_group_id"])
    hosts = group["ip_list"].split(",") if group else []
    return node_name(instance["priority"], workflow, node.get("priority", MEDIUM), task, hosts)


def add_row(connection: Connection, node: Node, workflow: Row, previous: Row | None, state: State) -> Row:
    """Insert the task; one that is tried again retires its last row first."""
    retries = 0
    if previous is not None:
        connection.execute(tables.RETIRE_TASK, previous["id"])
        retries = previous["retry_times"] + (previous["state"] != State.NEED_FAULT_TOLERANCE)
    task = connection.row(
        tables.ADD_TASK,
        node["name"],
        workflow["process_definition_id"],
        workflow["id"],
        msgspec.json.encode(node).decode(),
        state,
        retries,
        node.get("maxRetryTimes", 0),
        node.get("priority", MEDIUM),
        time.time(),
    )
    assert task is not None
    return task
