"""What only the embedded store does: one master per file, plain sentences about files, and survival of kill -9."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from dsfast.errors import DsfastError, Unavailable, UsageError
from dsfast.rows import Committed
from dsfast.store import open as open_module
from dsfast.store import open_store
from dsfast.store import sqlite as sqlite_store
from dsfast.store.open import plain_url
from dsfast.store.sqlite import SqliteStore, database_path
from tests.store_rows import ME, attempt, batch, run, submit

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def put(path: Path, text: str) -> None:
    path.write_text(text)


def log_bytes(path: Path) -> int:
    return os.stat(f"{path}-wal").st_size


async def created(path: Path) -> SqliteStore:
    store = SqliteStore(url(path), create=True)
    await store.open()
    return store


async def refusal(path: Path, **options: bool) -> str:
    """The sentence with which a file is refused."""
    store = open_store(url(path), **options)
    with pytest.raises(DsfastError) as caught:
        await store.open()
    return f"{type(caught.value).__name__}: {caught.value}"


# --- who may open the file ------------------------------------------------------------------------------------------


async def test_a_second_master_is_refused_and_told_who_has_the_file(path: Path) -> None:
    first = await created(path)
    sentence = await refusal(path)
    assert sentence.startswith("UsageError")
    assert f"in use by pid {os.getpid()} on " in sentence
    assert "PostgreSQL or MySQL" in sentence
    await first.close()
    second = await created(path)
    await second.close()


async def test_a_master_reached_by_another_name_is_the_same_master(path: Path, tmp_path: Path) -> None:
    first = await created(path)
    (tmp_path / "link.db").symlink_to(path)
    assert "in use by pid" in await refusal(tmp_path / "link.db")
    await first.close()


async def test_short_runs_share_the_file_but_not_with_a_master(path: Path) -> None:
    shared = [open_store(url(path), create=True, shared=True) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in shared))  # the file is made by one of them
    for number, store in enumerate(shared, 1):
        assert await submit(store, run(number)) == Committed()
    assert "in use by pid" in await refusal(path)
    for store in shared:
        await store.close()
    master = await created(path)
    assert "in use by pid" in await refusal(path, shared=True)
    await master.close()


async def test_a_reader_follows_a_master_at_work(path: Path) -> None:
    master = await created(path)
    reader = open_store(url(path), exclusive=False)
    await reader.open()
    for number in range(1, 4):
        await submit(master, run(number))
        assert [row.id for row in await reader.runs()] == list(range(number, 0, -1))
    await master.close()
    assert await reader.run(2) == run(2)
    await reader.close()


# --- what is wrong with the file ------------------------------------------------------------------------------------


async def test_a_file_that_is_absent_is_not_made_by_accident(path: Path) -> None:
    for options in ({}, {"exclusive": False}):
        assert "dsfast db upgrade" in await refusal(path, **options)
    assert list(path.parent.iterdir()) == []


async def test_a_file_is_made_for_its_owner_only(path: Path) -> None:
    store = await created(path / "deeper" / "runs.db")
    await submit(store, run(1))
    for each in (path / "deeper").iterdir():
        assert each.stat().st_mode & 0o077 == 0, each
    await store.close()


async def test_a_file_that_is_no_database_is_a_sentence(path: Path) -> None:
    put(path, "just some text, long enough to be taken for a page" * 100)
    assert await refusal(path) == f"Unavailable: {path}: the file is not a SQLite database"


async def test_a_database_of_somebody_else_is_left_alone(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE runs (theirs INTEGER)")
    connection.close()
    assert "no dsfast tables" in await refusal(path, create=True)


async def test_a_directory_that_is_a_file_is_a_sentence(path: Path) -> None:
    put(path, "")
    assert "cannot be used as a database" in await refusal(path / "deeper.db", create=True)


async def test_a_full_disk_is_a_sentence_and_passes(path: Path) -> None:
    store = await created(path)
    await submit(store, run(1))
    assert store._on_loop is not None
    store._on_loop.execute("PRAGMA max_page_count = 20")  # SQLite's own full disk
    large = batch(attempts=tuple(attempt(1, task, outputs=b"x" * 100_000) for task in range(5)))
    with pytest.raises(Unavailable, match="disk is full"):
        await store.commit(large)
    assert await store.attempts(1) == []
    store._on_loop.execute("PRAGMA max_page_count = 100000")
    assert await store.commit(large) == Committed()
    await store.close()


async def test_a_commit_that_holds_the_loop_for_long_sends_the_next_ones_to_the_thread(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await created(path)
    await submit(store, run(1))
    assert store._on_loop_from == 0.0
    monkeypatch.setattr(sqlite_store, "LOOP_HELD_SECONDS_MAX", 0.0)
    assert await store.commit(batch(attempts=(attempt(1, 0),))) == Committed()
    assert store._on_loop is not None
    store._on_loop.close()  # whoever commits on the loop now fails
    assert await store.commit(batch(attempts=(attempt(1, 1),))) == Committed()
    assert [row.task for row in await store.attempts(1)] == [0, 1]
    await store.close()


async def test_a_master_finds_its_log_at_its_full_length_and_what_was_committed_before_a_crash_in_it(
    path: Path, tmp_path: Path
) -> None:
    store = await created(path)
    await submit(store, run(1))
    assert log_bytes(path) == sqlite_store.WAL_BYTES
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{tmp_path / 'crashed'}{suffix}")
    await store.close()
    again = await created(tmp_path / "crashed")
    assert await again.owned(ME) == [1]
    await again.close()


async def test_short_runs_find_a_shorter_log_and_do_not_lengthen_it_for_each_other(path: Path) -> None:
    stores = [SqliteStore(f"sqlite:///{path}", create=True, exclusive=False, shared=True) for _ in range(2)]
    for store in stores:
        await store.open()
        assert log_bytes(path) == sqlite_store.SHORT_WAL_BYTES
    await submit(stores[0], run(1))
    assert await stores[1].owned(ME) == [1]
    for store in stores:
        await store.close()


async def test_a_log_is_not_reserved_on_a_disk_that_is_nearly_full(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "WAL_ROOM", 1 << 40)
    store = await created(path)
    assert log_bytes(path) < sqlite_store.WAL_BYTES
    await store.close()


async def test_a_lock_that_another_program_keeps_is_a_sentence_and_passes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "LOCK_WAIT_SECONDS", 0.05)
    store = await created(path)
    shell = sqlite3.connect(path, isolation_level=None)
    shell.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"):
        await submit(store, run(1))
    shell.execute("ROLLBACK")
    shell.close()
    assert await submit(store, run(1)) == Committed()
    await store.close()


@pytest.mark.parametrize(
    "text",
    ["sqlite://host/runs.db", "sqlite:///:memory:", "sqlite:runs.db", "sqlite://", "sqlite:///", "sqlite:///a?b=1"],
)
def test_urls_without_a_file_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no SQLite database"):
        open_store(text)


def test_urls_are_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert database_path(f"sqlite:///{tmp_path}/a%20b.db") == tmp_path / "a b.db"
    assert database_path("sqlite:///runs.db") == tmp_path / "runs.db"
    assert database_path("sqlite:////runs.db") == Path("/runs.db")


def test_other_urls_are_refused() -> None:
    with pytest.raises(UsageError, match="no store is known for 'mongodb'"):
        open_store("mongodb://localhost")


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql"])
def test_mysql_may_be_spelled_in_four_ways(scheme: str) -> None:
    assert plain_url(f"{scheme}://me:secret@db/runs") == "mysql://me:secret@db/runs"


def test_a_missing_driver_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_module, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'dsfast\[mysql\]'"):
        open_store("mysql://me@db/runs")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_postgresql_may_be_spelled_in_three_ways(scheme: str) -> None:
    assert plain_url(f"{scheme}://me:secret@db/runs") == "postgresql://me:secret@db/runs"


# --- durability and cost --------------------------------------------------------------------------------------------

WRITE_UNTIL_KILLED = """
import asyncio, sys
from dsfast.store import open_store
from tests.store_rows import ME, attempt, batch, run, submit

