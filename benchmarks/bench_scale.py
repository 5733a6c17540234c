"""Do a task, a run and a placement cost the same when there are a thousand times as many?

The engine alone, whose workers finish everything at once, and the embedded cluster with its database. Time is the
processor's per task or per run; memory is what the engine holds with everything live. How far: DSFAST_BENCH_TASKS_MAX
(100,000; the most is 1,000,000), DSFAST_BENCH_RUNS_MAX (10,000) and DSFAST_BENCH_EMBEDDED_MAX (30,000).
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.bench_engine import Loopback
from benchmarks.figures import Beside, Figure
from benchmarks.stage import run_embedded, size, with_embedded
from dsfast.engine import events as ev
from dsfast.model import Workflow, canonical
from dsfast.runtime.embedded import Embedded
from dsfast.wire import commands as cmd
from tests.workflows import chain, flat

TASKS_MAX = size("TASKS_MAX", 100_000)
RUNS_MAX = size("RUNS_MAX", 10_000)
EMBEDDED_MAX = size("EMBEDDED_MAX", 30_000)
SUBMITS = 100  # in one turn
PLACED = 5_000  # tasks whose placement is looked at
GROWTH_TARGET = 1.5  # times the cost of the smallest: flat, as far as caches allow

Tell = Callable[..., None]
Costs = dict[int, float]  # of one, by how many there are


def decades(first: int, last: int) -> Iterator[int]:
    while first <= last:
        yield first
        first *= 10


def compared(what: str, costs: Costs, unit: str, scale: float = 1.0) -> list[Figure]:
    """Each beside the smallest."""
    least = next(iter(costs))
    beside = Beside(costs[least] * scale, f"of {least:,}")
    return [
        Figure(
            what=f"{what} {count:,}",
            value=cost * scale,
            unit=unit,
            floor=beside if count != least else None,
            target=beside.value * GROWTH_TARGET if count != least else None,
        )
        for count, cost in costs.items()
    ]


def spent(work: Callable[[], object]) -> float:
    """Processor seconds; neighbours do not count."""
    gc.collect()
    began = time.process_time()
    work()
    return time.process_time() - began


@pytest.mark.benchmark(group="scale")
@pytest.mark.parametrize("shape", [flat, chain], ids=["flat", "chain"])
def test_tasks_of_a_run(benchmark: BenchmarkFixture, tell: Tell, shape: Callable[[int], Workflow]) -> None:
    """A whole run in the engine, from submit to its end."""
    costs: Costs = {}

    def work() -> None:
        for count in decades(1_000, 1_000 if benchmark.disabled else TASKS_MAX):
            body = canonical(shape(count))
            loopback = Loopback()
            costs[count] = spent(lambda: loopback.finish(loopback.submit(body))) / count  # noqa: B023 - called at once

    benchmark.pedantic(work, rounds=1)
    tell(*compared(f"engine, per task of a {shape.__name__} run of", costs, "us", 1e6))


@pytest.mark.benchmark(group="scale")
def test_memory_of_a_run(benchmark: BenchmarkFixture, tell: Tell) -> None:
    """What the engine holds of a run all of whose tasks are with workers."""
    held: Costs = {}

    def work() -> None:
        for count in decades(1_000, 1_000 if benchmark.disabled else TASKS_MAX):
            held[count] = live_bytes(canonical(flat(count)), count) / count

    benchmark.pedantic(work, rounds=1)
    tell(*compared("engine, memory per live task of a run of", held, "bytes"))


def live_bytes(body: bytes, count: int) -> int:
    loopback = Loopback(credit=count)
    gc.collect()
    tracemalloc.start()
    loopback.submit(body)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held


@pytest.mark.benchmark(group="scale")
def test_runs(benchmark: BenchmarkFixture, tell: Tell) -> None:
    """So many runs of one definition submitted, with all of them live; then finished. Of 3 tasks each."""
    costs: Costs = {}
    held: Costs = {}
    body = canonical(chain(3))

    def work() -> None:
        for count in decades(100, 100 if benchmark.disabled else RUNS_MAX):
            loopback = Loopback(credit=8)
            costs[count] = spent(lambda: submit_all(loopback, body, count)) / count  # noqa: B023 - called at once
            held[count] = waiting_bytes(body, count) / count

    benchmark.pedantic(work, rounds=1)
    tell(*compared("engine, per run, runs:", costs, "us", 1e6))
    tell(*compared("engine, memory per live run, runs:", held, "bytes"))


def submit_all(loopback: Loopback, body: bytes, count: int) -> None:
    """Many in a turn; what the workers had credit for is finished once all are there."""
    turns = [
        loopback.step([ev.Received("client@1", 1, cmd.Submit(body))] * min(SUBMITS, count - first))
        for first in range(0, count, SUBMITS)
    ]
    for fx in turns:
        loopback.finish(fx)
    assert not loopback.engine.core.runs


def waiting_bytes(body: bytes, count: int) -> int:
    """What the engine keeps of so many runs that wait."""
    loopback = Loopback(credit=1)
    gc.collect()
    tracemalloc.start()
    for first in range(0, count, SUBMITS):
        loopback.step([ev.Received("client@1", 1, cmd.Submit(body))] * min(SUBMITS, count - first))
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held


@pytest.mark.benchmark(group="scale")
@pytest.mark.parametrize("policy", ["least_loaded", "round_robin", "smooth_weighted"])
def test_placement_among_workers(benchmark: BenchmarkFixture, tell: Tell, policy: str) -> None:
    """A chain, so that every task is placed by itself in a turn of its own, among 1 to 1,000 workers."""
    costs: Costs = {}
    body = canonical(chain(100 if benchmark.disabled else PLACED))

    def work() -> None:
        for workers in decades(1, 10 if benchmark.disabled else 1_000):
            loopback = Loopback(workers, credit=4, policy=policy)
            costs[workers] = spent(lambda: loopback.finish(loopback.submit(body))) / PLACED  # noqa: B023 - at once

    benchmark.pedantic(work, rounds=1)
    tell(*compared(f"engine, per placement, {policy}, workers:", costs, "us", 1e6))


@pytest.mark.benchmark(group="scale")
def test_embedded(benchmark: BenchmarkFixture, tell: Tell, tmp_path: Path) -> None:
    """Master, worker and SQLite in this process, everything committed with fsync: wall time per task."""
    costs: Costs = {}
    runs: Costs = {}

    async def work(embedded: Embedded) -> None:
        await run_embedded(embedded, flat(100))
        for count in (1_000,) if benchmark.disabled else (1_000, 10_000, EMBEDDED_MAX):
            began = time.perf_counter()
            await run_embedded(embedded, flat(count))
            costs[count] = (time.perf_counter() - began) / count
        body = canonical(flat(1))
        for count in decades(100, 100 if benchmark.disabled else RUNS_MAX // 10):
            began = time.perf_counter()
            ids = [await embedded.submit(body, b"{}") for _ in range(count)]
            await embedded.wait(ids[-1])
            runs[count] = (time.perf_counter() - began) / count

    benchmark.pedantic(with_embedded, (tmp_path / "state", f"sqlite:///{tmp_path}/db", work), rounds=1)
    tell(*compared("embedded, SQLite, per task of a run of", costs, "us", 1e6))
    tell(*compared("embedded, SQLite, per run of one task, runs:", runs, "us", 1e6))
