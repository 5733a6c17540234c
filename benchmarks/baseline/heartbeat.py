"""Membership: an ephemeral node with a line of facts, rewritten every ten seconds; and the verdict of being dead.

A server whose node has gone or that is listed among the dead stops, and so does one whose heartbeat fails in any way.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from benchmarks.baseline.calls import Calls
from benchmarks.baseline.settings import Settings
from benchmarks.baseline.tree import Tree, has_resources, memory_gb

log = logging.getLogger("baseline.heartbeat")


class Membership:
    """One server's place in the tree."""

    def __init__(self, settings: Settings, tree: Tree, calls: Calls, role: str, stop: Callable[[str], None]) -> None:
        self._settings, self._tree, self._calls, self._stop = settings, tree, calls, stop
        self._folder, self._dead = tree.members[role], f"dead-servers/{role}_"
        self._started = time.time()

    def register(self) -> None:
        """Enter the tree and begin to beat."""
        sequential = self._settings.mode == "queue"
        name = self._settings.host + ("_" if sequential else "")
        made = self._tree.create(f"{self._folder}/{name}", self._facts(), ephemeral=True, sequence=sequential)
        self._path, self._dead = f"{self._folder}/{made}", self._dead + made
        self._tree.remove_once(self._dead)
        self._tree.on_lost(lambda: self._stop("the session has ended"))
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        time.sleep(self._settings.heartbeat_delay_seconds)
        while True:
            try:
                with self._calls.step("heartbeat"):
                    judged = self._judged()
            except Exception:
                log.exception("heartbeat")
                judged = True
            if judged:
                return self._stop("i was judged to death")
            time.sleep(self._settings.heartbeat_seconds)

    def _judged(self) -> bool:
        """1.2.0: exists (own), exists (dead), getData, setData. 1.3.5: exists (dead), setData."""
        reads = self._settings.mode == "queue"
        if (reads and not self._tree.exists(self._path)) or self._tree.exists(self._dead):
            return True
        if reads:
            self._tree.get(self._path)
        self._tree.set(self._path, self._facts())
        return False

    def _facts(self) -> str:
        """host,pid,cpu,memory,load,created,now; or cpu,memory,load,free,max,reserved,started,now,status,pid."""
        (free, total), load, now = memory_gb(), os.getloadavg()[0], time.time()
        use = f"{min(1.0, load / (os.cpu_count() or 1)):.2f},{1 - free / total:.2f},{load:.2f}"
        if self._settings.mode == "queue":
            return f"{self._settings.host},{os.getpid()},{use},{self._started},{now}"
        limits = f"{free:.2f},{self._settings.load_max},{self._settings.reserved_gb}"
        status = int(not has_resources(self._settings))
        return f"{use},{limits},{self._started},{now},{status},{os.getpid()}"


def created_at(facts: str) -> float:
    """When the server started that wrote these facts (7 fields in 1.2.0, 10 in 1.3.5)."""
    fields = facts.split(",")
    return float(fields[5] if len(fields) == 7 else fields[6])
