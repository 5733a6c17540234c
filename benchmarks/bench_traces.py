"""How close to the least possible makespan do real workflows come?

Every trace in WfFormat (wfcommons.org) of a folder is replayed as tasks that sleep, faster than it was: the longest
takes 500 ms, none less than 10 ms. Scheduling efficiency is the lower bound, the longer of the critical path and of all
work by all slots, by the makespan. With more slots than any trace can use, the critical path can be reached, and what
is missing is the scheduler's; with few it may be the trace's, so beside it stands the efficiency of a greedy schedule
that costs nothing. Real daemons on SQLite, one master and two workers.

Each is run ROUNDS times and the median counts; the first run, of a workflow that the master has yet to read and check,
is told by itself.

    DSFAST_BENCH_TRACES=/path/to/traces .venv/bin/python -m pytest benchmarks/bench_traces.py --benchmark-only -s

Without that variable two workflows of the same shapes are made up.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.figures import Beside, Figure, rounds
from benchmarks.stage import Place, daemons, finish, submit
from dsfast.formats.wfformat import read_trace
from dsfast.model import Task, Workflow
from tests.workflows import alignment, config

FOLDER = os.environ.get("DSFAST_BENCH_TRACES", "")
WORKERS = 2
SLOTS = {"plenty": 1_000, "few": 8}  # of a worker
LONGEST_SECONDS, SHORTEST_SECONDS = 0.5, 0.01
EFFICIENCY_TARGET = 97.0
ROUNDS = 3

Tell = Callable[..., None]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each trace."""
    if "trace" in metafunc.fixturenames:
        files = sorted(Path(FOLDER).glob("*.json")) if FOLDER else []
        assert files or not FOLDER, f"DSFAST_BENCH_TRACES: {FOLDER} has no *.json"
        names = [str(file) for file in files] or ["made-up alignment", "made-up bundles"]
        metafunc.parametrize("trace", names, ids=[Path(name).stem for name in names])


def workflow_of(trace: str, look: bool) -> Workflow:
    """The workflow, its tasks as long as they shall be."""
    if trace == "made-up alignment":
        return scaled(alignment(4 if look else 150, scale=1.0))
    if trace == "made-up bundles":
        return scaled(bundles(2, 3) if look else bundles(6, 25))
    (imported,) = read_trace(Path(trace).read_bytes(), trace).workflows
    return scaled(imported)


def bundles(count: int, width: int) -> Workflow:
    """The shape of an epigenomics trace: each bundle is split, walks through four steps in parallel, and is merged."""
    tasks = []
    for bundle in range(count):
        tasks.append(nap(f"split{bundle}", 4))
        for lane in range(width):
            before = f"split{bundle}"
            for step, seconds in enumerate((2, 0.5, 1, 30)):
                name = f"step{step}-{bundle}-{lane}"
                tasks.append(nap(name, seconds * (1 + (lane * 7 + bundle) % 5 / 5), before))
                before = name
        tasks.append(nap(f"merge{bundle}", 10, *(f"step3-{bundle}-{lane}" for lane in range(width))))
    tasks.append(nap("merge", 15, *(f"merge{bundle}" for bundle in range(count))))
    return Workflow(name="bundles", tasks=tuple(tasks))


def nap(name: str, seconds: float, *needs: str) -> Task:
    return Task(name=name, type="sleep", needs=needs, config=config(seconds=seconds))


def seconds_of(task: Task) -> float:
    return float(msgspec.json.decode(task.config).get("seconds", 0.0))


def scaled(workflow: Workflow) -> Workflow:
    """The same at another speed."""
    scale = LONGEST_SECONDS / max(map(seconds_of, workflow.tasks))
    tasks = (
        msgspec.structs.replace(task, config=config(seconds=max(SHORTEST_SECONDS, seconds_of(task) * scale)))
        for task in workflow.tasks
    )
    return msgspec.structs.replace(workflow, tasks=tuple(tasks))


def critical_path_seconds(workflow: Workflow) -> float:
    """The longest chain of needs."""
    ends: dict[str, float] = {}
    for task in in_order(workflow):
        ends[task.name] = max((ends[need] for need in task.needs), default=0.0) + seconds_of(task)
    return max(ends.values())


def in_order(workflow: Workflow) -> Iterator[Task]:
    """Tasks after all that they need."""
    waiting = {task.name: set(task.needs) for task in workflow.tasks}
    left = list(workflow.tasks)
    done: set[str] = set()
    while left:
        ready = [task for task in left if waiting[task.name] <= done]
        assert ready, "a cycle"
        yield from ready
        done |= {task.name for task in ready}
        left = [task for task in left if task.name not in done]


def greedy_seconds(workflow: Workflow, slots: int) -> float:
    """The makespan of a schedule that costs nothing: whatever is ready, in the workflow's order, on any free slot."""
    places = {task.name: place for place, task in enumerate(workflow.tasks)}
    missing = [len(task.needs) for task in workflow.tasks]
    needed_by: list[list[int]] = [[] for _ in workflow.tasks]
    for place, task in enumerate(workflow.tasks):
        for need in task.needs:
            needed_by[places[need]].append(place)
    ready = [place for place, count in enumerate(missing) if not count]
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < slots:
            place = heapq.heappop(ready)
            heapq.heappush(running, (now + seconds_of(workflow.tasks[place]), place))
        now, ended = heapq.heappop(running)
        for place in needed_by[ended]:
            missing[place] -= 1
            if not missing[place]:
                heapq.heappush(ready, place)
    return now


@pytest.mark.benchmark(group="traces")
@pytest.mark.parametrize("slots", SLOTS)
def test_makespan(benchmark: BenchmarkFixture, tell: Tell, trace: str, slots: str, tmp_path: Path) -> None:
    workflow = workflow_of(trace, benchmark.disabled)
    place = Place("sqlite", f"sqlite:///{tmp_path}/db", f"database+sqlite:///{tmp_path}/registry.db")
    makespans: list[float] = []

    def work() -> None:
        with daemons(place, tmp_path / "nodes", WORKERS, slots=SLOTS[slots]) as nodes, nodes.client() as client:
            for _ in range(1 if benchmark.disabled else ROUNDS):
                run = submit(client, workflow)
                finish(client, run)
                row = place.run(run.id)
                makespans.append((row.ended_at or 0.0) - row.created_at)

    benchmark.pedantic(work, rounds=1)
    tell(*judged(f"{Path(trace).stem}, {slots} slots", workflow, WORKERS * SLOTS[slots], makespans, place.durable))


def judged(
    what: str, workflow: Workflow, slots: int, makespans: list[float], durable: str
) -> tuple[Figure, Figure, Figure]:
    """Makespans and their efficiency, beside what no schedule can be faster than, and what a free one would take."""
    path, share = critical_path_seconds(workflow), sum(map(seconds_of, workflow.tasks)) / slots
    bound = Beside(max(path, share), "the critical path" if path >= share else f"all work on {slots} slots")
    free = bound.value / greedy_seconds(workflow, slots) * 100
    count = f"{len(workflow.tasks):,} tasks"
    return (
        rounds(f"makespan of {what}, {count}", makespans, "s", floor=bound, durable=durable),
        rounds(
            f"efficiency, {what}",
            [bound.value / makespan * 100 for makespan in makespans],
            "%",
            target=EFFICIENCY_TARGET if free > EFFICIENCY_TARGET else None,  # else the trace's shape forbids it
            rival=Beside(free, "a greedy schedule that costs nothing"),
        ),
        Figure(what=f"efficiency of the first run, {what}", value=bound.value / makespans[0] * 100, unit="%"),
    )
