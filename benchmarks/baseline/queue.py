"""The task queue and the kill set in ZooKeeper: a node's name is its payload.

A name is `{workflow priority}_{workflow id}_{task priority}_{task id}_{hosts}`, hosts as numbers, -1 for any. Every
poll of every worker reads all names, sorts them and takes the first few; each is taken away when it was handed on.
"""

from __future__ import annotations

import socket
import struct
import time

from benchmarks.baseline.tree import Tree

QUEUE, KILLS = "tasks_queue", "tasks_kill"
ANY = "-1"
MEDIUM = 2  # priorities go from 0, the highest, to 4


class TaskQueue:
    """What masters fill and workers empty."""

    def __init__(self, tree: Tree, poll_seconds: float) -> None:
        self._tree, self._poll_seconds = tree, poll_seconds

    def add(self, name: str) -> None:
        self._tree.create(f"{QUEUE}/{name}")

    def has(self, name: str) -> bool:
        return self._tree.exists(f"{QUEUE}/{name}")

    def names(self) -> list[str]:
        return self._tree.children(QUEUE)

    def remove(self, name: str) -> None:
        self._tree.remove_once(f"{QUEUE}/{name}")

    def poll(self, count: int, host: str) -> list[str]:
        """The first names that this host may take. With none at all it sleeps, whatever lock its caller holds."""
        names = self.names()
        if not names:
            time.sleep(self._poll_seconds)
        mine = str(as_number(host))
        open_names = [name for name in names if may_take(name, mine)]
        return sorted(open_names, key=sort_key)[:count]

    def add_kill(self, entry: str) -> None:
        self._tree.add_once(f"{KILLS}/{entry}")

    def kills(self) -> list[str]:
        return self._tree.children(KILLS)

    def remove_kill(self, entry: str) -> None:
        self._tree.remove_once(f"{KILLS}/{entry}")


def node_name(workflow_priority: int, workflow: int, task_priority: int, task: int, hosts: list[str]) -> str:
    numbers = ",".join(str(as_number(host)) for host in hosts) or ANY
    return f"{workflow_priority}_{workflow}_{task_priority}_{task}_{numbers}"


def task_of(name: str) -> int:
    return int(name.split("_")[3])


def may_take(name: str, mine: str) -> bool:
    parts = name.split("_")
    if len(parts) < 4:
        return False
    hosts = parts[4].split(",") if len(parts) > 4 else [ANY]
    return hosts == [ANY] or mine in hosts


def sort_key(name: str) -> str:
    """Ids padded so that text sorts as numbers do; without the hosts."""
    workflow_priority, workflow, task_priority, task = name.split("_")[:4]
    return f"{workflow_priority}_{int(workflow):010d}_{task_priority}_{int(task):010d}"


def as_number(host: str) -> int:
    """An IPv4 address as the number it is."""
    number: int = struct.unpack(">I", socket.inet_aton(host))[0]
    return number
