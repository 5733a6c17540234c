"""What a question or a commit costs does not grow with history: counted in rows read and in steps of the machine.

Counting says more than reading plans does: a plan that walks an index from end to end looks just like one that
reads fifty entries of it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from dsfast.model import RunState
from dsfast.rows import Batch
from dsfast.store import migrations, open_store
from dsfast.store import sqlite as sqlite_store
from dsfast.store.base import Store
from tests.servers.mysql import MySqlServer
from tests.store_rows import DEFINITION, ME, attempt, batch, run, submit

LARGE, SMALL = 20_000, 2_000  # runs in history
FEW, MANY = 300, 5_000  # attempts of a run, before statistics were taken and after
DEADLINE_SECONDS = 20.0

# Oldest first: ten unfinished runs of a dead owner, seventy that failed, seventy of a rare workflow; then the rest.
FILL = """
    INSERT INTO runs (id, workflow, digest, state, owner, epoch, priority, params, created_at, reason, tasks,
                      idempotency_key)
    SELECT n, CASE WHEN n BETWEEN 81 AND 150 THEN 'rare' ELSE {w} END, '{digest}',
           CASE WHEN n <= 10 THEN 1 WHEN n <= 80 THEN 6 ELSE 7 END,
           CASE WHEN n <= 10 THEN 'dead@1' END, 1, 2, '{{}}', 0, '', 2, {key}
    FROM ({numbers}) AS numbers;
    INSERT INTO attempts (run_id, task, attempt, state, reason)
    SELECT n, task, 1, 7, '' FROM ({numbers}) AS numbers, (SELECT 0 AS task UNION SELECT 1) AS tasks"""
JOINED = {"w": "'w' || n % 10", "key": "'key ' || n"}
POSTGRES_NUMBERS = "SELECT generate_series(1, {last}) AS n"
SQLITE_NUMBERS = (
    "WITH RECURSIVE each (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM each WHERE n < {last}) SELECT n FROM each"
)

SOME = (RunState.RUNNING, RunState.FAILED, RunState.SUCCEEDED)

Question = Callable[[Store, int], Awaitable[Any]]
QUESTIONS: dict[str, Question] = {  # of a store and a run in the later part of its history
    "first page": lambda store, _: store.runs(),
    "a later page": lambda store, late: store.runs(before=late),
    "a workflow": lambda store, late: store.runs(workflow="w5", before=late),
    "a rare workflow": lambda store, late: store.runs(workflow="rare", before=late),
    "a rare workflow in some states": lambda store, late: store.runs(workflow="rare", states=SOME, before=late),
    "a rare state": lambda store, late: store.runs(states=[RunState.FAILED], before=late),
    "a live state": lambda store, _: store.runs(states=[RunState.RUNNING]),
    "live states": lambda store, late: store.runs(states=[RunState.RUNNING, RunState.SUBMITTED], before=late),
    "many states": lambda store, late: store.runs(states=tuple(RunState), before=late),
    "one run": lambda store, late: store.run(late),
    "its attempts": lambda store, late: store.attempts(late),
    "one task": lambda store, late: store.attempts(late, task=1),
    "a key": lambda store, late: store.find_key(f"key {late}"),
    "what is owned": lambda store, _: store.owned("dead@1"),
    "counts of a page": lambda store, late: store.counts(range(late, late + 50)),
    "a definition": lambda store, _: store.definition(DEFINITION.digest),
}


async def do_everything_a_master_does(store: Store, first: int) -> None:
    """Submit, dispatch, settle and take over, with new ids from `first`."""
    new = tuple(run(first + n, idempotency_key=f"new {first + n}") for n in range(5))
    await submit(store, *new, attempts=tuple(attempt(row.id) for row in new))
    await store.commit(batch(changed=new, attempts=tuple(attempt(row.id, 1) for row in new)))
    await store.commit(batch(new=(run(first + 9, idempotency_key=f"new {first}"),)))
    await store.commit(Batch(ME, definitions=[DEFINITION]))
    await store.claim(ME, {ME}, lambda _: True)


# --- PostgreSQL -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def raw(postgres_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()


async def rows_read(raw: Any) -> int:
    """Rows and index entries this database has read, once every other connection to it has reported and gone."""
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await raw.fetchval(others):  # noqa: ASYNC110 - the server tells nobody when a connection has ended
            await asyncio.sleep(0.01)
    tables = await raw.fetchval("SELECT sum(seq_tup_read) + sum(idx_tup_fetch) FROM pg_stat_user_tables")
    entries = await raw.fetchval("SELECT sum(idx_tup_read) FROM pg_stat_user_indexes")
    return int(tables or 0) + int(entries or 0)


async def fill(raw: Any) -> None:
    await raw.execute(FILL.format(**JOINED, digest=DEFINITION.digest, numbers=POSTGRES_NUMBERS.format(last=LARGE)))


async def test_questions_to_postgresql_read_little(postgres_url: str, raw: Any) -> None:
    store = open_store(postgres_url)
    await store.open()
    await store.commit(Batch(ME, definitions=[DEFINITION]))
    await store.close()
    await fill(raw)
    await raw.execute("ANALYZE")
    for name, question in QUESTIONS.items():
        before = await rows_read(raw)
        await store.open()
        assert await question(store, LARGE * 3 // 4), name
        await store.close()
        read = await rows_read(raw) - before
        assert read < 1_000, f"{name}: {read} rows"


async def test_plans_made_on_empty_tables_stay_good_on_full_ones(postgres_url: str, raw: Any) -> None:
    """A master that starts with its cluster uses the plans of that day for as long as it lives."""
    await raw.execute("ANALYZE")  # statistics that say: there is nothing in here
    store = open_store(postgres_url)
    await store.open()
    for turn in range(10):
        await do_everything_a_master_does(store, LARGE + 1 + 10 * turn)
    await fill(raw)
    for turn in range(10, 20):
        await do_everything_a_master_does(store, LARGE + 1 + 10 * turn)
    await store.close()
    read = await rows_read(raw)
    assert read < LARGE, f"twenty turns: {read} rows"


async def test_counts_of_a_run_that_statistics_know_nothing_of_read_it_once(postgres_url: str, raw: Any) -> None:
    """Statistics are from before the run: what looks cheapest for a handful of attempts is quadratic for thousands."""
    store = open_store(postgres_url)
    await store.open()
    await submit(store, run(1), attempts=tuple(attempt(1, task) for task in range(FEW)))
    await raw.execute("ANALYZE")
    await submit(store, run(2), attempts=tuple(attempt(2, task) for task in range(MANY)))
    await store.close()
    before = await rows_read(raw)
    await store.open()
    assert sum((await store.counts([2]))[2].values()) == MANY
    await store.close()
    read = await rows_read(raw) - before
    assert read < 4 * MANY, f"{read} rows"


# --- MySQL ----------------------------------------------------------------------------------------------------------


MYSQL_JOINED = {"w": "concat('w', n % 10)", "key": "concat('key ', n)"}
MYSQL_NUMBERS = "SELECT seq AS n FROM seq_1_to_{last}"


def mysql_rows_read(server: MySqlServer) -> int:
    """Rows and index entries that the server has read in all."""
    counted = server.sql("SHOW GLOBAL STATUS LIKE 'Handler_read%'")
    return sum(int(value) for name, value in counted if name in MYSQL_READS)


MYSQL_READS = {f"Handler_read_{kind}" for kind in ("first", "key", "last", "next", "prev", "rnd", "rnd_next")}


async def test_nothing_on_mysql_reads_much(mysql_server: MySqlServer, mysql_url: str) -> None:
    """Questions, and what a master does; before them, plans have been made while the tables were empty."""
    store = open_store(mysql_url)
    await store.open()
    await do_everything_a_master_does(store, LARGE + 1)
    numbers = MYSQL_NUMBERS.format(last=LARGE)
    for statement in FILL.format(**MYSQL_JOINED, digest=DEFINITION.digest, numbers=numbers).split(";"):
        mysql_server.sql(statement, mysql_url)
    mysql_server.sql("ANALYZE TABLE runs, attempts", mysql_url)
    for name, question in QUESTIONS.items():
        before = mysql_rows_read(mysql_server)
        assert await question(store, LARGE * 3 // 4), name
        read = mysql_rows_read(mysql_server) - before
        assert read < 1_500, f"{name}: {read} rows"
    before = mysql_rows_read(mysql_server)
    for turn in range(1, 10):
        await do_everything_a_master_does(store, LARGE + 1 + 10 * turn)
    await store.close()
    read = mysql_rows_read(mysql_server) - before
    assert read < LARGE, f"nine turns: {read} rows"


# --- SQLite ---------------------------------------------------------------------------------------------------------


class Steps:
    """Counts what the virtual machines of all connections do, in tens of instructions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        original = sqlite_store.connect

        def connect(path: Path, mode: str) -> sqlite3.Connection:
            connection = original(path, mode)
            connection.set_progress_handler(self._tick, 10)
            return connection

        monkeypatch.setattr(sqlite_store, "connect", connect)

    def _tick(self) -> int:
        self.count += 1
        return 0

    async def of(self, work: Awaitable[Any]) -> int:
        before = self.count
        await work
        return self.count - before


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