async def main():
    store = open_store(sys.argv[1], create=True)
    await store.open()
    await submit(store, run(1))
    for task in range(1_000_000):
        await store.commit(batch(attempts=(attempt(1, task), attempt(1, task, 2))))
        print(task, flush=True)

asyncio.run(main())
"""


def write_until_killed(path: Path) -> int:
    """Kill a writing process with signal 9; returns the last task whose commit it has heard the end of."""
    child = subprocess.Popen(
        [sys.executable, "-c", WRITE_UNTIL_KILLED, url(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    acknowledged = 0
    with child.stdout:
        for line in child.stdout:
            if line.endswith("\n"):
                acknowledged = int(line)
            if acknowledged == 200:
                child.send_signal(signal.SIGKILL)
    child.wait()
    return acknowledged


async def test_what_was_acknowledged_survives_kill_9_and_nothing_is_half(path: Path) -> None:
    acknowledged = await asyncio.to_thread(write_until_killed, path)
    store = SqliteStore(url(path))
    await store.open()  # the lock went with the process
    found = [(row.task, row.attempt) for row in await store.attempts(1)]
    assert len(found) >= 2 * (acknowledged + 1)
    assert found == [(task, number) for task in range(len(found) // 2) for number in (1, 2)]
    await store.close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_a_master_on_sqlite_imports_neither_sqlalchemy_nor_alembic(path: Path) -> None:
    program = """
import asyncio, sys
from dsfast.rows import Batch
from dsfast.store import open_store

async def main():
    store = open_store(sys.argv[1], create=True)
    await store.open()
    await store.commit(Batch(owner="me"))
    await store.claim("me", {"me"}, bool)
    await store.close()

asyncio.run(main())
heavy = {"sqlalchemy", "alembic", "asyncpg"} & sys.modules.keys()
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program, url(path)], cwd=ROOT, check=True)
