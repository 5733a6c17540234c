"""How many tasks and workflows per second, what do they cost the master, and what does a run of 100,000 tasks cost?

Real daemons on loopback, everything committed with fsync, no-op tasks: so what is measured is dsfast alone. Seconds are
those of the database, from a run's submit to its end. The master's processor time is that of all its threads. Sizes:
DSFAST_BENCH_FLAT (10,000), DSFAST_BENCH_HUGE (100,000), DSFAST_BENCH_SINGLES (1,000).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.figures import Beside, Figure, rounds
from benchmarks.rivals import CPU_VOLATILE_US, FLAT_DURABLE, LAYERS_DURABLE
from benchmarks.stage import Place, cpu_seconds, daemons, finish, middle, resident_bytes, size, submit
from benchmarks.witness import migrate
from dsfast.client import Client, RunOrder
from dsfast.model import BATCH_RUNS_MAX, Task, Workflow
from dsfast.views import RunView
from tests.integration.cluster import Cluster, cluster
from tests.workflows import flat

FLAT = size("FLAT", 10_000)
HUGE = size("HUGE", 100_000)
SINGLES = size("SINGLES", 1_000)
LOOK = 20  # of each, when the benchmark is only run to see that it can
ROUNDS = 3
CPU_TARGET_US = 30.0  # of the master per no-op task
BATCH_TARGET = 3_000.0  # one-task workflows per second, submitted together
ACCEPT_TARGET_S = 1.5  # 100,000 tasks: parsed, validated, durable
LIVE_TARGET_BYTES = 1_024.0

Tell = Callable[..., None]


def fan(width: int) -> Workflow:
    """One task, so many that need it, and one that needs all of those."""
    middle = [f"m{n}" for n in range(width)]
    tasks = (
        noop("first"),
        *(noop(name, "first") for name in middle),
        noop("last", *middle),
    )
    return Workflow(name="fan", tasks=tasks)


def layers(count: int, width: int) -> Workflow:
    """Layers of tasks, of which each needs two of the layer before."""
    tasks = [noop(f"l0-{n}") for n in range(width)]
    for layer in range(1, count):
        tasks += [noop(f"l{layer}-{n}", f"l{layer - 1}-{n}", f"l{layer - 1}-{(n + 1) % width}") for n in range(width)]
    return Workflow(name="layers", tasks=tuple(tasks))


def noop(name: str, *needs: str) -> Task:
    return Task(name=name, type="noop", needs=needs)


class Meter:
    """Runs workflows on a cluster and takes their seconds and the master's processor time."""

    def __init__(self, place: Place, nodes: Cluster, client: Client) -> None:
        self.place, self.nodes, self.client = place, nodes, client
        self.master = nodes.pids("m1")[-1]

    def seconds(self, *runs: RunView) -> float:
        """From the first submit to the last end, as the database has them."""
        rows = [self.place.run(run.id) for run in runs]
        return max(row.ended_at or 0.0 for row in rows) - min(row.created_at for row in rows)

    def run(self, workflow: Workflow) -> tuple[float, float]:
        """Tasks per second, and microseconds of the master per task."""
        before = cpu_seconds(self.master)
        run = submit(self.client, workflow)
        finish(self.client, run)
        spent = cpu_seconds(self.master) - before
        count = len(workflow.tasks)
        return count / self.seconds(run), spent / count * 1e6


@pytest.mark.benchmark(group="throughput")
def test_tasks(benchmark: BenchmarkFixture, tell: Tell, place: Place, tmp_path: Path, workers: int) -> None:
    """Independent tasks, a fan of 1 -> 1,000 -> 1, and 20 layers of 50."""
    shapes = {"flat": flat(FLAT), "1 -> 1,000 -> 1": fan(1_000), "20 x 50 layers": layers(20, 50)}
    if benchmark.disabled:
        shapes = {"flat": flat(LOOK), "1 -> n -> 1": fan(LOOK), "layers": layers(3, 3)}
    measured: dict[str, list[tuple[float, float]]] = {}

    def work() -> None:
        with daemons(place, tmp_path / "nodes", workers) as nodes, nodes.client() as client:
            meter = Meter(place, nodes, client)
            meter.run(flat(LOOK))
            for name, workflow in shapes.items():
                measured[name] = [meter.run(workflow) for _ in range(1 if benchmark.disabled else ROUNDS)]

    benchmark.pedantic(work, rounds=1)
    durable, to = place.durable, f"{place.kind}, {workers} worker{'s' * (workers > 1)}"
    rivals = dict.fromkeys(shapes, LAYERS_DURABLE) | {"flat": FLAT_DURABLE}
    for name, both in measured.items():
        rates, costs = zip(*both, strict=True)
        tell(
            rounds(f"{name}, {to}", rates, "per s", durable=durable, rival=rivals[name]),
            rounds(
                f"{name}, {to}: master's CPU per task",
                costs,
                "us",
                durable=durable,
                rival=CPU_VOLATILE_US,
                target=CPU_TARGET_US if name == "flat" else None,
            ),
        )


