"""The cluster's store: PostgreSQL through asyncpg, shared by any number of masters.

A master keeps two connections of its own, each used by one call at a time: one for commits, one for claims (reading
back a large run must not hold up commits). People's questions go through SQLAlchemy and a small pool, so that they
cannot take either. A connection that is lost is made again by the next call; what was under way then is unknown,
and the caller repeats it: commits are idempotent, and `_doubtful` remembers claims.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dsfast.errors import Unavailable
from dsfast.failpoint import reach
from dsfast.rows import AttemptRow, Batch, Committed, OwnedRun
from dsfast.store import postgres_statements as statements
from dsfast.store.postgres_link import Link, connect, errors_explained, place_of
from dsfast.store.reads import Reads
from dsfast.store.revision import REVISION_TABLE, check_revision
from dsfast.store.server import PEOPLE_CONNECTIONS_MAX, PEOPLE_SECONDS_MAX
from dsfast.store.writes import Writes, attempt_row, copy_batch, refused, run_row, storable

if TYPE_CHECKING:
    from sqlalchemy import Executable
    from sqlalchemy.ext.asyncio import AsyncEngine

CLAIM_ROWS = 5_000  # attempts per fetch of a claim: some 20 ms of the event loop's time

# The plan of a commit is made once, perhaps while the tables are empty, when reading all of them is cheapest, and is
# used for as long as the master lives. Claims are rare; theirs are made each time.
COMMITS = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "jit": "off"}
CLAIMS = {"plan_cache_mode": "force_custom_plan", "enable_seqscan": "off", "jit": "off"}
PEOPLE = {"default_transaction_read_only": "on", "statement_timeout": f"{PEOPLE_SECONDS_MAX}s"}


class PostgresStore(Reads):
    """`Store` on a server. Without `exclusive` (the api role) it only answers questions."""

    def __init__(self, url: str, *, create: bool = False, exclusive: bool = True) -> None:
        self._url = url
        self._place = place_of(url)
        self._create = create
        self._writes = exclusive
        self._commits = Link(url, COMMITS)
        self._claims = Link(url, CLAIMS)
        self._doubtful: set[int] = set()  # runs we tried to take without learning whether we did
        self._engine: AsyncEngine | None = None

    async def open(self) -> None:
        """Connect. Raises UsageError (missing, older or newer schema) or Unavailable."""
        revision = await server_revision(self._url)
        if revision is None and self._create:
            from dsfast.store.migrations import upgrade

            await asyncio.to_thread(upgrade, self._url)
            revision = await server_revision(self._url)
        check_revision(revision, self._place)

    async def close(self) -> None:
        """Finish what was begun and disconnect."""
        await self._commits.close()
        await self._claims.close()
        if self._engine is not None:
            await self._engine.dispose()
            self._engine = None

    async def commit(self, batch: Batch) -> Committed:
        """Make a turn durable in one transaction, as `Store.commit` says."""
        assert self._writes, "this store was not opened for writing"
        writes = copy_batch(batch)
        statement, parameters = statements.commit_call(writes)

        async def work(connection: Any) -> Committed:
            written = {run_id for (run_id,) in await connection.fetch(statement, *parameters)}
            if len(written) == len(writes.fence):
                return Committed()
            return await _explain_unwritten(connection, writes, writes.fence.keys() - written)

        return await self._commits.use(work)

    async def claim(self, owner: str, alive: Collection[str], share: Callable[[int], bool]) -> list[OwnedRun]:
        """Take over the runs of the dead that are this master's share, as `Store.claim` says."""
        assert self._writes, "this store was not opened for writing"

        async def work(connection: Any) -> list[OwnedRun]:
            left = await connection.fetch(statements.UNFINISHED, list(alive), owner, list(self._doubtful))
            chosen = [found for found in left if found["id"] in self._doubtful or share(found["id"])]
            self._doubtful.update(found["id"] for found in chosen)
            columns = list(zip(*chosen, strict=True)) if chosen else [(), (), ()]
            taken: dict[int, int] = dict(await connection.fetch(statements.TAKE, owner, *columns))
            if taken:
                reach("M10")
            loaded = await _load(connection, owner, taken)
            self._doubtful.clear()
            return loaded

        return await self._claims.use(work)

    async def blame(self, run_id: int, reason: str) -> None:
        """Note that a master has ended over this run."""
        await self._claims.use(lambda connection: connection.execute(statements.BLAME, run_id, storable(reason)))

    async def crashed(self, least: int) -> dict[int, str]:
        """Runs over which at least so many masters have ended, with what the last one said."""
        return dict(await self._claims.use(lambda connection: connection.fetch(statements.CRASHED, least)))

    async def _fetch(self, statement: Executable) -> Sequence[Any]:
        if self._engine is None:
            self._engine = engine(
                self._url, PEOPLE, isolation_level="AUTOCOMMIT", pool_size=PEOPLE_CONNECTIONS_MAX, max_overflow=0
            )
        with errors_explained(self._place):
            async with self._engine.connect() as connection:
                return (await connection.execute(statement)).all()


