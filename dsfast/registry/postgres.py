"""The roster in a PostgreSQL table: a cluster that has a database and no ZooKeeper.

Leases are times on the server's clock; a member only says for how long. Joins, leaves and expiries are announced
with NOTIFY in the transaction that makes them, so others see them in milliseconds; renewals are not announced.
A lease that ends by itself is seen at that moment by everyone, because `View.look_in` ends with the first lease.

One connection of its own, so that a crowded pool can never cost a lease. (LISTEN does not pass through a pooler
in transaction mode; behind one, changes are seen at the next renewal instead, a third of a session later.)

The table is created on demand and is no part of the store's migrations: it may live in another database.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import asyncpg

from dsfast.errors import Unavailable, UsageError
from dsfast.model import Member
from dsfast.registry.roster import View, encode

CHANNEL = "dsfast_members"
SCHEMA_LOCK = 0x647366617374  # "dsfast": two daemons that create the table at once would collide in the catalogue
LOOK_AFTER_END_SECONDS = 0.005  # a lease's end is looked at a little late rather than twice
CLOSE_SECONDS_MAX = 1.0  # how long a shutdown waits for the server to see us off

SCHEMA = """
CREATE TABLE IF NOT EXISTS dsfast_members (
    cluster text NOT NULL, id text NOT NULL, role text NOT NULL, name text NOT NULL, boot text NOT NULL,
    body text NOT NULL, lease_until timestamptz NOT NULL, PRIMARY KEY (cluster, id)
)
"""
EXTEND = """
UPDATE dsfast_members SET lease_until = clock_timestamp() + make_interval(secs => $4)
WHERE cluster = $1 AND id = $2 AND body = $3 AND lease_until > clock_timestamp()
"""
PUT = """
INSERT INTO dsfast_members (cluster, id, body, lease_until, role, name, boot)
VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4), $5, $6, $7)
ON CONFLICT (cluster, id) DO UPDATE SET body = excluded.body, lease_until = excluded.lease_until
"""
# Two members may sweep at once, each holding its own row: rows that somebody holds are left to him, or they deadlock.
SWEEP = """
DELETE FROM dsfast_members WHERE (cluster, id) IN (
    SELECT cluster, id FROM dsfast_members WHERE cluster = $1 AND lease_until <= clock_timestamp()
    FOR UPDATE SKIP LOCKED
)
"""
LIST = """
SELECT body, extract(epoch FROM lease_until)::float8 - extract(epoch FROM clock_timestamp())::float8 AS seconds
FROM dsfast_members WHERE cluster = $1 AND lease_until > clock_timestamp()
"""
REMOVE = "DELETE FROM dsfast_members WHERE cluster = $1 AND id = $2"
REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ReadOnlySQLTransactionError,
)
# The last one is how asyncpg takes a connection that the server closed between two of its statements.
BROKEN = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

T = TypeVar("T")


class PostgresRoster:
    """Implements `Roster`. `place` is the address as it may be shown to people: without the password."""

    def __init__(self, dsn: str, place: str, cluster: str, session_seconds: float) -> None:
        self.lease_seconds = session_seconds
        self._dsn = dsn
        self._place = place
        self._cluster = cluster
        self._connection: asyncpg.Connection | None = None
        self._wake: Callable[[], None]

    def attach(self, wake: Callable[[], None]) -> None:
        """See `Roster.attach`."""
        self._wake = wake

    async def renew(self, member: Member) -> View:
        """See `Roster.renew`."""
        return await self._run(lambda connection: self._renew(connection, member))

    async def look(self, member: Member | None) -> View:
        """See `Roster.look`."""
        return await self._run(lambda connection: self._look(connection, member))

    async def remove(self, member: Member) -> None:
        """See `Roster.remove`."""
        await self._run(lambda connection: self._remove(connection, member))

    async def close(self) -> None:
        """See `Roster.close`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*BROKEN):
                await connection.close(timeout=CLOSE_SECONDS_MAX)

    async def _run(self, step: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        if self._connection is not None:
            with suppress(Unavailable):  # it may have been cut while it was idle: that is no outage yet
                return await self._try(step)
        return await self._try(step)

    async def _try(self, step: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        try:
            return await step(await self._connect())
        except BaseException as error:  # also when cancelled: what the connection is in the middle of is unknown
            self._disconnect()
            if isinstance(error, REFUSED):
                raise UsageError(f"the registry's PostgreSQL at {self._place} refuses us: {error}") from error
            if isinstance(error, BROKEN):
                raise Unavailable(f"the registry's PostgreSQL at {self._place} is out of reach: {error}") from error
            raise

    async def _connect(self) -> asyncpg.Connection:
        if self._connection is None:
            self._connection = connection = await self._dial()
            connection.add_termination_listener(self._on_closed)
            if await connection.fetchval("SELECT to_regclass('dsfast_members')") is None:
                await self._create(connection)
            await connection.add_listener(CHANNEL, self._on_notice)
        return self._connection

    async def _dial(self) -> asyncpg.Connection:
        settings = {"application_name": "dsfast registry"}
        try:  # without a statement cache: prepared statements do not survive a pooler, and nothing here is hot
            return await asyncpg.connect(self._dsn, statement_cache_size=0, server_settings=settings)
        except ValueError:  # asyncpg's sentence quotes the URL, and with it perhaps a password
            raise UsageError(f"the registry's PostgreSQL URL (…@{self._place}) cannot be read") from None

    async def _create(self, connection: asyncpg.Connection) -> None:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", SCHEMA_LOCK)
            await connection.execute(SCHEMA)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    def _on_closed(self, connection: asyncpg.Connection) -> None:
        if connection is self._connection:
            self._wake()

    def _on_notice(self, connection: asyncpg.Connection, sender: int, channel: str, payload: object) -> None:
        if self._connection is None or connection is not self._connection:
            return  # it was given up with notices on their way, and knows nothing any more
        if payload == self._cluster and sender != connection.get_server_pid():
            self._wake()

    async def _renew(self, connection: asyncpg.Connection, member: Member) -> View:
        key = (self._cluster, member.id, encode(member).decode(), self.lease_seconds)
        async with connection.transaction():
            kept = await connection.execute(EXTEND, *key) != "UPDATE 0"
            if not kept:
                await connection.execute(PUT, *key, member.role, member.name, member.boot)
            swept = await connection.execute(SWEEP, self._cluster) != "DELETE 0"
            if swept or not kept:
                await self._announce(connection)
            return await self._list(connection, kept)

    async def _look(self, connection: asyncpg.Connection, member: Member | None) -> View:
        view = await self._list(connection, kept=True)
        return view if member is None or encode(member) in view.bodies else replace(view, kept=False)

    async def _remove(self, connection: asyncpg.Connection, member: Member) -> None:
        async with connection.transaction():
            await connection.execute(REMOVE, self._cluster, member.id)
            await self._announce(connection)

    async def _announce(self, connection: asyncpg.Connection) -> None:
        await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, self._cluster)

    async def _list(self, connection: asyncpg.Connection, kept: bool) -> View:
        rows = await connection.fetch(LIST, self._cluster)
        bodies = tuple(row["body"].encode() for row in rows)
        first_end = min((row["seconds"] for row in rows), default=math.inf)
        return View(bodies, kept, first_end + LOOK_AFTER_END_SECONDS)
