"""ZooKeeper with its calls counted, and where things are in it.

queue (1.2.0): masters/<ip>_<seq>  workers/<ip>_<seq>                        ephemeral and sequential
tcp (1.3.5):   nodes/master/<ip:port>  nodes/worker/default/<ip:port>        ephemeral
both:          dead-servers/<role>_<host>  lock/...                          tasks_queue, tasks_kill: 1.2.0 only
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import NodeExistsError, NoNodeError
from kazoo.protocol.states import KazooState

from benchmarks.baseline.calls import Calls
from benchmarks.baseline.settings import Settings

MEMBERS = {
    "queue": {"master": "masters", "worker": "workers"},
    "tcp": {"master": "nodes/master", "worker": "nodes/worker/default"},
}
LOCKS = ("masters", "workers", "failover/masters", "failover/workers", "failover/startup-masters")
FOLDERS = ("dead-servers", "tasks_queue", "tasks_kill", *(f"lock/{name}" for name in LOCKS))
CONNECT_SECONDS_MAX = 60.0


class Tree:
    """One session. Paths are relative to the cluster's root."""

    def __init__(self, settings: Settings, calls: Calls) -> None:
        self._root, self._calls = settings.root, calls
        self._client = KazooClient(hosts=settings.zookeeper, timeout=settings.session_seconds)
        self._client.start(timeout=CONNECT_SECONDS_MAX)
        self.members = MEMBERS[settings.mode]
        for folder in (*FOLDERS, *self.members.values()):
            self._client.ensure_path(f"{self._root}/{folder}")

    def create(self, path: str, data: str = "", *, ephemeral: bool = False, sequence: bool = False) -> str:
        """Make a node and return its name."""
        self._calls.zookeeper()
        made = self._client.create(f"{self._root}/{path}", data.encode(), ephemeral=ephemeral, sequence=sequence)
        return str(made).rpartition("/")[2]

    def exists(self, path: str) -> bool:
        self._calls.zookeeper()
        return self._client.exists(f"{self._root}/{path}") is not None

    def delete(self, path: str) -> None:
        self._calls.zookeeper()
        with suppress(NoNodeError):
            self._client.delete(f"{self._root}/{path}")

    def children(self, path: str, watch: Callable[[Any], None] | None = None) -> list[str]:
        self._calls.zookeeper()
        return list(self._client.get_children(f"{self._root}/{path}", watch=watch))

    def get(self, path: str, watch: Callable[[Any], None] | None = None) -> str | None:
        """A node's data, or None without the node."""
        self._calls.zookeeper()
        try:
            return str(self._client.get(f"{self._root}/{path}", watch=watch)[0].decode())
        except NoNodeError:
            return None

    def set(self, path: str, data: str) -> None:
        self._calls.zookeeper()
        self._client.set(f"{self._root}/{path}", data.encode())

    def add_once(self, path: str) -> None:
        """exists, then create: what the original does for sets and for dead servers."""
        if not self.exists(path):
            with suppress(NodeExistsError):
                self.create(path)

    def remove_once(self, path: str) -> None:
        """exists, then delete."""
        if self.exists(path):
            self.delete(path)

    def on_lost(self, act: Callable[[], None]) -> None:
        """Call when the session has ended."""
        self._client.add_listener(lambda state: act() if state == KazooState.LOST else None)

    def watch_removals(self, path: str, removed: Callable[[str], None]) -> None:
        """Call, on a thread of its own, with the name of each child that goes; as PathChildrenCache reports them."""
        threading.Thread(target=self._watch, args=(path, removed), daemon=True).start()

    def _watch(self, path: str, removed: Callable[[str], None]) -> None:
        changes: queue.SimpleQueue[object] = queue.SimpleQueue()
        known: set[str] = set()
        while True:
            now = set(self.children(path, changes.put))
            for name in now - known:
                self.get(f"{path}/{name}")  # the cache keeps each child's data
            for name in sorted(known - now):
                removed(name)
            known = now
            changes.get()

    def close(self) -> None:
        self._client.stop()
        self._client.close()


def host_of(node: str) -> str:
    """The host in a member's node name, with or without the sequence number."""
    return node.partition("_")[0]


def memory_gb() -> tuple[float, float]:
    """What could be had of the memory, and all of it, by /proc."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    kilobytes = {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}
    return kilobytes["MemAvailable"] / 1e6, kilobytes["MemTotal"] / 1e6


def has_resources(settings: Settings) -> bool:
    """checkResource: what masters and workers ask before they take anything."""
    return os.getloadavg()[0] <= settings.load_max and memory_gb()[0] >= settings.reserved_gb
