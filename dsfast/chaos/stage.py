"""Everything that is broken and put right again: servers, daemons and the network between them.

Daemons are looked after as a supervisor would: one that has ended though nobody wants it down is started again, under
the same name, at the same port.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dsfast.chaos.cluster import Cluster
from dsfast.chaos.journal import Journal
from dsfast.chaos.network import Network
from dsfast.chaos.plan import Cast
from dsfast.chaos.ports import free_port
from dsfast.chaos.postgres import PostgresServer
from dsfast.chaos.witness import marked_processes
from dsfast.chaos.zookeeper import Ensemble
from dsfast.errors import Unavailable

RESPAWN_SECONDS = 0.2  # before a daemon is started again: its port may be held by what is left of its former life
START_SECONDS = 180.0  # three here, for everything; a machine that is busy otherwise may take fifty
END_SECONDS = 20.0  # for guardians to end what is below them
TASKS = "tasks"  # where tasks bear witness, below the cluster's folder


@dataclass(slots=True)
class Stage:
    """A cluster on its servers; those that belong to somebody else are None."""

    cluster: Cluster
    network: Network
    journal: Journal
    cast: Cast
    slots: int
    store: PostgresServer | None = None
    registry: Ensemble | None = None
    down: set[str] = field(default_factory=set)  # who is not to be started again for now
    paused: set[int] = field(default_factory=set)
    respawned: Counter[str] = field(default_factory=Counter)
    _ports: dict[str, int] = field(default_factory=dict)
    _ended_at: dict[str, float] = field(default_factory=dict)

    def start(self) -> None:
        """Start every daemon; returns once all are listed. Raises Unavailable with their logs if they never are."""
        for name in (*self.cast.masters, *self.cast.workers, "api"):
            self._start(name)
        try:
            everybody = len(self.cast.masters), len(self.cast.workers)
            self.cluster.until(lambda: self.cluster.complete(*everybody), START_SECONDS)
        except AssertionError as error:
            raise Unavailable(f"the cluster did not come up:\n{error}") from None

    def _start(self, name: str) -> None:
        if name == "api":
            self.cluster.start("api", name)
            return
        port = self._ports.setdefault(name, free_port())
        if name in self.cast.masters:
            self.cluster.start("master", name, port=port)
        else:
            self.cluster.start_worker(name, port=port, slots=self.slots)

    def tend(self) -> None:
        """Start again what has ended and is not to be down."""
        now = time.monotonic()
        for name, process in self.cluster.daemons.items():
            if name not in self.down and process.poll() is not None:
                ended_at = self._ended_at.setdefault(name, now)
                if now - ended_at >= RESPAWN_SECONDS:
                    del self._ended_at[name]
                    self.respawned[name] += 1
                    self._start(name)

    def members(self) -> list[str]:
        """All daemons of which there may be several."""
        return [*self.cast.masters, *self.cast.workers]

    def strike(self, pids: list[int], number: signal.Signals) -> None:
        """Send a signal to processes, those that are gone excepted."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        if number == signal.SIGSTOP:
            self.paused.update(pids)
        elif number == signal.SIGCONT:
            self.paused.difference_update(pids)

    def close(self) -> None:
        """End every process and remove every address; safe to call at any time."""
        self.strike(list(self.paused), signal.SIGCONT)
        try:
            self._end_daemons()
        finally:
            for server in (self.registry, self.store):
                if server is not None:
                    server.close()
            self.network.close()

    def _end_daemons(self) -> None:
        """All at once and without asking; guardians end the tasks, and what has lost its guardian is ended here."""
        for name in self.cluster.daemons:
            self.strike(self.cluster.pids(name)[-1:], signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            for process in self.cluster.daemons.values():
                process.wait(END_SECONDS)
        self.strike(processes_of(self.cluster.folder), signal.SIGKILL)
        self.strike([pid for pid, _ in marked_processes(self.cluster.folder / TASKS)], signal.SIGKILL)
        for process in self.cluster.daemons.values():
            process.wait()


def processes_of(folder: Path) -> list[int]:
    """Daemons of the cluster in this folder, whoever their parents are."""
    mark = f"DSFAST_STATE_DIR={folder / 'state'}".encode()
    found = []
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdigit() and mark in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                found.append(int(name))
    return found
