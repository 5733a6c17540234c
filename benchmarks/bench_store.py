"""What does durability cost? Commits of the store beside the bare driver that writes the same bytes as durably.

An operation is one row of an attempt, in commits of 1, 10, 100 and 1,000 rows; every other commit settles what the
one before has dispatched, as a master does. The floor checks no owner and hands nothing over between threads: the
difference is the price of the fence, of copying the batch and of the writer thread. Both wait for the disk, so the
ratio is steadier than either figure.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import pymysql
import pytest
import uvloop

from dsfast.model import AttemptState
from dsfast.rows import AttemptRow, Batch, RunRow
from dsfast.store import ddl, open_store
from dsfast.store.base import Store
from dsfast.store.thread import DedicatedThread
from dsfast.store.writes import ATTEMPT_CHANGES, ATTEMPT_COLUMNS, attempt_values
from tests.servers.mysql import PASSWORD, USER, MySqlServer
from tests.servers.postgres import PostgresServer
from tests.store_rows import ME, OTHER, attempt, batch, run, submit

COMMITS = {1: 60, 10: 30, 100: 16, 1000: 6}  # in one round, by rows in each; few, as cloud disks ration syncs
CLAIMED = 100_000
HOPS = 2_000
LIVES = 30
RUN = 1

UPSERT = f"""
    ON CONFLICT (run_id, task, attempt)
    DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in ATTEMPT_CHANGES)}"""
SQLITE_FLOOR = f"INSERT INTO attempts VALUES ({', '.join('?' * len(ATTEMPT_COLUMNS))}) {UPSERT}"
POSTGRES_FLOOR = f"""
    INSERT INTO attempts SELECT * FROM unnest($1::bigint[], $2::int[], $3::int[], $4::smallint[], $5::text[],
        $6::float8[], $7::float8[], $8::float8[], $9::bigint[], $10::text[], $11::bytea[]) {UPSERT}"""

MYSQL_FLOOR = f"""
    INSERT INTO attempts VALUES ({", ".join(["%s"] * len(ATTEMPT_COLUMNS))})
    ON DUPLICATE KEY UPDATE {", ".join(f"{name} = VALUES({name})" for name in ATTEMPT_CHANGES)}"""

Commit = Callable[[list[AttemptRow]], Coroutine[Any, Any, Any]]
Work = Callable[[], Callable[[], Any]]


class Ground(Protocol):
    """A database with a store and a bare connection to another table of the same make."""

    loop: asyncio.AbstractEventLoop
    store: Store

    async def floor(self, rows: list[AttemptRow]) -> None: ...

    async def close(self) -> None: ...


class SqliteGround:
    def __init__(self, directory: Path) -> None:
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self.store = open_store(f"sqlite:///{directory}/runs.db", create=True)
        self.loop.run_until_complete(self.store.open())
        self._bare = sqlite3.connect(directory / "floor.db", isolation_level=None)
        self._bare.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; " + ddl.SQLITE)

    async def floor(self, rows: list[AttemptRow]) -> None:
        self._bare.execute("BEGIN IMMEDIATE")
        self._bare.executemany(SQLITE_FLOOR, map(attempt_values, rows))
        self._bare.execute("COMMIT")

    async def close(self) -> None:
        await self.store.close()
        self._bare.close()


class PostgresGround:
    def __init__(self, server: PostgresServer) -> None:
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self.store = open_store(server.new_migrated_database())
        self.loop.run_until_complete(self._open(server.new_migrated_database()))

    async def _open(self, floor_url: str) -> None:
        await self.store.open()
        self._bare = await asyncpg.connect(floor_url)

    async def floor(self, rows: list[AttemptRow]) -> None:
        await self._bare.fetch(POSTGRES_FLOOR, *zip(*map(attempt_values, rows), strict=True))

    async def close(self) -> None:
        await self.store.close()
        await self._bare.close()


class MySqlGround:
    """Its floor blocks the loop: two statements and no thread."""

    def __init__(self, server: MySqlServer) -> None:
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self.store = open_store(server.new_migrated_database())
        self.loop.run_until_complete(self.store.open())
        database = server.new_migrated_database().rpartition("/")[2]
        self._bare = pymysql.connect(
            host="127.0.0.1", port=server.port, user=USER, password=PASSWORD, database=database, charset="utf8mb4"
        )

    async def floor(self, rows: list[AttemptRow]) -> None:
        with self._bare.cursor() as cursor:
            cursor.executemany(MYSQL_FLOOR, list(map(attempt_values, rows)))
        self._bare.commit()

    async def close(self) -> None:
        await self.store.close()
        self._bare.close()


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ground]:
    ground: Ground
    if request.param == "sqlite":
        ground = SqliteGround(tmp_path)
    elif request.param == "mysql":
        ground = MySqlGround(request.getfixturevalue("mysql_server"))
    else:
        ground = PostgresGround(request.getfixturevalue("postgres_server"))
    ground.loop.run_until_complete(submit(ground.store, run(RUN)))
    yield ground
    ground.loop.run_until_complete(ground.close())
    ground.loop.close()


class Tasks:
    """Attempts nobody has written yet, dispatched in one commit and settled in the next."""

    def __init__(self) -> None:
        self._next = 0

    def turns(self, commits: int, size: int) -> list[list[AttemptRow]]:
        turns = []
        for _ in range(commits // 2):
            tasks = range(self._next, self._next + size)
            self._next += size
            turns.append([attempt(RUN, task) for task in tasks])
            turns.append([attempt(RUN, task, state=AttemptState.SUCCEEDED, ended_at=1.7e9) for task in tasks])
        return turns


def work(ground: Ground, tasks: Tasks, size: int, commit: Commit) -> Work:
    async def commit_all(turns: list[list[AttemptRow]]) -> None:
        for rows in turns:
            await commit(rows)

    def prepare() -> Callable[[], Any]:
        turns = tasks.turns(COMMITS[size], size)
        return lambda: ground.loop.run_until_complete(commit_all(turns))

    return prepare


def rows_committed_together(beside: Callable[..., None], ground: Ground, size: int) -> None:
    async def commit(rows: list[AttemptRow]) -> None:
        keys = {(row.run_id, row.task, row.attempt): row for row in rows}
        await ground.store.commit(Batch(ME, attempts=keys, epochs={RUN: 1}))

    ours, floor = work(ground, Tasks(), size, commit), work(ground, Tasks(), size, ground.floor)
    beside(COMMITS[size] * size, ours, floor=floor)


@pytest.mark.parametrize("size", COMMITS)
def test_rows_committed_together(beside: Callable[..., None], ground: Ground, size: int) -> None:
    rows_committed_together(beside, ground, size)


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("size", COMMITS)
def test_processor_time_of_rows_committed_together(beside: Callable[..., None], ground: Ground, size: int) -> None:
    """Of this process, without waiting for the disk: both threads and SQLite itself, or the client of PostgreSQL."""
    rows_committed_together(beside, ground, size)


def test_submits_committed_one_by_one(beside: Callable[..., None], ground: Ground) -> None:
    """A whole life of a one-task run: submitted and dispatched, then settled and ended; two commits, five rows."""
    ids = iter(range(10_000_000))

    async def live(run_ids: list[int]) -> None:
        for run_id in run_ids:
            row = run(run_id, idempotency_key=f"key {run_id}")
            await ground.store.commit(batch(new=(row,), attempts=(attempt(run_id),)))
            await ground.store.commit(batch(changed=(ended_row(row),), attempts=(attempt(run_id),)))

    def prepare() -> Callable[[], Any]:
        run_ids = [1_000 + next(ids) for _ in range(LIVES)]
        return lambda: ground.loop.run_until_complete(live(run_ids))

    beside(LIVES, prepare)


def ended_row(row: RunRow) -> RunRow:
    row.owner = None
    return row


def test_attempts_read_back_by_a_claim(beside: Callable[..., None], ground: Ground) -> None:
    """Per attempt of a run of 100,000, which the loop must not stand still for."""
    rows = tuple(attempt(RUN, task) for task in range(CLAIMED))
    ground.loop.run_until_complete(ground.store.commit(batch(attempts=rows)))
    owners = [ME, OTHER]

    def claim() -> None:
        owners.reverse()
        (taken,) = ground.loop.run_until_complete(ground.store.claim(owners[0], {owners[0]}, lambda _: True))
        assert len(taken.attempts) == CLAIMED

    beside(CLAIMED, lambda: claim)


def test_hops_to_the_writer_thread(beside: Callable[..., None]) -> None:
    loop = uvloop.new_event_loop()
    thread, executor = DedicatedThread("hops"), ThreadPoolExecutor(1)

    async def ours() -> None:
        for _ in range(HOPS):
            await thread.call(int)

    async def theirs() -> None:
        for _ in range(HOPS):
            await loop.run_in_executor(executor, int)

    beside(
        HOPS,
        lambda: lambda: loop.run_until_complete(ours()),
        run_in_executor=lambda: lambda: loop.run_until_complete(theirs()),
    )
    thread.stop()
    executor.shutdown()
    loop.close()
