"""Runs, tasks and attempts as people and programs see them: the JSON of `-o json` and of the HTTP API.

The shapes are stable: fields are added, never renamed or removed, and every field is always there, null
when it is not known. States are words:

    run      submitted running pausing paused cancelling cancelled failed succeeded
    task     waiting queued delayed dispatched running killing succeeded failed killed failover skipped disabled
    attempt  queued dispatched running succeeded failed killed failover

A task shows the state of its latest attempt. Without one it is `waiting` (or what its master explains),
`skipped` when something it needs will never succeed or the run has ended, `disabled` when it is switched off.
Times are RFC 3339 in UTC with milliseconds, durations are seconds; what still runs is measured up to now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from dsfast.ids import run_text
from dsfast.model import AttemptState, Member, RunState, Workflow
from dsfast.rows import AttemptRow, RunRow

RUN_WORDS: Mapping[RunState, str] = {
    RunState.SUBMITTED: "submitted",
    RunState.RUNNING: "running",
    RunState.READY_PAUSE: "pausing",
    RunState.PAUSED: "paused",
    RunState.READY_STOP: "cancelling",
    RunState.STOPPED: "cancelled",
    RunState.FAILED: "failed",
    RunState.SUCCEEDED: "succeeded",
}
ATTEMPT_WORDS: Mapping[AttemptState, str] = {
    AttemptState.SUBMITTED: "queued",
    AttemptState.DISPATCHED: "dispatched",
    AttemptState.RUNNING: "running",
    AttemptState.FAILED: "failed",
    AttemptState.SUCCEEDED: "succeeded",
    AttemptState.FAILOVER: "failover",
    AttemptState.KILLED: "killed",
}
TASK_WORDS = ("waiting", "delayed", "killing", *ATTEMPT_WORDS.values(), "skipped", "disabled")

Explanations = Mapping[int, tuple[str, str]]  # task -> (state word, reason), as its master says


_is_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class AttemptView(msgspec.Struct, frozen=True):
    """One try of a task."""

    attempt: int
    state: str
    worker: str | None
    exit_code: int | None
    dispatched_at: str | None
    started_at: str | None
    ended_at: str | None
    duration_seconds: float | None
    reason: str


class TaskView(msgspec.Struct, frozen=True):
    """A task of a run, as its latest attempt shows it; `attempts` counts the tries so far."""

    name: str
    type: str
    state: str
    attempt: int | None
    attempts: int
    worker: str | None
    exit_code: int | None
    started_at: str | None
    ended_at: str | None
    duration_seconds: float | None
    outputs: msgspec.Raw | None
    reason: str


class RunView(msgspec.Struct, frozen=True):
    """One execution of a workflow. `tasks` is there only where it was asked for; `note` says what is missing."""

    id: str
    workflow: str
    state: str
    priority: str
    params: msgspec.Raw
    created_at: str | None
    started_at: str | None
    ended_at: str | None
    duration_seconds: float | None
    reason: str
    tasks_total: int
    counts: dict[str, int]
    note: str | msgspec.UnsetType = msgspec.UNSET
    tasks: list[TaskView] | msgspec.UnsetType = msgspec.UNSET


class MemberView(msgspec.Struct, frozen=True):
    """A live daemon; `load` is the attempts a worker runs, or the unfinished runs of a master, when known."""

    id: str
    role: str
    name: str
    address: str
    started_at: str | None
    groups: list[str]
    slots: int
    weight: int
    load: int | None


class TaskHistory(msgspec.Struct, frozen=True):
    """A task and every try of it, oldest first."""

    task: TaskView
    history: list[AttemptView]


class RunPage(msgspec.Struct, frozen=True):
    """Some runs, newest first; `next` is the `before` of the page that follows, null on the last one."""

    runs: list[RunView]
    next: str | None


class TaskPage(msgspec.Struct, frozen=True):
    """Some tasks of a run; `next` is the `after` of the page that follows, null on the last one."""

    tasks: list[TaskView]
    next: int | None


class MemberPage(msgspec.Struct, frozen=True):
    """Live daemons of one role, by id."""

    members: list[MemberView]


class Cancelled(msgspec.Struct, frozen=True):
    """The run after a cancel; `changed` is false when it had ended already."""

    changed: bool
    run: RunView


class ProblemView(msgspec.Struct, frozen=True):
    """One thing wrong with a request, and where."""

    message: str
    file: str | None = None
    line: int | None = None
    field: str | None = None
    hint: str | None = None


class Fault(msgspec.Struct, frozen=True):
    """What went wrong: `code` is stable, `message` is for people, `problems` lists every mistake found."""

    code: str
    message: str
    problems: list[ProblemView] = []


class Entry(msgspec.Struct, frozen=True):
    """What became of one run of a batch: its id, or the error that kept it from being started."""

    id: str | None
    repeated: bool
    error: Fault | None


class Batch(msgspec.Struct, frozen=True):
    """An entry for each run of a batch, in the order of the request."""

    runs: list[Entry]


class Lost(msgspec.Struct, frozen=True):
    """A worker was declared lost: so many attempts on it start elsewhere."""

    attempts: int


class ErrorView(msgspec.Struct, frozen=True):
    """Every answer that is not a success."""

    error: Fault


def _object(body: bytes) -> msgspec.Raw:
    """A JSON object as it is stored; a damaged one is shown as empty rather than spoil the whole answer."""
    try:
        _is_object(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return msgspec.Raw(b"{}")
    return msgspec.Raw(body)


def run_view(
    run: RunRow,
    *,
    now: float,
    counts: Mapping[str, int],
    tasks: list[TaskView] | None = None,
    note: str = "",
) -> RunView:
    """The view of a run; `now` is wall clock seconds."""
    return RunView(
        id=run_text(run.id),
        workflow=run.workflow,
        state=RUN_WORDS[run.state],
        priority=run.priority.name.lower(),
        params=_object(run.params),
        created_at=timestamp(run.created_at),
        started_at=timestamp(run.started_at),
        ended_at=timestamp(run.ended_at),
        duration_seconds=duration(run.started_at, run.ended_at, now),
        reason=run.reason,
        tasks_total=run.tasks,
        counts=dict(counts),
        note=note or msgspec.UNSET,
        tasks=msgspec.UNSET if tasks is None else tasks,
    )


def task_views(
    run: RunRow,
    workflow: Workflow,
    attempts: Iterable[AttemptRow],
    *,
    now: float,
    explained: Explanations | None = None,
) -> list[TaskView]:
    """Every task of a run in the workflow's order; `attempts` are in order of task and attempt."""
    tries: dict[int, list[AttemptRow]] = {}
    for row in attempts:
        tries.setdefault(row.task, []).append(row)
    lost = _lost(workflow, tries)
    views = []
    for position, task in enumerate(workflow.tasks):
        rows = tries.get(position, [])
        settled = run.state.final or (rows and rows[-1].state is AttemptState.SUCCEEDED)
        said = None if settled or explained is None else explained.get(position)
        state, reason = said or _from_rows(run, workflow, position, rows, position in lost)
        views.append(_task_view(task.name, task.type, state, reason, rows, now))
    return views


