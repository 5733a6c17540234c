"""The PostgreSQL statements of the hot path, composed of what a batch contains.

A commit is one statement, so one round trip and a transaction of its own; it also ends by itself when its master
is cut off half way. Rows travel as one array per column. Three things keep its plan right for any table size,
because a cached plan outlives the statistics it was made from:
`held` looks every run up by its id (a subquery with a row lock is not merged with the outer query), changed runs
are upserted (which uses the key's index by definition; the row exists, so nothing is ever inserted), and
`IS TRUE` hides a condition from the choice of index and keeps `IN` a hash table instead of a join.

The turn of a hop settles one attempt and dispatches another, of one run: to take arrays apart would be a third of what
the server does for it, so a turn like that has a statement without.
"""
# ruff: noqa: S608 - only names of our own columns are pasted into statements, never a value

from __future__ import annotations

from functools import cache
from itertools import chain, count
from typing import Any

from dsfast.store.writes import ATTEMPT_CHANGES, ATTEMPT_COLUMNS, RUN_CHANGES, RUN_COLUMNS, Writes

_TYPES = {
    "id": "bigint",
    "workflow": "text",
    "digest": "text",
    "state": "smallint",
    "owner": "text",
    "epoch": "bigint",
    "priority": "smallint",
    "params": "bytea",
    "created_at": "float8",
    "idempotency_key": "text",
    "started_at": "float8",
    "ended_at": "float8",
    "reason": "text",
    "tasks": "int",
    "run_id": "bigint",
    "task": "int",
    "attempt": "int",
    "worker": "text",
    "dispatched_at": "float8",
    "exit_code": "bigint",
    "outputs": "bytea",
    "name": "text",
    "body": "bytea",
}
_DEFINITION_COLUMNS = ("digest", "name", "body")
_CHANGED_COLUMNS = (*RUN_CHANGES, "id")

# Rows are locked in the order of their ids, here and in TAKE: two transactions then wait for each other in one
# direction only. A run that is being claimed is waited for and then judged by what the claimant wrote.
_HELD = """held AS MATERIALIZED (
    SELECT ours.id
    FROM unnest($2::bigint[], $3::bigint[]) AS fence (id, epoch)
    CROSS JOIN LATERAL (
        SELECT runs.id FROM runs
        WHERE runs.id = fence.id AND (runs.owner = $1 AND runs.epoch = fence.epoch) IS TRUE
        FOR NO KEY UPDATE
    ) AS ours
)"""

_DEFINED = """defined AS (
    INSERT INTO definitions (digest, name, version, body, created_at)
    SELECT
        given.digest,
        given.name,
        coalesce((SELECT max(version) FROM definitions AS known WHERE known.name = given.name), 0)
            + row_number() OVER (PARTITION BY given.name ORDER BY given.place),
        given.body,
        extract(epoch FROM clock_timestamp())
    FROM unnest({arrays}) WITH ORDINALITY AS given ({columns}, place)
    WHERE NOT EXISTS (SELECT FROM definitions AS known WHERE known.digest = given.digest)
    ON CONFLICT (digest) DO NOTHING
)"""

_INSERTED = f"""inserted AS (
    INSERT INTO runs ({", ".join(RUN_COLUMNS)})
    SELECT * FROM unnest({{arrays}}) AS given ({{columns}})
    ON CONFLICT DO NOTHING
    RETURNING id
)"""

_CHANGED = f"""changed AS (
    INSERT INTO runs (workflow, digest, params, created_at, {", ".join(_CHANGED_COLUMNS)})
    SELECT '', '', '', 0, given.* FROM unnest({{arrays}}) AS given ({{columns}})
    WHERE (given.id IN (SELECT id FROM held)) IS TRUE
    ON CONFLICT (id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in RUN_CHANGES)}
)"""

_WRITTEN = f"""written AS (
    INSERT INTO attempts ({", ".join(ATTEMPT_COLUMNS)})
    SELECT * FROM unnest({{arrays}}) AS given ({{columns}})
    WHERE (given.run_id IN ({{applied}})) IS TRUE
    ON CONFLICT (run_id, task, attempt) DO UPDATE SET
        {", ".join(f"{name} = excluded.{name}" for name in ATTEMPT_CHANGES)}
)"""

_HOP = f"""WITH held AS MATERIALIZED (
    SELECT id FROM runs WHERE id = $2::bigint AND (owner = $1 AND epoch = $3::bigint) IS TRUE FOR NO KEY UPDATE
), written AS (
    INSERT INTO attempts ({", ".join(ATTEMPT_COLUMNS)})
    SELECT given.* FROM held CROSS JOIN (VALUES {{rows}}) AS given
    ON CONFLICT (run_id, task, attempt) DO UPDATE SET
        {", ".join(f"{name} = excluded.{name}" for name in ATTEMPT_CHANGES)}
)
SELECT id FROM held"""
HOP_ATTEMPTS_MAX = 4  # a statement is prepared for each number

