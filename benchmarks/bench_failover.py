"""How soon does work go on when a daemon dies? Real daemons, real kill -9, everything committed with fsync.

Beside it stands what no scheduler can do without: that the end of a killed process is seen at all, a lone durable
commit, and a bare start of the same script. Compare within one run; the machine matters.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.bench_end_to_end import lone_commit_seconds
from benchmarks.witness import (
    DEADLINE_SECONDS,
    Gate,
    Witness,
    bare_start_seconds,
    killed_peer_seconds,
    migrate,
    note,
    says,
    spread,
    submit,
    trials,
    until_linked,
)
from dsfast.client import Client
from dsfast.tasks import proc
from tests.integration.cluster import Cluster, cluster
from tests.servers.zookeeper import ZooKeeperServer
from tests.workflows import flat

TRIALS = 40
RESTARTS = 7
RUNS = 4  # that are there when a master is killed; about half of them are its own
LIVE = 10_000
DAY_SECONDS = 86_400
SILENT_SECONDS = 60  # of leases in all, so one of 2 s has 30 trials
OUTAGE_SECONDS = float(os.environ.get("DSFAST_BENCH_OUTAGE_SECONDS", "6"))
HOP_SECONDS = 0.05  # how long each task of the chain runs whose hops are looked at
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
    note(benchmark, **spread("first_task", first), **spread("all_tasks", last), **floors_ms(tmp_path))


@pytest.mark.benchmark(group="failover")
def test_master_killed(benchmark: BenchmarkFixture, postgres_url: str, tmp_path: Path) -> None:
    """From kill -9 of a master to the start of the next task of its runs, dispatched by the other master.

    In each run one task ends just after the kill and is followed by the one that is measured; another runs all the
    time, and must not be disturbed: `started_again` counts tasks that had a second attempt.
    """
    seconds: list[float] = []
    attempts: list[int] = []

    def trial(nodes: Cluster, client: Client, victim: str, folder: Path) -> None:
        folder.mkdir()
        witness, gate = Witness(folder / "witness"), Gate(folder / "gate")
        tasks = (witness.task("first", gate.wait), witness.task("next", "", needs=("first",)), witness.task("long"))
        runs = [submit(client, "handed-over", *tasks) for _ in range(RUNS)]
        witness.wait(nodes, 2 * RUNS)
        time.sleep(SETTLE_SECONDS)
        began = time.time()
        nodes.kill(victim)
        gate.open()
        starts = witness.wait(nodes, 3 * RUNS)
        owned = [run for run in runs if says(nodes, victim, "run_accepted", run)]
        seconds.extend(start.at - began for start in starts if start.task == "next" and start.run in owned)
        attempts.extend(start.attempt for start in starts)
        nodes.start("master", victim)
        for run in runs:
            client.cancel(run)
            assert client.wait(run, DEADLINE_SECONDS) is not None
        nodes.until(lambda: nodes.complete(2, 2))

    def work() -> None:
        with cluster(tmp_path, postgres_url, f"database+{postgres_url}") as nodes:
            nodes.start_all(masters=2, workers=2, slots=2 * RUNS)
            with nodes.client() as client:
                for number in range(trials(benchmark, TRIALS)):
                    trial(nodes, client, ("m1", "m2")[number % 2], tmp_path / f"trial-{number}")

    benchmark.pedantic(work, rounds=1)
    again = sum(attempt > 1 for attempt in attempts)
    floors = floors_ms(tmp_path)
    note(benchmark, **spread("next_task", seconds), tasks=len(attempts), started_again=again, **floors)


@pytest.mark.benchmark(group="failover")
def test_only_master_restarted(benchmark: BenchmarkFixture, nodes: Cluster, tmp_path: Path) -> None:
    """From the start of the only master's process to its first dispatch, with LIVE tasks running and queued.

    While no master is there the first of a chain of tasks ends; what is measured is the start of the one after it.
    """
    seconds: list[float] = []
    witness = Witness(tmp_path / "witness")
    count = trials(benchmark, RESTARTS)
    gates = [Gate(tmp_path / f"gate-{number}") for number in range(count + 1)]
    chain = [
        witness.task(f"c{number}", gate.wait, group="chain", needs=(f"c{number - 1}",) if number else ())
        for number, gate in enumerate(gates)
    ]

    def work() -> None:
        nodes.start("master", "m1")
        nodes.start("api", "api")
        nodes.start_worker("w1", slots=LIVE // 2)
        nodes.start_worker("w2", slots=1, groups="chain")
        nodes.until(lambda: nodes.complete(1, 2))
        with nodes.client() as client:
            naps = flat(LIVE, "sleep", seconds=DAY_SECONDS).tasks
            run = submit(client, "live", *naps, *chain)
            nodes.until(lambda: client.run(run).counts.get("running", 0) > LIVE // 2)
            for number in range(count):
                witness.wait(nodes, number + 1)
                time.sleep(SETTLE_SECONDS)
                nodes.kill("m1")
                gates[number].open()
                time.sleep(SETTLE_SECONDS)
                began = time.time()
                nodes.start("master", "m1")
                seconds.append(witness.wait(nodes, number + 2)[-1].at - began)
            assert {start.attempt for start in witness.starts()} == {1}
            client.cancel(run)
            assert client.wait(run, DEADLINE_SECONDS) is not None

    benchmark.pedantic(work, rounds=1)
    note(benchmark, **spread("first_dispatch", seconds), imports_alone_ms=import_seconds() * 1000)


@pytest.mark.benchmark(group="failover")
@pytest.mark.parametrize("session", [2.0, 6.0], ids=["short", "default"])
def test_silent_worker(benchmark: BenchmarkFixture, tmp_path: Path, session: float) -> None:
    """From the moment at which a whole machine falls silent (worker, guardians and tasks are stopped, nothing is
    closed) to its task running elsewhere: its lease, and the time it is given to end by itself what it runs.
    """
    seconds: list[float] = []
    store, registry = f"sqlite:///{tmp_path}/db", f"database+sqlite:///{tmp_path}/registry.db"
    witness = Witness(tmp_path / "witness")

    def work() -> None:
        busy, spare = "w1", "w2"
        with cluster(tmp_path, store, registry) as nodes:
            nodes.environ |= short_session(session)
            migrate(nodes)
            nodes.start("master", "m1", failovers_max=TRIALS + 1)
            nodes.start("api", "api")
            nodes.start_worker(busy)
            nodes.until(lambda: nodes.complete(1, 1))
            with nodes.client() as client:
                run = submit(client, "moving", witness.task("t"))
                witness.wait(nodes, 1)
                for trial in range(1, trials(benchmark, round(SILENT_SECONDS / session)) + 1):
                    nodes.start_worker(spare)
                    until_linked(nodes, spare, trial // 2 + 1)
                    machine = everything_below(nodes.daemons[busy].pid)
                    began = time.time()
                    send_all(machine, signal.SIGSTOP)
                    seconds.append(witness.wait(nodes, trial + 1)[-1].at - began)
                    send_all(machine, signal.SIGKILL)
                    nodes.daemons[busy].wait()
                    busy, spare = spare, busy
                client.cancel(run)
                assert client.wait(run, DEADLINE_SECONDS) is not None

    benchmark.pedantic(work, rounds=1)
    note(benchmark, **spread("replaced", seconds), session_s=session)


@pytest.mark.benchmark(group="failover")
def test_registry_away(benchmark: BenchmarkFixture, postgres_url: str, tmp_path: Path) -> None:
    """ZooKeeper is down for OUTAGE seconds: what does running work feel? Tasks started again, and hops of a chain."""
    witness = Witness(tmp_path / "witness")
    hops = [f"h{number}" for number in range(round(2 * OUTAGE_SECONDS / HOP_SECONDS))]
    chain = [
        witness.task(name, f"sleep {HOP_SECONDS}", needs=(hops[number - 1],) if number else ())
        for number, name in enumerate(hops)
    ]
    away: list[float] = []
    server = ZooKeeperServer()

    def work() -> None:
        with cluster(tmp_path, postgres_url, server.new_url()) as nodes:
            nodes.start_all(masters=2, workers=2, slots=2)
            with nodes.client() as client:
                run = submit(client, "during", witness.task("long"), *chain)
                witness.wait(nodes, round(OUTAGE_SECONDS / HOP_SECONDS / 4))
                away.append(time.time())
                server.stop()
                time.sleep(OUTAGE_SECONDS)
                server.start()
                away.append(time.time())
                witness.wait(nodes, len(hops) + 1)
                client.cancel(run)
                assert client.wait(run, DEADLINE_SECONDS) is not None

    try:
        benchmark.pedantic(work, rounds=1)
    finally:
        server.close()
    starts = witness.starts()
    times = [start.at for start in starts if start.task != "long"]
    during, beside = [], []
    for before, after in pairwise(times):
        (during if away[0] < before < away[1] else beside).append(after - before - HOP_SECONDS)
    again = sum(start.attempt > 1 for start in starts)
    note(benchmark, outage_s=OUTAGE_SECONDS, tasks=len(starts), started_again=again)
    note(benchmark, **spread("hop_during", during), **spread("hop_before_and_after", beside))


def floors_ms(folder: Path) -> dict[str, float]:
    """What no failover can do without, one by one."""
    return {
        "seen_killed_ms": killed_peer_seconds() * 1000,
        "commit_alone_ms": lone_commit_seconds(folder) * 1000,
        "start_alone_ms": bare_start_seconds(folder) * 1000,
    }


def short_session(seconds: float) -> dict[str, str]:
    """A lease of so many seconds, and heartbeats in proportion; the defaults are 6, 1 and 3 s."""
    return {
        "DSFAST_REGISTRY_SESSION_SECONDS": str(seconds),
        "DSFAST_CLUSTER_HEARTBEAT_SECONDS": str(seconds / 6),
        "DSFAST_CLUSTER_HEARTBEAT_TIMEOUT_SECONDS": str(seconds / 2),
    }


def everything_below(pid: int) -> list[int]:
    return [pid, *(below for below, _ in proc.descendants([pid]))]


def send_all(pids: list[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def import_seconds(count: int = 3) -> float:
    """Floor of a restart: the interpreter, and the import of what a master is made of."""
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import dsfast.runtime.daemons, dsfast.store.sqlite"], check=True)
        seconds.append(time.perf_counter() - began)
    return min(seconds)
