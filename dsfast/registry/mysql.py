"""The roster in a MySQL or MariaDB table: a cluster that has this database and no ZooKeeper.

Leases are times on the server's clock; a member only says for how long. The server cannot tell anybody of a change, so
members look every LOOK_SECONDS. Every statement is a transaction of its own: nobody holds one row and waits for
another. All of it runs in one thread, on one connection of its own, so that a crowded pool can never cost a lease.

The table is created on demand and is no part of the store's migrations: it may live in another database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import pymysql
from pymysql.err import MySQLError

from dsfast.errors import Unavailable, UsageError
from dsfast.model import Member
from dsfast.registry.roster import View, encode

LOOK_SECONDS = 0.3  # how late a join or leave may be seen; a look costs either side a tenth of a millisecond
WAITS_PER_LEASE = 4  # an answer is waited for this part of the lease: less than a turn may take
CLOSE_SECONDS_MAX = 1.0  # how long a shutdown waits for the server to see us off
REFUSED = {1044, 1045, 1049, 1130, 1142, 1227, 1251, 1290, 1698, 1836}  # user, rights, no such database, read-only

SCHEMA = """
CREATE TABLE IF NOT EXISTS dsfast_members (
    cluster VARCHAR(64) NOT NULL, id VARCHAR(255) NOT NULL, role VARCHAR(32) NOT NULL, name VARCHAR(255) NOT NULL,
    boot VARCHAR(255) NOT NULL, body MEDIUMBLOB NOT NULL, lease_until DATETIME(6) NOT NULL, PRIMARY KEY (cluster, id)
) ENGINE InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
"""
KNOWN = "SELECT 1 FROM information_schema.tables WHERE table_schema = database() AND table_name = 'dsfast_members'"
END = "UTC_TIMESTAMP(6) + INTERVAL %(microseconds)s MICROSECOND"
LIVE = "lease_until > UTC_TIMESTAMP(6)"
EXTEND = f"""
UPDATE dsfast_members SET lease_until = {END} WHERE cluster = %(cluster)s AND id = %(id)s AND body = %(body)s AND {LIVE}
"""  # noqa: S608
PUT = f"""
REPLACE INTO dsfast_members (cluster, id, role, name, boot, body, lease_until)
VALUES (%(cluster)s, %(id)s, %(role)s, %(name)s, %(boot)s, %(body)s, {END})
"""  # noqa: S608
SWEEP = f"DELETE FROM dsfast_members WHERE cluster = %(cluster)s AND NOT {LIVE}"  # noqa: S608
LIST = f"""
SELECT body, TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(6), lease_until) / 1e6 FROM dsfast_members
WHERE cluster = %(cluster)s AND {LIVE}
"""  # noqa: S608
REMOVE = "DELETE FROM dsfast_members WHERE cluster = %(cluster)s AND id = %(id)s"

T = TypeVar("T")


class MysqlRoster:
    """Implements `Roster`. `place` is the address as it may be shown to people, `arguments` are PyMySQL's."""

    def __init__(self, arguments: Mapping[str, Any], place: str, cluster: str, session_seconds: float) -> None:
        self.lease_seconds = session_seconds
        self._arguments = arguments
        self._place = place
        self._cluster = cluster
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dsfast-registry")
        self._connection: Any = None

    def attach(self, wake: Callable[[], None]) -> None:
        """Nobody can wake us: `View.look_in` stands in for it."""

    async def renew(self, member: Member) -> View:
        """See `Roster.renew`."""
        return await self._run(lambda cursor: self._renew(cursor, member))

    async def look(self, member: Member | None) -> View:
        """See `Roster.look`."""
        return await self._run(lambda cursor: self._look(cursor, member))

    async def remove(self, member: Member) -> None:
        """See `Roster.remove`."""
        await self._run(lambda cursor: cursor.execute(REMOVE, self._values(member)))

    async def close(self) -> None:
        """See `Roster.close`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS_MAX):
                await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)

    async def _run(self, step: Callable[[Any], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._attempt, step)

    # From here on everything runs in the roster's thread.

    def _attempt(self, step: Callable[[Any], T]) -> T:
        if self._connection is not None:
            with suppress(Unavailable):  # it may have been cut while it was idle: that is no outage yet
                return self._try(step)
        return self._try(step)

    def _try(self, step: Callable[[Any], T]) -> T:
        try:
            with self._connect().cursor() as cursor:
                return step(cursor)
        except (OSError, MySQLError) as error:
            self._disconnect()
            if error.args and error.args[0] in REFUSED:
                raise UsageError(f"the registry's MySQL at {self._place} refuses us: {error}") from error
            raise Unavailable(f"the registry's MySQL at {self._place} is out of reach: {error}") from error

    def _connect(self) -> Any:
        if self._connection is None:
            wait = self.lease_seconds / WAITS_PER_LEASE
            waits = {"connect_timeout": wait, "read_timeout": wait, "write_timeout": wait}
            self._connection = pymysql.connect(**self._arguments, **waits, charset="utf8mb4", autocommit=True)
            with self._connection.cursor() as cursor:
                cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")  # locks no gaps
                if cursor.execute(KNOWN) == 0:
                    cursor.execute(SCHEMA)
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(OSError, MySQLError):
                connection.close()

    def _renew(self, cursor: Any, member: Member) -> View:
        values = self._values(member)
        kept = cursor.execute(EXTEND, values) == 1
        if not kept:
            cursor.execute(PUT, values)
        cursor.execute(SWEEP, values)
        return self._list(cursor, kept)

    def _look(self, cursor: Any, member: Member | None) -> View:
        view = self._list(cursor, kept=True)
        return view if member is None or encode(member) in view.bodies else replace(view, kept=False)

    def _list(self, cursor: Any, kept: bool) -> View:
        cursor.execute(LIST, {"cluster": self._cluster})
        rows = cursor.fetchall()
        return View(tuple(body for body, _ in rows), kept, min([LOOK_SECONDS, *(seconds for _, seconds in rows)]))

    def _values(self, member: Member) -> dict[str, str | bytes | int]:
        return {
            "cluster": self._cluster,
            "id": member.id,
            "role": member.role,
            "name": member.name,
            "boot": member.boot,
            "body": encode(member),
            "microseconds": round(self.lease_seconds * 1e6),
        }