async def server_revision(url: str) -> str | None:
    """The schema of a database. Raises Unavailable."""
    with errors_explained(place_of(url)):
        connection = await connect(url, PEOPLE)
        try:
            if await connection.fetchval("SELECT to_regclass($1)", REVISION_TABLE) is None:
                return None
            found: str | None = await connection.fetchval(f"SELECT version_num FROM {REVISION_TABLE}")  # noqa: S608
            return found
        finally:
            await connection.close()


def engine(url: str, settings: Mapping[str, str], **options: Any) -> AsyncEngine:
    """SQLAlchemy over connections made like ours."""
    from sqlalchemy.ext.asyncio import create_async_engine

    return create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: connect(url, settings), pool_pre_ping=True, **options
    )


async def _explain_unwritten(connection: Any, writes: Writes, unwritten: set[int]) -> Committed:
    """Why a commit passed these runs over: lost, repeats of a submit, or written by an earlier try."""
    found = await connection.fetch(statements.OWNERSHIPS, list(unwritten))
    ownerships = {run_id: (owner, epoch) for run_id, owner, epoch in found}
    absent = [run_id for run_id in writes.new_runs if run_id in unwritten and run_id not in ownerships]
    holders: dict[str, int] = dict(await connection.fetch(statements.KEYS, [writes.keys[run_id] for run_id in absent]))
    if any(writes.keys[run_id] not in holders for run_id in absent):
        raise Unavailable("a run was deleted while its idempotency key was being used again; commit again")
    duplicates = {run_id: holders[writes.keys[run_id]] for run_id in absent}
    lost, _ = refused(writes, ownerships, unwritten - duplicates.keys())
    return Committed(frozenset(lost), duplicates)


async def _load(connection: Any, owner: str, epochs: Mapping[int, int]) -> list[OwnedRun]:
    """Those of the runs just taken that are still ours under these epochs; a body that many share is held once.

    Who was paused since it took them may have lost them again. Runs are read last: one that is still ours then has
    been written by nobody else meanwhile, so its attempts, read before, belong to it.
    """
    attempts: dict[int, list[AttemptRow]] = {run_id: [] for run_id in epochs}
    async with connection.transaction(readonly=True):
        cursor = await connection.cursor(statements.ATTEMPTS, sorted(epochs))
        while rows := await cursor.fetch(CLAIM_ROWS):
            for values in rows:
                attempts[values[0]].append(attempt_row(values))
    if epochs:
        reach("M11")
    read = [run_row(values) for values in await connection.fetch(statements.RUNS, sorted(epochs))]
    runs = [run for run in read if (run.owner, run.epoch) == (owner, epochs[run.id])]
    bodies: dict[str, bytes] = dict(await connection.fetch(statements.BODIES, list({run.digest for run in runs})))
    return [OwnedRun(run, bodies.get(run.digest, b""), attempts[run.id]) for run in runs]
