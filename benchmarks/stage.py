"""Where benchmarks of whole clusters take place: databases, daemons as processes, embedded ones, and floors."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import msgspec
import uvloop

from benchmarks.figures import Beside
from benchmarks.witness import migrate
from dsfast.client import Client
from dsfast.config import load_config
from dsfast.ids import run_number
from dsfast.model import RunState, Workflow, canonical
from dsfast.rows import AttemptRow, RunRow
from dsfast.runtime.embedded import Embedded
from dsfast.store import open_store
from dsfast.store.base import Store
from dsfast.store.floor import durability, lone_commits
from dsfast.views import RunView
from tests.integration.cluster import Cluster, cluster

ROOT = Path(__file__).parents[1]
RUN_SECONDS_MAX = 600.0
BURSTS = 3  # of which the best is the floor: a neighbour must not raise it
FLOOR_COMMITS = 100
ROUND_TRIPS = 300
ROUND_TRIP = bytes(200)  # about a command's frame


def size(variable: str, default: int) -> int:
    """How much to measure: DSFAST_BENCH_<variable>, else what keeps all benchmarks together within some minutes."""
    return int(os.environ.get(f"DSFAST_BENCH_{variable}", default))


@dataclass(frozen=True, slots=True)
class Place:
    """A database, and a registry for daemons."""

    kind: str
    store: str
    registry: str

    @property
    def durable(self) -> str:
        """What its commits survive."""
        return asyncio.run(durability(self.store))

    def commits(self) -> list[float]:
        """Seconds of lone durable commits by the bare driver."""
        return asyncio.run(lone_commits(self.store, FLOOR_COMMITS))

    def ask(self, question: Callable[[Store], Awaitable[object]]) -> object:
        """What the database says, read beside the daemons."""

        async def answer() -> object:
            store = open_store(self.store, exclusive=False)
            await store.open()
            try:
                return await question(store)
            finally:
                await store.close()

        return asyncio.run(answer())

    def attempts(self, run: str) -> list[AttemptRow]:
        """All attempts of a run, by task and attempt."""
        found = self.ask(lambda store: store.attempts(run_number(run)))
        assert isinstance(found, list)
        return found

    def run(self, run: str) -> RunRow:
        found = self.ask(lambda store: store.run(run_number(run)))
        assert isinstance(found, RunRow)
        return found


@contextmanager
def daemons(place: Place, folder: Path, workers: int, *, slots: int = 4) -> Iterator[Cluster]:
    """A master, an api and so many workers as processes of their own, on loopback."""
    folder.mkdir(exist_ok=True)
    with cluster(folder, place.store, place.registry) as nodes:
        del nodes.environ["DSFAST_REGISTRY_SESSION_SECONDS"]  # tests have a short one; benchmarks what users have
        if place.kind == "sqlite":
            migrate(nodes)
        nodes.start_all(masters=1, workers=workers, slots=slots)
        yield nodes


def submit(client: Client, workflow: Workflow, **how: str) -> RunView:
    """Start a run over HTTP."""
    return client.submit(msgspec.Raw(canonical(workflow)), **how)  # type: ignore[arg-type]


def finish(client: Client, run: RunView) -> None:
    """Wait for the end of a run; it must be a good one."""
    ended = client.wait(run.id, RUN_SECONDS_MAX)
    assert ended is not None, f"run {run.id} has not ended"
    assert ended.state == "succeeded", ended


def with_embedded(folder: Path, store: str, work: Callable[[Embedded], Awaitable[None]], slots: int = 4) -> None:
    """Run `work` with a master and a worker in this process."""
    flags = {"state_dir": str(folder), "master.port": 0, "worker.port": 0, "worker.slots": slots, "store.url": store}
    config = load_config(flags=flags, environ={})

    async def main() -> None:
        async with Embedded(config) as embedded:
            await work(embedded)

    uvloop.run(main())


async def run_embedded(embedded: Embedded, workflow: Workflow) -> RunRow:
    """Run a workflow to its good end."""
    run_id = await embedded.submit(canonical(workflow), b"{}")
    row = await asyncio.wait_for(embedded.wait(run_id), RUN_SECONDS_MAX)
    assert row.state is RunState.SUCCEEDED
    return row


def hops(rows: list[AttemptRow], before: float = float("inf")) -> list[float]:
    """Of a chain, by the workers' clocks: from the end of each task to the start of the next, up to a moment."""
    return [
        (after.started_at or 0.0) - (row.ended_at or 0.0)
        for row, after in pairwise(rows)
        if after.started_at is not None and after.started_at < before
    ]


# -- floors and costs -----------------------------------------------------------------------------------------------


def round_trips(count: int = ROUND_TRIPS) -> list[float]:
    """Floor: seconds of round trips between two processes on loopback, the other one a bare uvloop echo."""
    script = [sys.executable, "-m", "benchmarks.wire_echo"]
    seconds = []
    with subprocess.Popen(script, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().split()[1])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(count):
                began = time.perf_counter()
                connection.sendall(ROUND_TRIP)
                connection.recv(len(ROUND_TRIP), socket.MSG_WAITALL)
                seconds.append(time.perf_counter() - began)
        process.kill()
    return seconds


def hop_floor(place: Place, trips: bool) -> Beside:
    """What a hop cannot do without, in milliseconds: a commit and, between processes, a round trip."""
    commit = min(middle(place.commits()) for _ in range(BURSTS))
    trip = min(middle(round_trips()) for _ in range(BURSTS)) if trips else 0.0
    return Beside((commit + trip) * 1e3, "a lone commit and a loopback round trip" if trips else "a lone commit")


def middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, all of its threads that live, to the nanosecond."""
    stats = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(stat.read_text().split()[0]) for stat in stats) / 1e9


def resident_bytes(pid: int, field: str = "VmRSS") -> int:
    """Memory of a process; `VmHWM` is the most it has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
