"""The cluster-wide mutex, as Curator's InterProcessMutex takes it: create, list, and if others are before, wait.

Uncontended it costs three calls: create, getChildren, delete. Whoever waits watches only the one before, and lists
again when that has gone: two calls for each turn of waiting.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.baseline.tree import Tree

MASTERS, WORKERS = "lock/masters", "lock/workers"
FAILOVER = {"master": "lock/failover/masters", "worker": "lock/failover/workers"}
STARTUP = "lock/failover/startup-masters"


def order(node: str) -> str:
    """The sequence number that ends every name."""
    return node[-10:]


@contextmanager
def mutex(tree: Tree, path: str) -> Iterator[None]:
    """Hold the lock."""
    mine = tree.create(f"{path}/_c_{uuid.uuid4()}-lock-", ephemeral=True, sequence=True)
    try:
        _wait_for_turn(tree, path, mine)
        yield
    finally:
        tree.delete(f"{path}/{mine}")


def _wait_for_turn(tree: Tree, path: str, mine: str) -> None:
    while True:
        names = sorted(tree.children(path), key=order)
        place = names.index(mine)
        if place == 0:
            return
        gone = threading.Event()
        if tree.get(f"{path}/{names[place - 1]}", lambda _, gone=gone: gone.set()) is not None:  # type: ignore[misc]
            gone.wait()
