"""Rows for tests of stores: valid, small, and different where a test says so."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import asyncpg

from dsfast.model import AttemptState, Priority, RunState
from dsfast.rows import AttemptRow, Batch, Committed, DefinitionRow, RunRow
from dsfast.store.base import Store
from dsfast.store.mysql_link import cursor_of, parse
from dsfast.store.sqlite import database_path

ME = "m1@boot"
OTHER = "m2@boot"
DIGEST = "d" * 64
DEFINITION = DefinitionRow(digest=DIGEST, name="report", body=b'{"name":"report"}')
TABLES = ("definitions", "runs", "attempts", "crashes")


def run(run_id: int, **changes: Any) -> RunRow:
    """A running run of ME."""
    row = RunRow(
        id=run_id,
        workflow="report",
        digest=DIGEST,
        state=RunState.RUNNING,
        owner=ME,
        epoch=1,
        priority=Priority.MEDIUM,
        params=b'{"day":"monday"}',
        created_at=1_700_000_000.25,
    )
    for name, value in changes.items():
        setattr(row, name, value)
    return row


def ended(run_id: int, **changes: Any) -> RunRow:
    """The same run, succeeded."""
    return run(run_id, **{"state": RunState.SUCCEEDED, "owner": None, "ended_at": 1_700_000_001.5} | changes)


def attempt(run_id: int, task: int = 0, number: int = 1, **changes: Any) -> AttemptRow:
    """A dispatched attempt."""
    row = AttemptRow(run_id, task, number, AttemptState.DISPATCHED, "w1@boot", 1_700_000_000.5)
    for name, value in changes.items():
        setattr(row, name, value)
    return row


def batch(
    *,
    new: tuple[RunRow, ...] = (),
    changed: tuple[RunRow, ...] = (),
    attempts: tuple[AttemptRow, ...] = (),
    definitions: tuple[DefinitionRow, ...] = (),
    epochs: dict[int, int] | None = None,
    owner: str = ME,
) -> Batch:
    """A batch of these rows; every run touched is believed to be at epoch 1 unless `epochs` says otherwise."""
    touched = {row.id for row in (*new, *changed)} | {row.run_id for row in attempts}
    return Batch(
        owner=owner,
        definitions=list(definitions),
        new_runs=list(new),
        runs={row.id: row for row in changed},
        attempts={(row.run_id, row.task, row.attempt): row for row in attempts},
        epochs=dict.fromkeys(touched, 1) | (epochs or {}),
    )


async def submit(store: Store, *rows: RunRow, attempts: tuple[AttemptRow, ...] = ()) -> Committed:
    """Write new runs, their definition and attempts."""
    epochs = {row.id: row.epoch for row in rows}
    return await store.commit(batch(new=rows, attempts=attempts, definitions=(DEFINITION,), epochs=epochs))


async def dump(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Everything in the database, read past the store."""
    if url.startswith("sqlite"):
        return await asyncio.to_thread(_dump_sqlite, database_path(url))
    if url.startswith("mysql"):
        return await asyncio.to_thread(_dump_mysql, url)
    connection = await asyncpg.connect(url)
    try:
        return {
            name: [tuple(row) for row in await connection.fetch(f"SELECT * FROM {name} ORDER BY 1, 2, 3")]
            for name in TABLES
        }
    finally:
        await connection.close()


def _dump_sqlite(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    connection = sqlite3.connect(path)
    try:
        return {name: connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2, 3").fetchall() for name in TABLES}
    finally:
        connection.close()


def _dump_mysql(url: str) -> dict[str, list[tuple[Any, ...]]]:
    tables = {}
    with cursor_of(parse(url)) as cursor:
        for name in TABLES:
            cursor.execute(f"SELECT * FROM {name} ORDER BY 1, 2, 3")
            tables[name] = list(cursor.fetchall())
    return tables
