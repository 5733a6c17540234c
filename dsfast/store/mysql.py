"""The cluster's store on MySQL or MariaDB, shared by any number of masters.

A master keeps two connections, each with a thread of its own: one for commits, one for claims (reading back a large
run must not hold up commits). People's questions go through SQLAlchemy and a small pool, so that they cannot take
either. A connection that is lost is made again by the next call; what was under way then is unknown, and the caller
repeats it: commits are idempotent, and `_doubtful` remembers claims.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dsfast.errors import Unavailable, UsageError
from dsfast.failpoint import reach
from dsfast.rows import Batch, Committed, OwnedRun
from dsfast.store import mysql_statements as statements
from dsfast.store.mysql_link import Link, connect, connect_for_people, cursor_of, errors_explained, is_mariadb, parse
from dsfast.store.reads import Reads
from dsfast.store.revision import check_revision
from dsfast.store.server import PEOPLE_CONNECTIONS_MAX
from dsfast.store.writes import copy_batch, storable

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Executable

# A definition is one value of a statement: as large as a body of the api (64 MiB), and twice that with its quotes
# escaped. A server that refuses one would refuse the same commit for ever.
PACKET_BYTES_MIN = 160 << 20

UPGRADE_WAIT_SECONDS = 20  # for another upgrade; less than what a connection waits for an answer

_UPGRADE_LOCK = "dsfast upgrade"
_DURABILITY = "SELECT @@innodb_flush_log_at_trx_commit, @@log_bin, @@sync_binlog, @@max_allowed_packet"


class MysqlStore(Reads):
    """`Store` on a server. Without `exclusive` (the api role) it only answers questions."""

    def __init__(self, url: str, *, create: bool = False, exclusive: bool = True) -> None:
        self._url = url
        self._address = parse(url)
        self._create = create
        self._writes = exclusive
        self._commits = Link(self._address, "dsfast-store-commits")
        self._claims = Link(self._address, "dsfast-store-claims")
        self._doubtful: set[int] = set()  # runs we tried to take without learning whether we did
        self._people: ThreadPoolExecutor | None = None
        self._engine: Engine | None = None

    async def open(self) -> None:
        """Connect. Raises UsageError (missing, older or newer schema, unsafe settings) or Unavailable."""
        revision = await asyncio.to_thread(server_revision, self._url)
        if revision is None and self._create:
            from dsfast.store.migrations import upgrade

            await asyncio.to_thread(upgrade, self._url)
            revision = await asyncio.to_thread(server_revision, self._url)
        check_revision(revision, self._address.place)
        if self._writes:
            await self._commits.use(self._check_settings)

    async def close(self) -> None:
        """Finish what was begun and disconnect."""
        await self._commits.close()
        await self._claims.close()
        if self._people is not None and self._engine is not None:
            await asyncio.get_running_loop().run_in_executor(self._people, self._engine.dispose)
            self._people.shutdown()
            self._people = self._engine = None

    async def commit(self, batch: Batch) -> Committed:
        """Make a turn durable in one transaction, as `Store.commit` says."""
        assert self._writes, "this store was not opened for writing"
        writes = copy_batch(batch)
        return await self._commits.use(lambda cursor: statements.apply(cursor, writes))

    async def claim(self, owner: str, alive: Collection[str], share: Callable[[int], bool]) -> list[OwnedRun]:
        """Take over the runs of the dead that are this master's share, as `Store.claim` says."""
        assert self._writes, "this store was not opened for writing"
        living, doubtful = frozenset(alive), frozenset(self._doubtful)
        left = await self._claims.use(lambda cursor: statements.unfinished(cursor, owner, living, doubtful))
        chosen = [found for found in left if found[0] in doubtful or share(found[0])]
        self._doubtful.update(run_id for run_id, _, _ in chosen)
        taken = await self._claims.use(lambda cursor: statements.take(cursor, owner, chosen))
        if taken:
            reach("M10")
        loaded = await self._claims.use(lambda cursor: statements.load(cursor, owner, taken))
        self._doubtful.clear()
        return loaded

    async def blame(self, run_id: int, reason: str) -> None:
        """Note that a master has ended over this run."""
        await self._claims.use(lambda cursor: statements.blame(cursor, run_id, storable(reason)))

    async def crashed(self, least: int) -> dict[int, str]:
        """Runs over which at least so many masters have ended, with what the last one said."""
        return await self._claims.use(lambda cursor: statements.crashed(cursor, least))

    async def _fetch(self, statement: Executable) -> Sequence[Any]:
        if self._people is None or self._engine is None:
            self._people = ThreadPoolExecutor(PEOPLE_CONNECTIONS_MAX, "dsfast-store-reader")
            self._engine = people_engine(self._url)
        return await asyncio.get_running_loop().run_in_executor(self._people, self._fetch_now, self._engine, statement)

    def _fetch_now(self, engine: Engine, statement: Executable) -> Sequence[Any]:
        with errors_explained(self._address.place), engine.connect() as connection:
            return connection.execute(statement).all()

    def _check_settings(self, cursor: Any) -> None:
        cursor.execute(_DURABILITY)
        flushed, logged, synced, packet = cursor.fetchone()
        wrong = []
        if flushed != 1 or (logged and synced != 1):
            wrong.append("a commit could be lost after it was confirmed: set innodb_flush_log_at_trx_commit = 1")
            wrong[0] += ", and sync_binlog = 1" if logged else ""
        if packet < PACKET_BYTES_MIN:
            wrong.append("a large workflow would not fit: set max_allowed_packet = 256M")
        if wrong:
            raise UsageError(f"{self._address.place}: {'; '.join(wrong)} in the server's configuration")


def server_revision(url: str) -> str | None:
    """The schema of a database. Blocks. Raises Unavailable."""
    with cursor_of(parse(url)) as cursor:
        return statements.read_revision(cursor)


def people_engine(url: str) -> Engine:
    """SQLAlchemy over a pool of connections that only read."""
    import sqlalchemy as sa

    address = parse(url)
    return sa.create_engine(
        "mysql+pymysql://",
        creator=lambda: connect_for_people(address),
        isolation_level="AUTOCOMMIT",
        pool_size=PEOPLE_CONNECTIONS_MAX,
        max_overflow=0,
        pool_pre_ping=True,
    )


@contextmanager
def upgrading(url: str) -> Iterator[Connection]:
    """A connection of SQLAlchemy that may change the schema; two upgrades of one database take turns."""
    import sqlalchemy as sa

    driver = connect(parse(url), autocommit=True)
    dialect = "mariadb" if is_mariadb(driver) else "mysql"
    engine = sa.create_engine(f"{dialect}+pymysql://", creator=lambda: driver, poolclass=sa.StaticPool)
    try:
        with engine.connect() as connection:
            lock = sa.select(sa.func.get_lock(_UPGRADE_LOCK, UPGRADE_WAIT_SECONDS))
            if connection.scalar(lock) != 1:
                raise Unavailable("another upgrade of this database has not ended yet; try again later")
            yield connection
            connection.commit()
    finally:
        engine.dispose()
