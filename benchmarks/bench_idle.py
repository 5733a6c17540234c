"""What do 10,000 waiting tasks cost while nothing happens?

Half of them wait for a delay, half for a worker with room, whose slots are taken. Statements are counted by
PostgreSQL's log, writes by ZooKeeper's transaction number, and processor time is that of all daemons with their
guardians: heartbeats over links and of registry sessions are what is left. `bench_baseline.py` has the polling design
at rest beside dsfast.
DSFAST_BENCH_WAITING (10,000) tasks, DSFAST_BENCH_IDLE_SECONDS (20).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.bench_baseline import cpu_seconds
from benchmarks.figures import Figure
from benchmarks.stage import Place, daemons, size, submit
from dsfast.model import Task, Workflow
from tests.servers.postgres import PostgresServer
from tests.servers.zookeeper import ZooKeeperServer
from tests.workflows import config

WAITING = size("WAITING", 10_000)
IDLE_SECONDS = size("IDLE_SECONDS", 20)
SETTLE_SECONDS = 8.0  # a master looks once more for runs of the dead, 6.5 s after the last member came
DAY_SECONDS = 86_400
WORKERS, SLOTS = 2, 4
CPU_TARGET = 0.5  # % of one core, all daemons together

Tell = Callable[..., None]


def waiting(count: int) -> Workflow:
    """Tasks that fill all slots, and others that wait for room or for a day to pass."""
    naps = [Task(name=f"r{n}", type="sleep", config=config(seconds=DAY_SECONDS)) for n in range(WORKERS * SLOTS)]
    queued = [Task(name=f"q{n}", type="sleep", config=config(seconds=1)) for n in range(count // 2)]
    delayed = [Task(name=f"d{n}", type="noop", delay=float(DAY_SECONDS)) for n in range(count - count // 2)]
    return Workflow(name="waiting", tasks=(*naps, *queued, *delayed))


@pytest.mark.benchmark(group="at rest")
def test_waiting_tasks(
    benchmark: BenchmarkFixture,
    tell: Tell,
    postgres_server: PostgresServer,
    zookeeper_server: ZooKeeperServer,
    tmp_path: Path,
) -> None:
    place = Place("postgresql", postgres_server.new_migrated_database(), zookeeper_server.new_url())
    count, seconds = (20, 0.2) if benchmark.disabled else (WAITING, float(IDLE_SECONDS))
    pause = threading.Event()
    with (
        daemons(place, tmp_path / "nodes", WORKERS, slots=SLOTS) as nodes,
        nodes.client() as client,
        postgres_server.statements(place.store) as statements,
    ):
        run = submit(client, waiting(count))
        nodes.until(lambda: client.run(run.id, tasks=False).counts.get("running") == WORKERS * SLOTS)
        pause.wait(0.0 if benchmark.disabled else SETTLE_SECONDS)

        def look() -> tuple[float, float, float]:
            cpu = sum(cpu_seconds(daemon.pid) for daemon in nodes.daemons.values())
            return float(sum(statements())), transactions(zookeeper_server), cpu

        before = look()
        benchmark.pedantic(pause.wait, (seconds,), rounds=1, iterations=1)
        sql, writes, cpu = (now - then for now, then in zip(look(), before, strict=True))
        client.cancel(run.id)
        assert client.wait(run.id, 60)
    what = f"{count:,} waiting tasks, 1 master, {WORKERS} workers, api"
    tell(
        Figure(what=f"SQL statements, {what}", value=sql / seconds * 60, unit="per min", target=0.0),
        Figure(what=f"registry writes, {what}", value=writes / seconds * 60, unit="per min", target=0.0),
        Figure(what=f"CPU, {what}", value=cpu / seconds * 100, unit="% of core", target=CPU_TARGET),
    )


def transactions(server: ZooKeeperServer) -> float:
    """How many writes ZooKeeper has committed so far, by its transaction number."""
    found = re.search(rb"Zxid: 0x([0-9a-f]+)", server._ask(b"srvr"))
    assert found is not None
    return float(int(found[1], 16))
