"""The roster in an SQLite file: a cluster on one machine without any server.

All members run on the machine that has the file (WAL needs that anyway), so leases are times on the machine's
monotonic clock, which its processes share: a step of the wall clock ends nobody's lease. It starts again at every
boot, so a lease also has a beginning: one that has not begun yet was written before the boot and is void.

The table is created on demand and is no part of the store's migrations, because it may live in a file of its own.
Nothing here needs to survive a power cut, but the file may be the store's: hence synchronous=NORMAL, which in WAL
mode costs no fsync per commit, and not OFF, which could let a checkpoint of ours tear the store's pages.

SQLite cannot tell other processes of a commit, so members look every LOOK_SECONDS, and a look is one PRAGMA as
long as nobody wrote. That is the one timer here, and it is not on any task's path.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import TypeVar

from dsfast.errors import Unavailable, UsageError
from dsfast.model import Member
from dsfast.registry.roster import View, encode

LOOK_SECONDS = 0.2  # how late a join or leave may be seen; a look that finds nothing takes some 50 microseconds
BUSY_PER_LEASE = 4  # a statement waits this part of the lease for other writers, less than a turn may take
CLOSE_SECONDS_MAX = 1.0  # how long a shutdown waits for the file to be closed properly
HOPELESS = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}

SCHEMA = """
CREATE TABLE IF NOT EXISTS dsfast_members (
    cluster TEXT NOT NULL, id TEXT NOT NULL, role TEXT NOT NULL, name TEXT NOT NULL, boot TEXT NOT NULL,
    body TEXT NOT NULL, lease_from REAL NOT NULL, lease_until REAL NOT NULL, PRIMARY KEY (cluster, id)
) WITHOUT ROWID
"""
LIVE = "lease_from <= :now AND lease_until > :now"
EXTEND = f"""
UPDATE dsfast_members SET lease_from = :now, lease_until = :now + :seconds
WHERE cluster = :cluster AND id = :id AND body = :body AND {LIVE}
"""  # noqa: S608
PUT = """
INSERT OR REPLACE INTO dsfast_members (cluster, id, role, name, boot, body, lease_from, lease_until)
VALUES (:cluster, :id, :role, :name, :boot, :body, :now, :now + :seconds)
"""
SWEEP = f"DELETE FROM dsfast_members WHERE cluster = :cluster AND NOT ({LIVE})"  # noqa: S608
LIST = f"SELECT body, CAST(lease_until AS REAL) FROM dsfast_members WHERE cluster = :cluster AND {LIVE}"  # noqa: S608
REMOVE = "DELETE FROM dsfast_members WHERE cluster = :cluster AND id = :id"

T = TypeVar("T")


class SqliteRoster:
    """Implements `Roster`. All SQL runs in one thread of its own, in the order it was asked for."""

    def __init__(self, path: str, cluster: str, session_seconds: float) -> None:
        self.lease_seconds = session_seconds
        self._path = path
        self._cluster = cluster
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dsfast-registry")
        self._connection: sqlite3.Connection | None = None
        self._version = -1  # PRAGMA data_version at the last reading: it moves when another connection commits
        self._rows: list[tuple[bytes, float]] = []

    def attach(self, wake: Callable[[], None]) -> None:
        """Nobody can wake us: `View.look_in` stands in for it."""

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
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS_MAX):
                await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)

    async def _run(self, step: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._attempt, step)

    # From here on everything runs in the roster's thread.

    def _attempt(self, step: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return step(self._connect())
        except sqlite3.Error as error:
            self._disconnect()
            sentence = f"the registry's SQLite file {self._path} cannot be used: {error}"
            if error.sqlite_errorcode & 0xFF in HOPELESS:
                raise UsageError(f"{sentence}; the directory must exist and both must be writable") from error
            raise Unavailable(sentence) from error

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            busy = self.lease_seconds / BUSY_PER_LEASE
            self._connection = sqlite3.connect(self._path, busy, isolation_level=None, check_same_thread=False)
            self._connection.text_factory = bytes  # a body that is no text is not our error, nor anybody's end
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(SCHEMA)
            self._version = -1
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _renew(self, connection: sqlite3.Connection, member: Member) -> View:
        connection.execute("BEGIN IMMEDIATE")
        values = self._values(member)
        kept = connection.execute(EXTEND, values).rowcount == 1
        if not kept:
            connection.execute(PUT, values)
        connection.execute(SWEEP, values)
        self._read(connection)
        connection.execute("COMMIT")
        return self._view(kept)

    def _look(self, connection: sqlite3.Connection, member: Member | None) -> View:
        if self._data_version(connection) != self._version:
            self._read(connection)
        view = self._view(kept=True)
        return view if member is None or encode(member) in view.bodies else replace(view, kept=False)

    def _remove(self, connection: sqlite3.Connection, member: Member) -> None:
        connection.execute(REMOVE, self._values(member))
        self._version = -1  # our own commits do not move it

    def _read(self, connection: sqlite3.Connection) -> None:
        self._version = self._data_version(connection)
        self._rows = connection.execute(LIST, {"cluster": self._cluster, "now": monotonic()}).fetchall()

    def _data_version(self, connection: sqlite3.Connection) -> int:
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    def _view(self, kept: bool) -> View:
        now = monotonic()
        bodies = tuple(body for body, until in self._rows if until > now)
        ends = (until - now for _, until in self._rows if until > now)
        return View(bodies, kept, min(LOOK_SECONDS, *ends) if bodies else LOOK_SECONDS)

    def _values(self, member: Member) -> dict[str, str | float]:
        return {
            "cluster": self._cluster,
            "id": member.id,
            "role": member.role,
            "name": member.name,
            "boot": member.boot,
            "body": encode(member).decode(),
            "now": monotonic(),
            "seconds": self.lease_seconds,
        }