def attempt_view(row: AttemptRow, now: float) -> AttemptView:
    """The view of one try."""
    return AttemptView(
        attempt=row.attempt,
        state=ATTEMPT_WORDS[row.state],
        worker=row.worker,
        exit_code=row.exit_code,
        dispatched_at=timestamp(row.dispatched_at),
        started_at=timestamp(row.started_at),
        ended_at=timestamp(row.ended_at),
        duration_seconds=duration(row.started_at, row.ended_at, now),
        reason=row.reason,
    )


def member_view(member: Member, load: int | None = None) -> MemberView:
    """The view of a live daemon."""
    return MemberView(
        id=member.id,
        role=member.role,
        name=member.name,
        address=f"{member.host}:{member.port}" if member.port else "",
        started_at=timestamp(member.started_at or None),
        groups=list(member.groups),
        slots=member.slots,
        weight=member.weight,
        load=load,
    )


def count_tasks(views: Iterable[TaskView]) -> dict[str, int]:
    """How many tasks are in each state."""
    return dict(Counter(view.state for view in views))


def count_latest(run: RunRow, latest: Mapping[int, int]) -> dict[str, int]:
    """The same from the store's counts of latest attempts, for lists: it needs no definition.

    Tasks without an attempt are counted as waiting, or as skipped once the run has ended; disabled ones too.
    """
    counts = {ATTEMPT_WORDS[AttemptState(code)]: number for code, number in latest.items() if number}
    rest = run.tasks - sum(counts.values())
    if rest > 0:
        counts["skipped" if run.state.final else "waiting"] = rest
    return counts


def timestamp(at: float | None) -> str | None:
    """RFC 3339 in UTC with milliseconds."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def duration(start: float | None, end: float | None, now: float) -> float | None:
    """Seconds from start to end, or to now while it runs."""
    if start is None:
        return None
    return round(max((now if end is None else end) - start, 0.0), 3)


def _from_rows(
    run: RunRow, workflow: Workflow, position: int, rows: Sequence[AttemptRow], lost: bool
) -> tuple[str, str]:
    """State and reason of a task as far as its rows tell."""
    if rows:
        last = rows[-1]
        if last.state is AttemptState.FAILED and not lost and not run.state.final:
            return "delayed", f"waits to be tried again: {last.reason}"
        return ATTEMPT_WORDS[last.state], last.reason
    if not workflow.tasks[position].enabled:
        return "disabled", ""
    if lost:
        return "skipped", "something that it needs did not succeed"
    return ("skipped", "the run ended before it") if run.state.final else ("waiting", "")


def _lost(workflow: Workflow, tries: Mapping[int, Sequence[AttemptRow]]) -> set[int]:
    """Tasks that will never succeed: out of retries or killed, and all that needs them."""
    lost = [position for position, rows in tries.items() if _out_of_tries(workflow, position, rows)]
    if not lost:
        return set()
    positions = {task.name: position for position, task in enumerate(workflow.tasks)}
    dependents: dict[int, list[int]] = {}
    for position, task in enumerate(workflow.tasks):
        for need in task.needs:
            dependents.setdefault(positions[need], []).append(position)
    found = set(lost)
    while lost:
        fresh = [position for position in dependents.get(lost.pop(), ()) if position not in found]
        found.update(fresh)
        lost += fresh
    return found


def _out_of_tries(workflow: Workflow, position: int, rows: Sequence[AttemptRow]) -> bool:
    last = rows[-1].state
    failures = sum(row.state is AttemptState.FAILED for row in rows)
    return last is AttemptState.KILLED or (
        last is AttemptState.FAILED and failures > workflow.tasks[position].retry.limit
    )


def _task_view(name: str, type_: str, state: str, reason: str, rows: Sequence[AttemptRow], now: float) -> TaskView:
    last = rows[-1] if rows else None
    return TaskView(
        name=name,
        type=type_,
        state=state,
        attempt=last.attempt if last else None,
        attempts=len(rows),
        worker=last.worker if last else None,
        exit_code=last.exit_code if last else None,
        started_at=timestamp(last.started_at) if last else None,
        ended_at=timestamp(last.ended_at) if last else None,
        duration_seconds=duration(last.started_at, last.ended_at, now) if last else None,
        outputs=msgspec.Raw(last.outputs) if last and last.outputs else None,
        reason=reason,
    )
