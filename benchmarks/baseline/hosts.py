"""Which worker is next (1.3.5 LowerWeight): facts of all workers every five seconds, then the lowest sum of weights."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

from benchmarks.baseline.calls import Calls
from benchmarks.baseline.settings import Settings
from benchmarks.baseline.tree import Tree

CPU, MEMORY, LOAD = 10, 20, 70
ABNORMAL = "1"
log = logging.getLogger("baseline.hosts")


class Hosts:
    """The weights as of the last refresh."""

    def __init__(self, settings: Settings, tree: Tree, calls: Calls) -> None:
        self._settings, self._tree, self._calls = settings, tree, calls
        self._weights: dict[str, int] = {}
        self._current: dict[str, int] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        threading.Thread(target=self._follow, daemon=True).start()

    def select(self) -> str | None:
        """The next worker, or None without any."""
        with self._lock:
            for host, weight in self._weights.items():
                self._current[host] += weight
            if not self._current:
                return None
            lowest = min(self._current, key=lambda host: self._current[host])
            self._current[lowest] += sum(self._weights.values())
            return lowest

    def others(self, first: str) -> Iterator[str]:
        """The rest of the group, asked of ZooKeeper when the one that was selected does not answer."""
        yield from (host for host in self._tree.children(self._tree.members["worker"]) if host != first)

    def _follow(self) -> None:
        while True:
            try:
                with self._calls.step("weights"):
                    self._refresh()
            except Exception:
                log.exception("reading the workers' weights")
            time.sleep(self._settings.weights_seconds)

    def _refresh(self) -> None:
        folder = self._tree.members["worker"]
        weights = {}
        for host in self._tree.children(folder):
            facts = (self._tree.get(f"{folder}/{host}") or "").split(",")
            if len(facts) == 10 and facts[8] != ABNORMAL:
                weights[host] = int(float(facts[0]) * CPU + float(facts[1]) * MEMORY + float(facts[2]) * LOAD)
        with self._lock:
            self._weights, self._current = weights, dict.fromkeys(weights, 0)
