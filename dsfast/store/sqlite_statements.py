"""What the SQLite store says to its file: each function is one transaction on the writer's connection."""
# ruff: noqa: S608 - only names of our own columns are pasted into statements, never a value

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Iterable

from dsfast.rows import AttemptRow, Committed, DefinitionRow, OwnedRun
from dsfast.store import ddl
from dsfast.store.revision import HEAD
from dsfast.store.writes import (
    ATTEMPT_CHANGES,
    ATTEMPT_COLUMNS,
    RUN_CHANGES,
    RUN_COLUMNS,
    Ownership,
    Writes,
    attempt_row,
    refused,
    run_row,
)

_INSERT_DEFINITION = """
    INSERT INTO definitions (digest, name, version, body, created_at)
    SELECT ?1, ?2, coalesce(max(version), 0) + 1, ?3, ?4 FROM definitions WHERE name = ?2
    ON CONFLICT (digest) DO NOTHING"""
_INSERT_RUN = (
    f"INSERT INTO runs ({', '.join(RUN_COLUMNS)}) VALUES ({', '.join('?' * len(RUN_COLUMNS))}) ON CONFLICT DO NOTHING"
)
_UPDATE_RUN = f"UPDATE runs SET {', '.join(f'{name} = ?' for name in RUN_CHANGES)} WHERE id = ?"
_UPSERT_ATTEMPT = (
    f"INSERT INTO attempts ({', '.join(ATTEMPT_COLUMNS)}) VALUES ({', '.join('?' * len(ATTEMPT_COLUMNS))}) "
    "ON CONFLICT (run_id, task, attempt) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in ATTEMPT_CHANGES)
)
_LISTED = "IN (SELECT value FROM json_each(?))"
_OWNERSHIPS = f"SELECT id, owner, epoch FROM runs WHERE id {_LISTED}"
_OWNERSHIP = "SELECT id, owner, epoch FROM runs WHERE id = ?"
_BY_KEY = "SELECT id FROM runs WHERE idempotency_key = ?"
_UNFINISHED = "SELECT id, owner, epoch FROM runs WHERE owner IS NOT NULL"
_TAKE = "UPDATE runs SET owner = ?, epoch = epoch + 1 WHERE id = ? AND owner = ? AND epoch = ?"
_RUNS = f"SELECT {', '.join(RUN_COLUMNS)} FROM runs WHERE id {_LISTED} ORDER BY id"
_BODIES = f"SELECT digest, body FROM definitions WHERE digest {_LISTED}"
_BLAME = """
    INSERT INTO crashes (run_id, count, reason) VALUES (?, 1, ?)
    ON CONFLICT (run_id) DO UPDATE SET count = count + 1, reason = excluded.reason"""
_CRASHED = "SELECT run_id, reason FROM crashes WHERE count >= ?"
_ATTEMPTS = f"SELECT {', '.join(ATTEMPT_COLUMNS)} FROM attempts WHERE run_id {_LISTED} ORDER BY run_id, task, attempt"


def create_tables(connection: sqlite3.Connection) -> None:
    """Make the tables and stamp them with HEAD, unless there are tables of ours or of that name already."""
    with transaction(connection):
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name IN ('runs', 'dsfast_revision')").fetchone():
            return
        for statement in ddl.SQLITE.split(";"):
            connection.execute(statement)
        connection.execute("INSERT INTO dsfast_revision (version_num) VALUES (?)", [HEAD])


