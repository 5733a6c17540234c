"""The measurements: a chain, no-op tasks and processes on a master and a worker in this process, and the floors."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from dsfast.bench.figures import Figure, duration, rate
from dsfast.errors import DsfastError, Problem, UsageError
from dsfast.model import RunState, Task, Workflow, canonical
from dsfast.rows import AttemptRow, RunRow
from dsfast.runtime.embedded import Embedded
from dsfast.store.floor import lone_commits

PREFIX = "bench-"  # of the names of the workflows that are run
TRUE = "/bin/true"
FOREIGN_LOOKED_AT = 500  # runs of a database that are looked at for whether it is used for anything else
WARM_HOPS = 50  # at the beginning of a chain, while connections and caches warm up


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is measured."""

    hops: int = 1000
    flat: int = 10_000
    processes: int = 400
    rounds: int = 3  # of what is measured as a whole
    commits: int = 300

    def times(self, size: float) -> Amount:
        """So many times as much, and at least something."""
        return Amount(
            hops=max(2, round(self.hops * size)),
            flat=max(2, round(self.flat * size)),
            processes=max(2, round(self.processes * size)),
            commits=max(20, round(self.commits * min(size, 1.0))),
        )


async def measure(embedded: Embedded, url: str, amount: Amount, slots: int, say: Callable[[str], None]) -> list[Figure]:
    """All figures, in their order; `say` is told what comes next. Raises UsageError for a database with other runs."""
    await _refuse_foreign(embedded)
    say("lone durable commits")
    commits = await lone_commits(url, amount.commits)
    say(f"a chain of {amount.hops:,} no-op tasks")
    hops = await _hops(embedded, amount.hops)
    figures = [duration("hop", "end of a task to the start of its successor", hops, commits, "a lone durable commit")]
    say(f"{amount.flat:,} independent no-op tasks, {amount.rounds} times")
    rates = [await _rate(embedded, flat(amount.flat)) for _ in range(amount.rounds)]
    one_by_one = len(commits) / sum(commits)
    figures.append(rate("noop", "independent no-op tasks", rates, one_by_one, "lone durable commits, one by one"))
    say(f"{amount.processes:,} processes, {amount.rounds} times; and without dsfast")
    rates = [await _rate(embedded, processes(amount.processes)) for _ in range(amount.rounds)]
    bare = f"posix_spawn of {TRUE} alone, {slots} at a time"
    figures.append(rate("process", "tasks that are processes", rates, spawn_rate(amount.processes, slots), bare))
    return figures


async def _refuse_foreign(embedded: Embedded) -> None:
    """A cluster whose database this is would take the runs over, and its own numbers would not be ours."""
    runs = await embedded.store.runs(limit=FOREIGN_LOOKED_AT)
    foreign = next((run for run in runs if not run.workflow.startswith(PREFIX)), None)
    if foreign is not None:
        text = f"the database holds runs of other workflows, such as {foreign.workflow!r}"
        raise UsageError(Problem(text, hint="give the benchmark a database of its own"))


# -- what is run ----------------------------------------------------------------------------------------------------


def chain(count: int) -> Workflow:
    """Each task needs the one before."""
    tasks = (Task(name=f"t{n}", type="noop", needs=(f"t{n - 1}",) if n else ()) for n in range(count))
    return Workflow(name=f"{PREFIX}chain", tasks=tuple(tasks))


def flat(count: int) -> Workflow:
    """Tasks that need nothing."""
    return Workflow(name=f"{PREFIX}flat", tasks=tuple(Task(name=f"t{n}", type="noop") for n in range(count)))


def processes(count: int) -> Workflow:
    """Tasks that are a process each."""
    config = msgspec.Raw(msgspec.json.encode({"command": [TRUE]}))
    tasks = (Task(name=f"t{n}", type="shell", config=config) for n in range(count))
    return Workflow(name=f"{PREFIX}process", tasks=tuple(tasks))


async def _hops(embedded: Embedded, count: int) -> list[float]:
    """The worker's own word: when a task ended, and when the next one started."""
    run = await _run(embedded, chain(count + WARM_HOPS))
    rows = embedded.attempts(run.id)[-count - 1 :]
    return [_started(after) - _ended(before) for before, after in pairwise(rows)]


def _started(row: AttemptRow) -> float:
    assert row.started_at is not None
    return row.started_at


def _ended(row: AttemptRow) -> float:
    assert row.ended_at is not None
    return row.ended_at


async def _rate(embedded: Embedded, workflow: Workflow) -> float:
    """Tasks per second, from the submit to the durable end of the run."""
    began = time.perf_counter()
    await _run(embedded, workflow)
    return len(workflow.tasks) / (time.perf_counter() - began)


async def _run(embedded: Embedded, workflow: Workflow) -> RunRow:
    row = await embedded.wait(await embedded.submit(canonical(workflow), b"{}"))
    if row.state is not RunState.SUCCEEDED:
        raise DsfastError(f"the run of {workflow.name} has ended as {row.state.name.lower()}: {_why(embedded, row)}")
    return row


def _why(embedded: Embedded, row: RunRow) -> str:
    reasons: Iterator[str] = (attempt.reason for attempt in embedded.attempts(row.id) if attempt.reason)
    return row.reason or next(reasons, "no task says why")


def spawn_rate(count: int, at_a_time: int) -> float:
    """Processes per second with no scheduler: so many at a time, started and reaped."""
    began = time.perf_counter()
    running: deque[int] = deque()
    for _ in range(count):
        if len(running) >= at_a_time:
            os.waitpid(running.popleft(), 0)
        running.append(os.posix_spawn(TRUE, [TRUE], {}))
    for pid in running:
        os.waitpid(pid, 0)
    return count / (time.perf_counter() - began)
