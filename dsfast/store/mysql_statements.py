"""What the MySQL store says to its server: each function is one transaction, or part of one, on a cursor.

Rows of runs are locked first, in the order of their ids, by commits and claims alike: two transactions then wait for
each other in one direction only, and whoever holds a run's row may write its attempts. Under READ COMMITTED nothing
but those rows is locked. Rows travel as multi-row INSERTs, which the driver cuts into statements of a megabyte.
"""
# ruff: noqa: S608 - only names of our own columns are pasted into statements, never a value

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from dsfast.failpoint import reach
from dsfast.rows import AttemptRow, Committed, DefinitionRow, OwnedRun
from dsfast.store.revision import REVISION_TABLE
from dsfast.store.server import Conflict
from dsfast.store.writes import (
    ATTEMPT_CHANGES,
    ATTEMPT_COLUMNS,
    RUN_CHANGES,
    RUN_COLUMNS,
    Ownership,
    Values,
    Writes,
    attempt_row,
    refused,
    run_row,
)

LISTED_MAX = 500  # ids in one IN: MariaDB turns a list of 1,000 into a join, which locks rows in an order of its own

_TABLE = "SELECT 1 FROM information_schema.tables WHERE table_schema = database() AND table_name = %s"


def _insert(table: str, columns: Sequence[str], changes: Sequence[str] = ()) -> str:
    """A multi-row INSERT; a row whose key exists changes these columns, or nothing when there are none."""
    changed = ", ".join(f"{name} = VALUES({name})" for name in changes) or f"{columns[0]} = {table}.{columns[0]}"
    values = ", ".join(["%s"] * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values}) ON DUPLICATE KEY UPDATE {changed}"


# A changed run exists, so nothing is ever inserted of it; its other columns only have to be there.
_SUBMITTED = ("workflow", "digest", "params", "created_at")
_ANYTHING = ("", "", b"", 0.0)

_INSERT_DEFINITION = """
    INSERT INTO definitions (digest, name, version, body, created_at)
    SELECT %s, %s, coalesce(max(version), 0) + 1, %s, %s FROM definitions WHERE name = %s"""
_INSERT_RUNS = _insert("runs", RUN_COLUMNS)
_UPSERT_RUNS = _insert("runs", (*_SUBMITTED, *RUN_CHANGES, "id"), RUN_CHANGES)
_UPSERT_ATTEMPTS = _insert("attempts", ATTEMPT_COLUMNS, ATTEMPT_CHANGES)
_KNOWN_DIGESTS = "SELECT digest FROM definitions WHERE digest IN ({})"
# Forced, since a scan that finds most of a small table also locks, and so waits for, the rows it was not asked for.
_LOCKED = "SELECT id, owner, epoch FROM runs FORCE INDEX (PRIMARY) WHERE id IN ({}) ORDER BY id FOR UPDATE"
_PRESENT = "SELECT id FROM runs WHERE id IN ({})"
_BY_KEYS = "SELECT idempotency_key, id FROM runs WHERE idempotency_key IN ({})"
_UNFINISHED = "SELECT id, owner, epoch FROM runs WHERE owner IS NOT NULL"
_TAKE = "UPDATE runs SET owner = %s, epoch = epoch + 1 WHERE id = %s"
_BLAME = """
    INSERT INTO crashes (run_id, count, reason) VALUES (%s, 1, %s)
    ON DUPLICATE KEY UPDATE count = count + 1, reason = VALUES(reason)"""
_CRASHED = "SELECT run_id, reason FROM crashes WHERE count >= %s"
_RUNS = f"SELECT {', '.join(RUN_COLUMNS)} FROM runs WHERE id IN ({{}}) ORDER BY id"
_BODIES = "SELECT digest, body FROM definitions WHERE digest IN ({})"
_ATTEMPTS = f"SELECT {', '.join(ATTEMPT_COLUMNS)} FROM attempts WHERE run_id IN ({{}}) ORDER BY run_id, task, attempt"


def apply(cursor: Any, writes: Writes) -> Committed:
    """Write a batch, as `Store.commit` says."""
    _insert_definitions(cursor, writes.definitions)
    found = _locked(cursor, writes.fence)
    fresh = {run_id: values for run_id, values in writes.new_runs.items() if run_id not in found}
    duplicates = _insert_runs(cursor, fresh, writes.keys)
    lost, settled = refused(writes, found, writes.fence.keys() - fresh.keys())
    skipped = lost | settled | duplicates.keys()
    changed = [(*_ANYTHING, *row) for run_id, row in writes.runs.items() if run_id not in skipped]
    cursor.executemany(_UPSERT_RUNS, changed)
    cursor.executemany(_UPSERT_ATTEMPTS, [row for row in writes.attempts if row[0] not in skipped])
    return Committed(frozenset(lost), duplicates)