async def filled(path: Path, runs: int) -> Store:
    url = f"sqlite:///{path}"
    await asyncio.to_thread(migrations.upgrade, url)
    connection = sqlite3.connect(path)
    connection.executescript(FILL.format(**JOINED, digest=DEFINITION.digest, numbers=SQLITE_NUMBERS.format(last=runs)))
    connection.close()
    store = open_store(url)
    await store.open()
    await store.commit(Batch(ME, definitions=[DEFINITION]))
    return store


async def test_nothing_on_sqlite_takes_longer_with_a_longer_history(tmp_path: Path, steps: Steps) -> None:
    cost: dict[str, list[int]] = {name: [] for name in [*QUESTIONS, "a master's turns"]}
    for runs in (SMALL, LARGE):
        store = await filled(tmp_path / f"{runs}.db", runs)
        for name, question in QUESTIONS.items():
            await question(store, runs * 3 // 4)  # the first opens a connection
            cost[name].append(await steps.of(question(store, runs * 3 // 4)))
        cost["a master's turns"].append(await steps.of(do_everything_a_master_does(store, runs + 10)))
        await store.close()
    for name, (small, large) in cost.items():
        assert large <= 1.2 * small + 20, f"{name}: {small} with {SMALL} runs, {large} with {LARGE}"
