"""A batch as column values, and the decision which of its runs may still be written.

`Writes` is a copy, taken before the first await: the engine may change its rows while the database works.

The fence. A run may be written while its row still says (owner, epoch) as its writer believes. One more answer
is good: the row already says what this very batch leaves behind (owner None at the end of a run, or another
owner when it is handed over). A batch is one transaction, so an earlier try of it has then written everything;
writing again could overwrite what the next owner has done since. Anything else means the run is lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import msgspec

from dsfast.model import AttemptState, Priority, RunState
from dsfast.rows import AttemptRow, Batch, DefinitionRow, RunRow

Values: TypeAlias = tuple[Any, ...]
Ownership: TypeAlias = tuple[str | None, int]  # (owner, epoch)

RUN_COLUMNS = RunRow.__struct_fields__
RUN_CHANGES = ("state", "owner", "epoch", "priority", "started_at", "ended_at", "reason", "tasks")
ATTEMPT_COLUMNS = AttemptRow.__struct_fields__
ATTEMPT_CHANGES = ATTEMPT_COLUMNS[3:]

_RUN_STATES = {state.value: state for state in RunState}
_PRIORITIES = {priority.value: priority for priority in Priority}
_ATTEMPT_STATES = {state.value: state for state in AttemptState}
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


class Writes(msgspec.Struct):
    """One batch, copied. `fence` is what the writer believes of each run, `after` what the batch leaves behind."""

    owner: str
    definitions: list[DefinitionRow]
    new_runs: dict[int, Values]  # by id, in order; columns as RUN_COLUMNS
    keys: dict[int, str]  # idempotency keys of new runs
    runs: dict[int, Values]  # by id: RUN_CHANGES, then the id
    attempts: list[Values]  # columns as ATTEMPT_COLUMNS
    fence: dict[int, Ownership]
    after: dict[int, Ownership]


def copy_batch(batch: Batch) -> Writes:
    """Take a batch over. A row of a run without an epoch is a bug of the caller and fails here."""
    attempts = [attempt_values(row) for row in batch.attempts.values()]
    if not (batch.new_runs or batch.runs):  # most turns: attempts begin and end
        fence: dict[int, Ownership] = {run_id: (batch.owner, epoch) for run_id, epoch in batch.epochs.items()}
        assert all(row[0] in fence for row in attempts), "rows of runs without an epoch"
        return Writes(batch.owner, list(batch.definitions), {}, {}, {}, attempts, fence, {})
    fresh = {row.id: _as_changed(row, batch.runs.get(row.id, row)) for row in batch.new_runs}
    changed = {run_id: row for run_id, row in batch.runs.items() if run_id not in fresh}
    epochs = {run_id: row.epoch for run_id, row in fresh.items()} | batch.epochs
    touched = changed.keys() | {run_id for run_id, _, _ in batch.attempts}
    assert touched <= epochs.keys(), f"rows of runs without an epoch: {sorted(touched - epochs.keys())}"
    return Writes(
        owner=batch.owner,
        definitions=list(batch.definitions),
        new_runs={run_id: run_values(row) for run_id, row in fresh.items()},
        keys={run_id: storable(row.idempotency_key) for run_id, row in fresh.items() if row.idempotency_key},
        runs={run_id: run_changes(row) for run_id, row in sorted(changed.items())},
        attempts=attempts,
        fence={run_id: (batch.owner, epoch) for run_id, epoch in epochs.items()},
        after={row.id: (row.owner, row.epoch) for rows in (fresh, changed) for row in rows.values()},
    )


def _as_changed(new: RunRow, later: RunRow) -> RunRow:
    """What to insert for a run that changed in the turn that submitted it; mostly both rows are the same object."""
    if later is new:
        return new
    return msgspec.structs.replace(new, **{name: getattr(later, name) for name in RUN_CHANGES})


def refused(writes: Writes, found: Mapping[int, Ownership], checked: Iterable[int]) -> tuple[set[int], set[int]]:
    """Of the runs `checked` against what the database has: those lost, and those an earlier try has written."""
    lost: set[int] = set()
    settled: set[int] = set()
    for run_id in checked:
        now = found.get(run_id)
        if now == writes.fence[run_id]:
            continue
        (settled if now is not None and now == writes.after.get(run_id) else lost).add(run_id)
    return lost, settled


def storable(text: str) -> str:
    """Text that both databases can hold: NUL and lone surrogates become U+FFFD."""
    return text if text.isascii() and "\0" not in text else _UNSTORABLE.sub("\ufffd", text)


def run_values(row: RunRow) -> Values:
    """The columns of a run, in the order of RUN_COLUMNS."""
    return (
        row.id,
        storable(row.workflow),
        row.digest,
        int(row.state),
        row.owner,
        row.epoch,
        int(row.priority),
        row.params,
        row.created_at,
        storable(row.idempotency_key) if row.idempotency_key else None,
        row.started_at,
        row.ended_at,
        storable(row.reason),
        row.tasks,
    )


def run_changes(row: RunRow) -> Values:
    """What changes of a run after its submit, in the order of RUN_CHANGES, then its id."""
    return (
        int(row.state),
        row.owner,
        row.epoch,
        int(row.priority),
        row.started_at,
        row.ended_at,
        storable(row.reason),
        row.tasks,
        row.id,
    )


def attempt_values(row: AttemptRow) -> Values:
    """The columns of an attempt, in the order of ATTEMPT_COLUMNS."""
    return (
        row.run_id,
        row.task,
        row.attempt,
        int(row.state),
        row.worker,
        row.dispatched_at,
        row.started_at,
        row.ended_at,
        row.exit_code,
        row.reason and storable(row.reason),
        row.outputs,
    )


def run_row(values: Iterable[Any]) -> RunRow:
    """The run behind its columns. A code that this version does not know stays a number: it may spoil its run alone."""
    row = RunRow(*values)
    row.state = _RUN_STATES.get(row.state, row.state)
    row.priority = _PRIORITIES.get(row.priority, row.priority)
    return row


def attempt_row(values: Iterable[Any]) -> AttemptRow:
    """The attempt behind its columns; likewise."""
    row = AttemptRow(*values)
    row.state = _ATTEMPT_STATES.get(row.state, row.state)
    return row