def unfinished(
    cursor: Any, owner: str, alive: Collection[str], doubtful: Collection[int]
) -> list[tuple[int, str, int]]:
    """(run, owner, epoch) of the runs whose owner is not alive, and of those that `owner` may have taken already."""
    cursor.execute(_UNFINISHED)
    return [found for found in cursor if found[1] not in alive or (found[1] == owner and found[0] in doubtful)]


def take(cursor: Any, owner: str, runs: Iterable[tuple[int, str, int]]) -> dict[int, int]:
    """Make `owner` the owner of those runs that still have the owner and epoch given; their new epochs by id."""
    before = {run_id: (left_by, epoch) for run_id, left_by, epoch in runs}
    taken = [run_id for run_id, now in _locked(cursor, before).items() if now == before[run_id]]
    for run_id in taken:
        cursor.execute(_TAKE, (owner, run_id))
    return {run_id: before[run_id][1] + 1 for run_id in taken}


def load(cursor: Any, owner: str, epochs: Mapping[int, int]) -> list[OwnedRun]:
    """Those of the runs just taken that are still ours under these epochs; a body that many share is held once.

    Who was paused since it took them may have lost them again. Runs are read last: one that is still ours then has
    been written by nobody else meanwhile, so its attempts, read before, belong to it.
    """
    attempts: dict[int, list[AttemptRow]] = {run_id: [] for run_id in epochs}
    for values in _select(cursor, _ATTEMPTS, epochs):
        attempts[values[0]].append(attempt_row(values))
    if epochs:
        reach("M11")
    read = [run_row(values) for values in _select(cursor, _RUNS, epochs)]
    runs = [run for run in read if (run.owner, run.epoch) == (owner, epochs[run.id])]
    bodies: dict[str, bytes] = dict(_select(cursor, _BODIES, {run.digest for run in runs}))
    return [OwnedRun(run, bodies.get(run.digest, b""), attempts[run.id]) for run in runs]


def blame(cursor: Any, run_id: int, reason: str) -> None:
    """Count one more crash over this run."""
    cursor.execute(_BLAME, (run_id, reason))


def crashed(cursor: Any, least: int) -> dict[int, str]:
    """Runs over which at least so many masters have ended, with what the last one said."""
    cursor.execute(_CRASHED, (least,))
    return dict(cursor.fetchall())


def read_revision(cursor: Any) -> str | None:
    """The schema of the database, or None when it has none of ours."""
    cursor.execute(_TABLE, (REVISION_TABLE,))
    if cursor.fetchone() is None:
        return None
    cursor.execute(f"SELECT version_num FROM {REVISION_TABLE}")
    row = cursor.fetchone()
    return str(row[0]) if row else None


def _insert_definitions(cursor: Any, definitions: Sequence[DefinitionRow]) -> None:
    known = {digest for (digest,) in _select(cursor, _KNOWN_DIGESTS, [row.digest for row in definitions])}
    for row in definitions:
        if row.digest not in known:
            known.add(row.digest)
            cursor.execute(_INSERT_DEFINITION, (row.digest, row.name, row.body, time.time(), row.name))


def _insert_runs(cursor: Any, fresh: Mapping[int, Values], keys: Mapping[int, str]) -> dict[int, int]:
    """Insert new runs; those that were refused, each with the run that has its key."""
    inserted = cursor.executemany(_INSERT_RUNS, list(fresh.values())) or 0
    if inserted == len(fresh):
        return {}
    present = {run_id for (run_id,) in _select(cursor, _PRESENT, fresh)}
    absent = [run_id for run_id in fresh if run_id not in present]
    if inserted + len(absent) != len(fresh):
        raise Conflict("an earlier try of this commit is still at work; commit again")
    holders = dict(_select(cursor, _BY_KEYS, {keys[run_id] for run_id in absent}))
    return {run_id: holders[keys[run_id]] for run_id in absent}


def _locked(cursor: Any, run_ids: Iterable[int]) -> dict[int, Ownership]:
    """Lock the rows of these runs, after waiting for whoever has them; (owner, epoch) of those that exist."""
    return {run_id: (owner, epoch) for run_id, owner, epoch in _select(cursor, _LOCKED, run_ids)}


def _select(cursor: Any, statement: str, listed: Iterable[Any]) -> Iterator[Any]:
    """The rows of a statement with a list in it, in the order of the list's values."""
    values = sorted(listed)
    for start in range(0, len(values), LISTED_MAX):
        part = values[start : start + LISTED_MAX]
        cursor.execute(statement.format(", ".join(["%s"] * len(part))), part)
        yield from cursor
