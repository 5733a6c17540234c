"""How long from the end of a task to the start of its successor, and from a submit to the first start?

No-op tasks, so that nothing of what is measured is theirs; the times are those that the worker itself takes and that
are in the database. Everything is committed with fsync. "Under load" means that a run of no-op tasks of low priority
keeps master, worker and database busy: then a hop waits for the turns and commits under way. Beside it stands what a
hop cannot do without: a lone commit by the bare driver and, between processes, a round trip on loopback.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.figures import Beside, durations
from benchmarks.rivals import HOP_DURABLE_MS
from benchmarks.stage import Place, daemons, finish, hop_floor, hops, run_embedded, size, submit, with_embedded
from dsfast.model import Priority, canonical
from dsfast.runtime.embedded import Embedded
from tests.workflows import chain, flat

HOPS = size("HOPS", 300)
BACKGROUND = size("BACKGROUND", 40_000)  # no-op tasks that run beside the chain
SUBMITS = size("SUBMITS", 40)
LOOK = 20  # of each, when the benchmark is only run to see that it can
TARGETS_MS = {"sqlite": 0.25, "postgresql": 0.4}  # aimed at for p50 with one worker, on two cores
SUBMIT_TARGET_MS = 3.0  # the polling design takes a second (bench_baseline.py)

Tell = Callable[..., None]


@pytest.mark.benchmark(group="latency")
def test_hop_between_daemons(
    benchmark: BenchmarkFixture, tell: Tell, place: Place, tmp_path: Path, workers: int
) -> None:
    """Master and workers are processes of their own, linked over loopback."""
    count, many, submits = (LOOK,) * 3 if benchmark.disabled else (HOPS, BACKGROUND, SUBMITS)
    idle: list[float] = []
    loaded: list[float] = []
    first: list[float] = []

    def work() -> None:
        with daemons(place, tmp_path / "nodes", workers) as nodes, nodes.client() as client:
            finish(client, submit(client, chain(LOOK)))
            run = submit(client, chain(count))
            finish(client, run)
            idle.extend(hops(place.attempts(run.id)))
            for _ in range(submits):
                at = time.time()
                run = submit(client, chain(1))
                finish(client, run)
                first.append((place.attempts(run.id)[0].started_at or 0.0) - at)
            background = submit(client, flat(many), priority="low")
            run = submit(client, chain(count))
            finish(client, run)
            finish(client, background)
            loaded.extend(hops(place.attempts(run.id), place.run(background.id).ended_at or 0.0))

    benchmark.pedantic(work, rounds=1)
    floor, durable, to = (
        hop_floor(place, trips=True),
        place.durable,
        f"{place.kind}, {workers} worker{'s' * (workers > 1)}",
    )
    target = TARGETS_MS[place.kind] if workers == 1 else None
    tell(
        durations(f"hop, {to}, idle", idle, floor=floor, durable=durable, target=target, rival=HOP_DURABLE_MS),
        durations(f"HTTP submit to first start, {to}", first, floor=floor, durable=durable, target=SUBMIT_TARGET_MS),
        *([durations(f"hop, {to}, under load", loaded, floor=floor, durable=durable)] if loaded else []),
    )


@pytest.mark.benchmark(group="latency")
def test_hop_embedded(benchmark: BenchmarkFixture, tell: Tell, place: Place, tmp_path: Path) -> None:
    """Master and worker in one process, as `dsfast run` has them."""
    count, many = (LOOK, LOOK) if benchmark.disabled else (HOPS, BACKGROUND)
    idle: list[float] = []
    loaded: list[float] = []

    async def work(embedded: Embedded) -> None:
        await run_embedded(embedded, chain(LOOK))
        row = await run_embedded(embedded, chain(count))
        idle.extend(hops(embedded.attempts(row.id)))
        background = await embedded.submit(canonical(flat(many)), b"{}", Priority.LOW)
        row = await run_embedded(embedded, chain(count))
        ended = await asyncio.wait_for(embedded.wait(background), 600)
        loaded.extend(hops(embedded.attempts(row.id), ended.ended_at or 0.0))

    benchmark.pedantic(with_embedded, (tmp_path / "state", place.store, work), rounds=1)
    floor: Beside = hop_floor(place, trips=False)
    durable = place.durable
    tell(
        durations(f"hop, {place.kind}, embedded, idle", idle, floor=floor, durable=durable),
        *(
            [durations(f"hop, {place.kind}, embedded, under load", loaded, floor=floor, durable=durable)]
            if loaded
            else []
        ),
    )
