"""How soon does work go on when a daemon dies? Real daemons, real kill -9, everything committed with fsync.

Beside it stands what no scheduler can do without: that the end of a killed process is seen at all, a lone durable
commit, and a bare start of the same script. Compare within one run; the machine matters.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.bench_end_to_end import lone_commit_seconds
from benchmarks.witness import (
    Witness,
    bare_start_seconds,
    killed_peer_seconds,
    migrate,
    note,
    spread,
    submit,
    trials,
    until_linked,
)
from tests.integration.cluster import Cluster, cluster

TRIALS = 40
TASKS = 2  # that a worker has when it is killed
SETTLE_SECONDS = 0.3  # after a start, so that what the new daemon still does is not measured


@pytest.fixture(params=["sqlite", "postgresql"])
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """A cluster without daemons, on a database that also says who is alive."""
    if request.param == "sqlite":
        store, registry = f"sqlite:///{tmp_path}/db", f"database+sqlite:///{tmp_path}/registry.db"
    else:
        store = request.getfixturevalue("postgres_url")
        registry = f"database+{store}"
    with cluster(tmp_path, store, registry) as made:
        if request.param == "sqlite":
            migrate(made)
        yield made


@pytest.mark.benchmark(group="failover")
def test_worker_killed(benchmark: BenchmarkFixture, nodes: Cluster, tmp_path: Path) -> None:
    """From kill -9 of a worker to the moment at which its tasks run on another one, by their own word.

    All tasks are on one worker; it is killed, they run on the other, it is started again, the other is killed.
    """
    first: list[float] = []
    last: list[float] = []
    witness = Witness(tmp_path / "witness")

    def work() -> None:
        busy, spare = "w1", "w2"
        nodes.start("master", "m1", failovers_max=TRIALS + 1)
        nodes.start("api", "api")
        nodes.start_worker(busy, slots=TASKS)
        nodes.until(lambda: nodes.complete(1, 1))
        with nodes.client() as client:
            run = submit(client, "moving", *(witness.task(f"t{number}") for number in range(TASKS)))
        witness.wait(nodes, TASKS)
        for trial in range(1, trials(benchmark, TRIALS) + 1):
            nodes.start_worker(spare, slots=TASKS)
            until_linked(nodes, spare, trial // 2 + 1)
            victim = nodes.pids(busy)[-1]
            time.sleep(SETTLE_SECONDS)
            began = time.time()
            os.kill(victim, signal.SIGKILL)
            new = [start.at - began for start in witness.wait(nodes, TASKS * (trial + 1))[-TASKS:]]
            first.append(min(new))
            last.append(max(new))
            nodes.daemons[busy].wait()
            busy, spare = spare, busy
        with nodes.client() as client:
            client.cancel(run)
            assert client.wait(run) is not None

    benchmark.pedantic(work, rounds=1)
    floors = {
        "seen_killed_ms": killed_peer_seconds() * 1000,
        "commit_alone_ms": lone_commit_seconds(tmp_path) * 1000,
        "start_alone_ms": bare_start_seconds(tmp_path) * 1000,
    }
    note(benchmark, **spread("first_task", first), **spread("all_tasks", last), **floors)
