"""What happened to a cluster, as JSON lines: what it promised, what became durable, what ran.

Simulation and real processes write the same events. In a simulation they come from the simulated store and
processes; in a real cluster from triggers in the database (complete, and in order for each row), from tasks that
bear witness of themselves, and from the client. The histories of several witnesses are merged by time.

| kind | who says it | what |
|---|---|---|
| plan | client or store | `tasks` and `stops` of this run's workflow; before anything else of the run |
| accepted | client | it was told that its submit is `run`, under `key` if it gave one |
| cancel | client | it is about to ask for the run to stop |
| run | store | the run's row is now this: `state`, `owner`, `epoch`, `key` |
| attempt | store | its row is now this: `state`, `worker`, `value`; `epoch` under which it was written, if known |
| starts | task | the attempt's process starts on `worker` |
| ends | task | nothing of the attempt runs any more; `value` is what it came to, None if it was killed or died |
| unfenced | who stops workers | its worker stands still: nobody can end the process, so it may meet its replacement |
| overlap | task | its start found another attempt of the same task alive: the kernel's word, no clock is involved |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import merge as merge_sorted
from typing import Literal

import msgspec

from dsfast.model import OnFailure, Workflow

Kind = Literal["plan", "accepted", "cancel", "run", "attempt", "starts", "ends", "overlap", "unfenced"]


class TaskPlan(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the rules must know of a task; `needs` are positions in the workflow."""

    needs: tuple[int, ...] = ()
    retries: int = 0
    timeout: float | None = None
    enabled: bool = True


class Event(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One line. `at` is seconds on the clock that all witnesses of this history share; virtual in a simulation."""

    at: float
    kind: Kind
    node: str = ""  # who says so
    run: int = 0
    task: int | None = None
    attempt: int | None = None
    state: str = ""  # the name of a RunState or AttemptState
    owner: str | None = None
    epoch: int | None = None
    worker: str | None = None
    value: str | None = None  # what a task came to: its exit code, and its outputs if they are compared
    key: str | None = None
    tasks: tuple[TaskPlan, ...] = ()
    stops: bool = False  # the workflow ends with the first failure
    detail: str = ""  # for people


def plan(workflow: Workflow, run: int, at: float, node: str = "") -> Event:
    """The plan of a run of this workflow."""
    positions = {task.name: position for position, task in enumerate(workflow.tasks)}
    tasks = tuple(
        TaskPlan(tuple(positions[need] for need in task.needs), task.retry.limit, task.timeout, task.enabled)
        for task in workflow.tasks
    )
    return Event(at=at, kind="plan", node=node, run=run, tasks=tasks, stops=workflow.on_failure is OnFailure.STOP)


def write(events: Iterable[Event]) -> Iterator[bytes]:
    """One line for each event, newline included."""
    return (msgspec.json.encode(event) + b"\n" for event in events)


def read(lines: Iterable[bytes]) -> Iterator[Event]:
    """The events of these lines. Raises msgspec.MsgspecError at a line that is none."""
    return (msgspec.json.decode(line, type=Event) for line in lines if line.strip())


def merge(*histories: Iterable[Event]) -> Iterator[Event]:
    """One history of several, each of which is in order of time; what is said at one time keeps the order given."""
    return merge_sorted(*histories, key=lambda event: event.at)