@pytest.mark.benchmark(group="throughput")
def test_workflows_of_one_task(benchmark: BenchmarkFixture, tell: Tell, place: Place, tmp_path: Path) -> None:
    """One request for each, one after the other; and many in one request. From the first submit to the last end."""
    count = LOOK if benchmark.disabled else SINGLES
    singly: list[float] = []
    together: list[float] = []

    def one_by_one(client: Client) -> None:
        began = time.time()
        runs = [submit(client, flat(1)) for _ in range(count)]
        finish(client, runs[-1])
        singly.append(count / (max(place.run(run.id).ended_at or 0.0 for run in runs[-4:]) - began))

    def at_once(client: Client) -> None:
        began = time.time()
        entries = []
        for first in range(0, count, BATCH_RUNS_MAX):
            orders = [RunOrder()] * min(BATCH_RUNS_MAX, count - first)
            entries += client.submit_batch(orders, flat(1))
        last = [client.run(entry.id or "", tasks=False) for entry in entries[-4:]]
        for run in last:
            finish(client, run)
        together.append(count / (max(place.run(run.id).ended_at or 0.0 for run in last) - began))

    def work() -> None:
        with daemons(place, tmp_path / "nodes", 1) as nodes, nodes.client() as client:
            finish(client, submit(client, flat(1)))
            one_by_one(client)
            for _ in range(1 if benchmark.disabled else ROUNDS):
                at_once(client)

    benchmark.pedantic(work, rounds=1)
    durable, to = place.durable, f"{place.kind}, 1 worker"
    alone = Beside(1 / middle(place.commits()), "lone commits")
    tell(
        rounds(f"one-task workflows submitted singly, {to}", singly, "per s", durable=durable, floor=alone),
        rounds(f"the same as a batch, {to}", together, "per s", durable=durable, target=BATCH_TARGET),
    )


@pytest.mark.benchmark(group="throughput")
def test_a_run_of_100000_tasks(benchmark: BenchmarkFixture, tell: Tell, place: Place, tmp_path: Path) -> None:
    """Submitted as JSON while no worker is there: accepted, and then all of it is queued; then a worker comes.

    `bytes per queued task` is what the master's resident memory has grown by once nothing else is under way, and
    `bytes at most` its peak over the whole run.
    """
    count = LOOK if benchmark.disabled else HUGE
    found: dict[str, float] = {}

    def work() -> None:
        folder = tmp_path / "nodes"
        folder.mkdir()
        with cluster(folder, place.store, place.registry) as nodes:
            if place.kind == "sqlite":
                migrate(nodes)
            nodes.start("master", "m1")
            nodes.start("api", "api")
            nodes.until(lambda: nodes.complete(1, 0))
            with nodes.client() as client:
                whole(nodes, client)

    def whole(nodes: Cluster, client: Client) -> None:
        workflow = flat(count)
        cancel_one(client)
        master = nodes.pids("m1")[-1]
        before, spent, began = resident_bytes(master), cpu_seconds(master), time.perf_counter()
        run = submit(client, workflow)
        found["accepted"] = time.perf_counter() - began
        found["queued"] = (resident_bytes(master) - before) / count
        at = time.time()
        nodes.start_worker("w1", slots=4)
        finish(client, run)
        row = place.run(run.id)
        assert row.started_at is not None
        assert row.ended_at is not None
        assert row.started_at > at
        found["rate"] = count / (row.ended_at - row.started_at)
        found["peak"] = (max(resident_bytes(master, "VmHWM"), resident_bytes(master)) - before) / count
        found["cpu"] = (cpu_seconds(master) - spent) / count * 1e6

    benchmark.pedantic(work, rounds=1)
    durable, what = place.durable, f"{place.kind}, {count:,} tasks"
    accepted = ACCEPT_TARGET_S * count / 100_000
    tell(
        Figure(what=f"JSON to durable, {what}", value=found["accepted"], unit="s", durable=durable, target=accepted),
        Figure(what=f"flat, {what}, 1 worker", value=found["rate"], unit="per s", durable=durable, rival=FLAT_DURABLE),
        Figure(what=f"master's CPU per task, {what}", value=found["cpu"], unit="us", target=CPU_TARGET_US),
        Figure(what=f"master's memory per queued task, {what}", value=found["queued"], unit="bytes"),
        Figure(what=f"master's memory at most, {what}", value=found["peak"], unit="bytes", target=LIVE_TARGET_BYTES),
    )


def cancel_one(client: Client) -> None:
    """A first run, so that what is loaded once is not counted."""
    run = submit(client, flat(1))
    client.cancel(run.id)
    assert client.wait(run.id, 60)
