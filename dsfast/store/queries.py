"""What people ask, as SQLAlchemy Core statements that both databases run. Imported on the first question only."""

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

    With states it is the union of one short page per state, so that each is read from its own index in order:
    a filter on several states would walk through all history to find fifty failures.
    """
    page = sa.select(*_RUN)
    if workflow is not None:
        page = page.where(runs.c.workflow == workflow)
    if before is not None:
        page = page.where(runs.c.id < before)
    if not states:
        return page.order_by(runs.c.id.desc()).limit(limit)
    parts = [page.where(_in_state(state)).order_by(runs.c.id.desc()).limit(limit) for state in sorted(set(states))]
    if len(parts) == 1:
        return parts[0]
    union = sa.union_all(*(sa.select(part.subquery()) for part in parts))
    return union.order_by(sa.desc("id")).limit(limit)


def _in_state(state: RunState) -> sa.ColumnElement[bool]:
    if state.final:
        return runs.c.outcome == int(state)
    return sa.and_(runs.c.owner.is_not(None), runs.c.state == int(state))


def attempts_of(run_id: int, task: int | None) -> sa.Select[Any]:
    """All attempts of a run, or of one task of it, by task and attempt."""
    found = sa.select(*_ATTEMPT).where(attempts.c.run_id == run_id)
    if task is not None:
        found = found.where(attempts.c.task == task)
    return found.order_by(attempts.c.task, attempts.c.attempt)


def latest_states(run_ids: Sequence[int]) -> sa.Select[Any]:
    """(run, state, how many tasks have their latest attempt in it)."""
    later = attempts.alias("later")
    superseded = sa.exists().where(
        later.c.run_id == attempts.c.run_id,
        later.c.task == attempts.c.task,
        later.c.attempt > attempts.c.attempt,
    )
    return (
        sa.select(attempts.c.run_id, attempts.c.state, sa.func.count())
        .where(attempts.c.run_id.in_(run_ids), ~superseded)
        .group_by(attempts.c.run_id, attempts.c.state)
    )