def read_revision(connection: sqlite3.Connection) -> str | None:
    """The schema of the database, or None when it has none of ours."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'dsfast_revision'").fetchone():
        return None
    row = connection.execute("SELECT version_num FROM dsfast_revision").fetchone()
    return str(row[0]) if row else None


def apply(connection: sqlite3.Connection, writes: Writes) -> Committed:
    """Write a batch, as `Store.commit` says."""
    with transaction(connection):
        _insert_definitions(connection, writes.definitions)
        duplicates, inserted = _insert_runs(connection, writes)
        checked = [run_id for run_id in writes.fence if run_id not in inserted and run_id not in duplicates]
        lost, settled = refused(writes, _ownerships(connection, checked), checked)
        skipped = lost | settled | duplicates.keys()
        runs = [row for run_id, row in writes.runs.items() if run_id not in skipped]
        if runs:
            connection.executemany(_UPDATE_RUN, runs)
        attempts = [row for row in writes.attempts if row[0] not in skipped] if skipped else writes.attempts
        if attempts:
            connection.executemany(_UPSERT_ATTEMPT, attempts)
    return Committed(frozenset(lost), duplicates)


def unfinished(connection: sqlite3.Connection, alive: Collection[str]) -> list[tuple[int, str, int]]:
    """(run, owner, epoch) of the runs whose owner is not alive."""
    return [found for found in connection.execute(_UNFINISHED) if found[1] not in alive]


def take(connection: sqlite3.Connection, owner: str, runs: Iterable[tuple[int, str, int]]) -> list[OwnedRun]:
    """Make `owner` the owner of those runs that still have the owner and epoch given; returns them, oldest first."""
    with transaction(connection):
        taken = [
            run_id
            for run_id, before, epoch in runs
            if connection.execute(_TAKE, (owner, run_id, before, epoch)).rowcount
        ]
        return _load(connection, taken)


def blame(connection: sqlite3.Connection, run_id: int, reason: str) -> None:
    """Count one more crash over this run."""
    with transaction(connection):
        connection.execute(_BLAME, (run_id, reason))


def crashed(connection: sqlite3.Connection, least: int) -> dict[int, str]:
    """Runs over which at least so many masters have ended, with what the last one said."""
    return dict(connection.execute(_CRASHED, (least,)))


def _insert_definitions(connection: sqlite3.Connection, definitions: Iterable[DefinitionRow]) -> None:
    for row in definitions:
        connection.execute(_INSERT_DEFINITION, (row.digest, row.name, row.body, time.time()))


def _insert_runs(connection: sqlite3.Connection, writes: Writes) -> tuple[dict[int, int], set[int]]:
    """Insert the new runs; returns duplicates (refused id -> the run that has its key) and what was inserted."""
    duplicates: dict[int, int] = {}
    inserted: set[int] = set()
    for run_id, values in writes.new_runs.items():
        if connection.execute(_INSERT_RUN, values).rowcount:
            inserted.add(run_id)
        elif not _ownerships(connection, [run_id]):
            (duplicates[run_id],) = connection.execute(_BY_KEY, [writes.keys[run_id]]).fetchone()
    return duplicates, inserted


def _ownerships(connection: sqlite3.Connection, run_ids: Collection[int]) -> dict[int, Ownership]:
    if len(run_ids) == 1:  # as in most turns; half the price
        found = connection.execute(_OWNERSHIP, list(run_ids))
    else:
        found = connection.execute(_OWNERSHIPS, [json.dumps(list(run_ids))])
    return {run_id: (owner, epoch) for run_id, owner, epoch in found}


def _load(connection: sqlite3.Connection, run_ids: list[int]) -> list[OwnedRun]:
    """Runs with their definitions and attempts; a body that many runs share is held once."""
    listed = json.dumps(run_ids)
    runs = [run_row(values) for values in connection.execute(_RUNS, [listed])]
    bodies: dict[str, bytes] = dict(
        connection.execute(_BODIES, [json.dumps(sorted({run.digest for run in runs}))]).fetchall()
    )
    attempts: dict[int, list[AttemptRow]] = {run.id: [] for run in runs}
    for values in connection.execute(_ATTEMPTS, [listed]):
        attempts[values[0]].append(attempt_row(values))
    return [OwnedRun(run, bodies.get(run.digest, b""), attempts[run.id]) for run in runs]


def transaction(connection: sqlite3.Connection) -> sqlite3.Connection:
    """All or nothing. The write lock is taken at once: a transaction that reads first could not wait for it later."""
    connection.execute("BEGIN IMMEDIATE")
    return connection  # as a context it commits, or rolls back if anything was raised, the commit's own error included