_HELD_ONLY = "SELECT id FROM held"
_HELD_OR_INSERTED = "SELECT id FROM held UNION ALL SELECT id FROM inserted"

OWNERSHIPS = "SELECT id, owner, epoch FROM runs WHERE id = ANY($1::bigint[])"
KEYS = "SELECT idempotency_key, id FROM runs WHERE idempotency_key = ANY($1::text[])"
UNFINISHED = """
    SELECT id, owner, epoch FROM runs
    WHERE owner IS NOT NULL AND (NOT owner = ANY($1::text[]) OR (owner = $2 AND id = ANY($3::bigint[])))"""
TAKE = """
    UPDATE runs SET owner = $1, epoch = runs.epoch + 1
    FROM (
        SELECT runs.id
        FROM runs JOIN unnest($2::bigint[], $3::text[], $4::bigint[]) AS left_by (id, owner, epoch) USING (id)
        WHERE runs.owner = left_by.owner AND runs.epoch = left_by.epoch
        ORDER BY runs.id
        FOR NO KEY UPDATE OF runs
    ) AS free
    WHERE runs.id = free.id
    RETURNING runs.id, runs.epoch"""
BLAME = """
    INSERT INTO crashes AS known (run_id, count, reason) VALUES ($1, 1, $2)
    ON CONFLICT (run_id) DO UPDATE SET count = known.count + 1, reason = excluded.reason"""
CRASHED = "SELECT run_id, reason FROM crashes WHERE count >= $1"
RUNS = f"SELECT {', '.join(RUN_COLUMNS)} FROM runs WHERE id = ANY($1::bigint[]) ORDER BY id"
BODIES = "SELECT digest, body FROM definitions WHERE digest = ANY($1::text[])"
ATTEMPTS = f"""
    SELECT {", ".join(ATTEMPT_COLUMNS)} FROM attempts
    WHERE run_id = ANY($1::bigint[]) ORDER BY run_id, task, attempt"""


def commit_call(writes: Writes) -> tuple[str, list[Any]]:
    """The statement that writes a batch, and its parameters; it returns the ids of the runs that were written."""
    if len(writes.fence) == 1 and 0 < len(writes.attempts) <= HOP_ATTEMPTS_MAX and not _changes_runs(writes):
        return _hop_call(writes)
    run_ids = sorted(writes.fence)
    parts = (
        [(row.digest, row.name, row.body) for row in writes.definitions],
        list(writes.new_runs.values()),
        list(writes.runs.values()),
        writes.attempts,
    )
    parameters: list[Any] = [writes.owner, run_ids, [writes.fence[run_id][1] for run_id in run_ids]]
    for rows in parts:
        parameters += zip(*rows, strict=True)
    return commit_statement(*map(bool, parts)), parameters


def _changes_runs(writes: Writes) -> bool:
    return bool(writes.definitions or writes.new_runs or writes.runs)


def _hop_call(writes: Writes) -> tuple[str, list[Any]]:
    ((run_id, (_, epoch)),) = writes.fence.items()
    return _hop_statement(len(writes.attempts)), [writes.owner, run_id, epoch, *chain.from_iterable(writes.attempts)]


@cache
def _hop_statement(attempts: int) -> str:
    numbers = count(4)
    row = [f"${{}}::{_TYPES[name]}" for name in ATTEMPT_COLUMNS]
    rows = ", ".join(f"({', '.join(value.format(next(numbers)) for value in row)})" for _ in range(attempts))
    return _HOP.format(rows=rows)


@cache
def commit_statement(definitions: bool, new_runs: bool, runs: bool, attempts: bool) -> str:
    """The statement for a batch with these parts; their columns follow owner, run ids and epochs as parameters."""
    applied = _HELD_OR_INSERTED if new_runs else _HELD_ONLY
    steps = [_HELD]
    parameter = 4
    for present, step, columns in (
        (definitions, _DEFINED, _DEFINITION_COLUMNS),
        (new_runs, _INSERTED, RUN_COLUMNS),
        (runs, _CHANGED, _CHANGED_COLUMNS),
        (attempts, _WRITTEN, ATTEMPT_COLUMNS),
    ):
        if present:
            arrays = ", ".join(f"${number}::{_TYPES[name]}[]" for number, name in enumerate(columns, parameter))
            steps.append(step.format(arrays=arrays, columns=", ".join(columns), applied=applied))
            parameter += len(columns)
    return f"WITH {', '.join(steps)} {applied}"
