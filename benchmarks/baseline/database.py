"""PostgreSQL for threads, one statement after the other, as the original's mappers send them over JDBC.

asyncpg is the driver that is at hand and the fastest there is; each connection has an event loop of its own that runs
only while its thread waits for an answer.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import uvloop

from benchmarks.baseline.calls import Calls

CONNECTIONS_MAX = 16  # per daemon: more threads than this never wait for PostgreSQL at once in one interpreter

Row = Any  # asyncpg's records: row["column"]


class Connection:
    """One connection, for one thread at a time."""

    def __init__(self, url: str, calls: Calls) -> None:
        self._calls = calls
        self._loop = uvloop.new_event_loop()
        self._connection = self._loop.run_until_complete(asyncpg.connect(url))

    def rows(self, sql: str, *values: Any) -> list[Row]:
        self._calls.sql()
        found: list[Row] = self._loop.run_until_complete(self._connection.fetch(sql, *values))
        return found

    def row(self, sql: str, *values: Any) -> Row | None:
        return next(iter(self.rows(sql, *values)), None)

    def execute(self, sql: str, *values: Any) -> None:
        self.rows(sql, *values)

    def bare(self, sql: str) -> None:
        """What frames a transaction, uncounted."""
        self._loop.run_until_complete(self._connection.execute(sql))

    def close(self) -> None:
        self._loop.run_until_complete(self._connection.close())
        self._loop.close()


class Database:
    """A pool of connections, made when needed."""

    def __init__(self, url: str, calls: Calls) -> None:
        self._url, self._calls = url, calls
        self._idle: list[Connection] = []
        self._room = threading.Semaphore(CONNECTIONS_MAX)

    def rows(self, sql: str, *values: Any) -> list[Row]:
        with self._connection() as connection:
            return connection.rows(sql, *values)

    def row(self, sql: str, *values: Any) -> Row | None:
        with self._connection() as connection:
            return connection.row(sql, *values)

    def execute(self, sql: str, *values: Any) -> None:
        self.rows(sql, *values)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        with self._connection() as connection:
            connection.bare("BEGIN")
            try:
                yield connection
            except BaseException:
                connection.bare("ROLLBACK")
                raise
            connection.bare("COMMIT")

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        with self._room:
            connection = self._idle.pop() if self._idle else Connection(self._url, self._calls)
            yield connection  # one that failed is not put back
            self._idle.append(connection)
