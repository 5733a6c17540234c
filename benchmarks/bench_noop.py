"""How many times faster than the design that dsfast replaces, counting only what is the scheduler's?

The baseline's task is always a shell, so what it takes for itself is read from its own rows: from the end of a task to
the start of its successor, and of a heap of tasks the whole time without that of their shells. dsfast runs no-op
tasks, on the same PostgreSQL and ZooKeeper, in the same run; one master and two workers each, as processes.
`bench_baseline.py` has both with shell tasks, as a user would see them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.baseline.cluster import Baseline, baseline, task
from benchmarks.baseline.settings import Mode
from benchmarks.figures import Figure, durations, rounds
from benchmarks.stage import Place, daemons, finish, hop_floor, hops, size, submit
from dsfast.client import Client
from tests.servers.postgres import PostgresServer
from tests.servers.zookeeper import ZooKeeperServer
from tests.workflows import chain, flat

WORKERS = 2
HOPS = size("HOPS", 300)
FLAT = size("FLAT", 10_000)
OLD_HOPS, OLD_FLAT = 3, 20  # it is slow
OLD_THREADS = 10  # tasks that one of its workers runs at a time, as shipped
ROUNDS = 3
HOP_TARGET, RATE_TARGET = 5_000.0, 1_000.0  # times

Tell = Callable[..., None]


@pytest.fixture
def ours(postgres_server: PostgresServer, zookeeper_server: ZooKeeperServer) -> Place:
    return Place("postgresql", postgres_server.new_migrated_database(), zookeeper_server.new_url())


@pytest.fixture
def old(
    request: pytest.FixtureRequest,
    mode: Mode,
    tmp_path: Path,
    postgres_server: PostgresServer,
    zookeeper_server: ZooKeeperServer,
) -> Iterator[Baseline]:
    """The baseline with its sleeps as shipped; a look at whether this file works sleeps less."""
    look = request.config.getoption("benchmark_disable")
    settings = {"reserved_gb": 0.0} | ({"poll_seconds": 0.03, "weights_seconds": 0.2} if look else {})
    database = postgres_server.new_database()
    with baseline(tmp_path / mode, database, zookeeper_server.hosts, mode, **settings) as made:
        made.start_all(masters=1, workers=WORKERS)
        made.run([task("warm", ":")])
        yield made


@pytest.mark.benchmark(group="no-op tasks beside the baseline")
@pytest.mark.parametrize("mode", ["queue", "tcp"])
def test_noop(benchmark: BenchmarkFixture, tell: Tell, mode: str, old: Baseline, ours: Place, tmp_path: Path) -> None:
    look = benchmark.disabled
    their_hops = old_hops(old, 2 if look else OLD_HOPS)
    their_rate = old_rate(old, [task(f"t{n}", ":") for n in range(4 if look else OLD_FLAT)])
    found: list[float] = []
    rates: list[float] = []

    def work() -> None:
        with daemons(ours, tmp_path / "nodes", WORKERS) as nodes, nodes.client() as client:
            measure(ours, client, 20 if look else HOPS, 20 if look else FLAT, found, rates)

    benchmark.pedantic(work, rounds=1)
    durable = ours.durable
    hop = durations("hop, dsfast", found, durable=durable, floor=hop_floor(ours, trips=True))
    old_hop = durations(f"hop, baseline {mode}", their_hops, durable=durable)
    rate = rounds("flat, dsfast, 2 workers", rates, "per s", durable=durable)
    old_flat = Figure(what=f"flat, baseline {mode}, 2 workers", value=their_rate, unit="per s", durable=durable)
    tell(hop, old_hop, times(f"hop, of baseline {mode}", old_hop.value / hop.value, HOP_TARGET))
    tell(rate, old_flat, times(f"throughput, of baseline {mode}", rate.value / old_flat.value, RATE_TARGET))


def times(what: str, ratio: float, target: float) -> Figure:
    return Figure(what=what, value=ratio, unit="times", target=target)


def measure(place: Place, client: Client, count: int, many: int, found: list[float], rates: list[float]) -> None:
    """A chain and heaps of no-op tasks on dsfast."""
    finish(client, submit(client, chain(20)))
    for _ in range(ROUNDS):
        run = submit(client, chain(count))
        finish(client, run)
        found.extend(hops(place.attempts(run.id)))
        run = submit(client, flat(many))
        finish(client, run)
        row = place.run(run.id)
        rates.append(many / ((row.ended_at or 0.0) - row.created_at))


def old_hops(old: Baseline, count: int) -> list[float]:
    steps = [task(f"t{n}", ":", *([f"t{n - 1}"] if n else [])) for n in range(count + 1)]
    rows = old.tasks(old.run(steps)["id"])
    return [after["start_time"] - before["end_time"] for before, after in pairwise(rows)]


def old_rate(old: Baseline, steps: list[dict[str, Any]]) -> float:
    """Tasks per second; of the whole time its shells' share, as many at a time as may be, is not counted."""
    instance = old.run(steps)
    shells = sum(row["end_time"] - row["start_time"] for row in old.tasks(instance["id"]))
    whole = instance["end_time"] - instance["start_time"]
    return len(steps) / (whole - shells / (WORKERS * OLD_THREADS))
