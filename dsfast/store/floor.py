"""What a database does without dsfast: a lone durable commit by its bare driver, and how durable it is set to be."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from dsfast.store.open import plain_url, require_mysql_driver
from dsfast.store.sqlite import connect as connect_file
from dsfast.store.sqlite import create_file, database_path, errors_explained

TABLE = "dsfast_floor"  # made and dropped again; a temporary one would not be written to the log
VALUE = "x" * 100  # about as long as the row of an attempt
_CREATE = f"CREATE TABLE {TABLE} (k INTEGER PRIMARY KEY, v VARCHAR(100))"
_DROP = f"DROP TABLE IF EXISTS {TABLE}"


async def lone_commits(url: str, count: int) -> list[float]:
    """The seconds of so many commits of one row each, one after the other."""
    kind = plain_url(url).partition(":")[0]
    if kind == "sqlite":
        return _sqlite_commits(database_path(plain_url(url)).with_suffix(".floor"), count)
    return await _postgres_commits(url, count) if kind == "postgresql" else _mysql_commits(url, count)


async def durability(url: str) -> str:
    """The database's settings that decide whether a commit survives a power cut."""
    kind = plain_url(url).partition(":")[0]
    if kind == "sqlite":
        return f"SQLite {sqlite3.sqlite_version}, journal_mode=WAL, synchronous=FULL"
    return await _postgres_durability(url) if kind == "postgresql" else _mysql_durability(url)


def _sqlite_commits(path: Path, count: int) -> list[float]:
    """In a file beside the database, so on the same disk."""
    with errors_explained(path):
        create_file(path)
        with closing(connect_file(path, "rw")) as connection:
            connection.execute(_CREATE)
            insert = f"INSERT INTO {TABLE} VALUES (?, ?)"  # noqa: S608 - a name of ours
            seconds = [_timed(connection.execute, insert, (number, VALUE)) for number in range(count)]
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
    return seconds


def _timed(call: Any, *arguments: object) -> float:
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began


async def _postgres_commits(url: str, count: int) -> list[float]:
    from dsfast.store.postgres_link import connect, errors_explained, place_of

    with errors_explained(place_of(url)):
        connection = await connect(plain_url(url), {})
        try:
            await connection.execute(_DROP)
            await connection.execute(_CREATE)
            insert = await connection.prepare(f"INSERT INTO {TABLE} VALUES ($1, $2)")  # noqa: S608 - a name of ours
            seconds = []
            for number in range(count):
                began = time.perf_counter()
                await insert.fetch(number, VALUE)
                seconds.append(time.perf_counter() - began)
            await connection.execute(_DROP)
        finally:
            await connection.close()
    return seconds


async def _postgres_durability(url: str) -> str:
    from dsfast.store.postgres_link import connect, errors_explained, place_of

    with errors_explained(place_of(url)):
        connection = await connect(plain_url(url), {})
        try:
            names = ("server_version", "fsync", "synchronous_commit", "full_page_writes")
            version, *values = [await connection.fetchval(f"SHOW {name}") for name in names]
        finally:
            await connection.close()
    pairs = ", ".join(f"{name}={value}" for name, value in zip(names[1:], values, strict=True))
    return f"PostgreSQL {version.split()[0]}, {pairs}"


def _mysql_commits(url: str, count: int) -> list[float]:
    require_mysql_driver()
    from dsfast.store.mysql_link import cursor_of, parse

    insert = f"INSERT INTO {TABLE} VALUES (%s, %s)"  # noqa: S608 - a name of ours
    with cursor_of(parse(plain_url(url))) as cursor:
        cursor.execute(_DROP)
        cursor.execute(_CREATE)

        def commit(number: int) -> None:
            cursor.execute(insert, (number, VALUE))
            cursor.connection.commit()

        seconds = [_timed(commit, number) for number in range(count)]
        cursor.execute(_DROP)
    return seconds


def _mysql_durability(url: str) -> str:
    require_mysql_driver()
    from dsfast.store.mysql_link import cursor_of, parse

    with cursor_of(parse(plain_url(url))) as cursor:
        cursor.execute("SELECT @@version, @@innodb_flush_log_at_trx_commit, @@sync_binlog")
        version, flush, binlog = cursor.fetchone()
    return f"{version}, innodb_flush_log_at_trx_commit={flush}, sync_binlog={binlog}"
