"""What people ask, as SQLAlchemy Core statements that every database runs. Imported on the first question only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from dsfast.model import RunState
from dsfast.store.schema import attempts, definitions, runs
from dsfast.store.writes import ATTEMPT_COLUMNS, RUN_COLUMNS

_RUN = [runs.c[name] for name in RUN_COLUMNS]
_ATTEMPT = [attempts.c[name] for name in ATTEMPT_COLUMNS]


def owned(owner: str) -> sa.Select[Any]:
    """Ids of the unfinished runs of this owner."""
    return sa.select(runs.c.id).where(runs.c.owner == owner).order_by(runs.c.id)


def by_key(idempotency_key: str) -> sa.Select[Any]:
    """The id of the run with this key."""
    return sa.select(runs.c.id).where(runs.c.idempotency_key == idempotency_key)


def run(run_id: int) -> sa.Select[Any]:
    """One run, all columns."""
    return sa.select(*_RUN).where(runs.c.id == run_id)


def definition(digest: str) -> sa.Select[Any]:
    """The body of one definition."""
    return sa.select(definitions.c.body).where(definitions.c.digest == digest)


def run_page(
    states: Collection[RunState], workflow: str | None, before: int | None, limit: int
) -> sa.Select[Any] | sa.CompoundSelect[Any]:
    """One page of runs, newest first.

    With states it is made of one page of all unfinished states and one of each final state, each read in order
    from its own index: a filter over all runs would walk through history to find fifty failures.
    """
    if not states:
        return _part(runs.c.id, [], workflow, before, limit)
    parts = [
        _part(runs.c.id, [runs.c.outcome == int(state)], workflow, before, limit)
        for state in set(states)
        if state.final
    ]
    if unfinished := [int(state) for state in states if not state.final]:
        # The sum keeps planners from walking down the primary key: the unfinished are few and have an index.
        conditions = [runs.c.owner.is_not(None), runs.c.state.in_(unfinished)]
        parts.append(_part(runs.c.id + 0, conditions, workflow, before, limit))
    if len(parts) == 1:
        return parts[0]
    return sa.union_all(*(sa.select(part.subquery()) for part in parts)).order_by(sa.desc("id")).limit(limit)


def _part(
    key: sa.ColumnElement[int],
    conditions: Sequence[sa.ColumnElement[bool]],
    workflow: str | None,
    before: int | None,
    limit: int,
) -> sa.Select[Any]:
    part = sa.select(*_RUN).where(*conditions).order_by(key.desc()).limit(limit)
    if workflow is None and conditions and key is runs.c.id:
        # Left alone, MariaDB reads a common state from its newest run on, however far back the page begins.
        part = part.with_hint(runs, "FORCE INDEX (runs_by_outcome)", "mysql")
    if workflow is not None:
        part = part.where(runs.c.workflow == workflow)
    return part if before is None else part.where(key < before)


def attempts_of(run_id: int, task: int | None) -> sa.Select[Any]:
    """All attempts of a run, or of one task of it, by task and attempt."""
    found = sa.select(*_ATTEMPT).where(attempts.c.run_id == run_id)
    if task is not None:
        found = found.where(attempts.c.task == task)
    return found.order_by(attempts.c.task, attempts.c.attempt)


def latest_states(run_ids: Sequence[int]) -> sa.Select[Any]:
    """(run, state, how many tasks have their latest attempt in it).

    One walk in the order of the key, whatever the planner believes: a join with later attempts is quadratic where
    statistics are older than a large run.
    """
    later = sa.func.lead(attempts.c.attempt).over(
        partition_by=[attempts.c.run_id, attempts.c.task], order_by=attempts.c.attempt
    )
    found = (
        sa.select(attempts.c.run_id, attempts.c.state, later.label("later"))
        .where(attempts.c.run_id.in_(run_ids))
        .subquery()
    )
    return (
        sa.select(found.c.run_id, found.c.state, sa.func.count())
        .where(found.c.later.is_(None))
        .group_by(found.c.run_id, found.c.state)
    )
