"""Several masters on one PostgreSQL, and what its faults look like from above: races, lost answers, restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import pytest

from dsfast.errors import Unavailable, UsageError
from dsfast.model import AttemptState
from dsfast.rows import Committed, DefinitionRow
from dsfast.store import migrations, open_store, postgres_link, server
from dsfast.store.base import Store
from tests.servers.postgres import PASSWORD, PostgresServer
from tests.servers.proxy import Proxy
from tests.store_rows import DEFINITION, OTHER, attempt, batch, dump, ended, run, submit

DEADLINE_SECONDS = 20.0  # for what takes milliseconds


def every_run(_: int) -> bool:
    return True


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[Store]:
    store = open_store(url, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[Store]:
    async with opened(postgres_url) as store:
        yield store


@pytest.fixture
async def raw(postgres_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """What the condition returns once it is true."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not (found := await condition()):  # noqa: ASYNC110 - the server tells nobody who waits for a lock
            await asyncio.sleep(0.005)
    return found


def waiting_for_lock(raw: Any) -> Callable[[], Awaitable[Any]]:
    """Whether someone waits for a lock; his process id."""
    return lambda: raw.fetchval("SELECT pid FROM pg_locks WHERE NOT granted LIMIT 1")


class ForgetfulNetwork:
    """Between a store and its server: loses the answer that says `forget` was done, and cuts the connection."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.forget: bytes | None = None  # SELECT or UPDATE, as the server names what it has done

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def close(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        questions = asyncio.create_task(self._forward(reader, there_writer))
        with suppress(OSError):
            while answer := await there_reader.read(1 << 16):
                if self.forget is not None and self.forget + b" " in answer:
                    break
                writer.write(answer)
                await writer.drain()
        questions.cancel()
        for each in (writer, there_writer):
            each.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while question := await reader.read(1 << 16):
                writer.write(question)
                await writer.drain()


@pytest.fixture
async def network(postgres_server: PostgresServer) -> AsyncIterator[ForgetfulNetwork]:
    network = ForgetfulNetwork(postgres_server.port)
    yield network
    network.close()


# --- several masters ------------------------------------------------------------------------------------------------


async def test_masters_that_claim_at_once_split_the_runs_cleanly(store: Store, postgres_url: str) -> None:
    await submit(store, *(run(n) for n in range(1, 201)), attempts=tuple(attempt(n) for n in range(1, 201)))
    claimants = [f"m{n}@later" for n in range(4)]

    async def claim(name: str) -> list[int]:
        async with opened(postgres_url) as mine:
            return [each.run.id for each in await mine.claim(name, claimants, every_run)]

    taken = await asyncio.gather(*map(claim, claimants))
    assert sorted(run_id for ids in taken for run_id in ids) == list(range(1, 201))
    for name, ids in zip(claimants, taken, strict=True):
        assert await store.owned(name) == ids


async def test_a_commit_that_meets_a_claim_waits_and_is_then_fenced(store: Store, raw: Any) -> None:
    await submit(store, run(1), run(2))
    transaction = raw.transaction()
    await transaction.start()
    await raw.execute("UPDATE runs SET owner = $1, epoch = 2 WHERE id = 1", OTHER)
    late = asyncio.ensure_future(store.commit(batch(changed=(ended(1),), attempts=(attempt(1), attempt(2)))))
    await until(waiting_for_lock(raw))
    await transaction.commit()
    assert await late == Committed(lost=frozenset({1}))
    assert await store.run(1) == run(1, owner=OTHER, epoch=2)
    assert await store.attempts(1) == []
    assert await store.attempts(2) == [attempt(2)]


async def test_a_claim_that_meets_a_commit_reads_what_it_wrote(store: Store, raw: Any) -> None:
    await submit(store, run(1))
    transaction = raw.transaction()
    await transaction.start()
    await raw.execute("SELECT id FROM runs WHERE id = 1 FOR NO KEY UPDATE")
    await raw.execute("INSERT INTO attempts (run_id, task, attempt, state, reason) VALUES (1, 0, 1, 7, '')")
    claim = asyncio.ensure_future(store.claim(OTHER, {OTHER}, every_run))
    await until(waiting_for_lock(raw))
    await transaction.commit()
    (taken,) = await claim
    assert [row.state for row in taken.attempts] == [AttemptState.SUCCEEDED]


async def test_a_claimant_that_is_claimed_from_before_it_has_read_returns_nothing(store: Store, raw: Any) -> None:
    """It may have stood still: what it would read by now is another master's, epoch and all."""
    await submit(store, run(1), run(2))
    transaction = raw.transaction()
    await transaction.start()
    await raw.execute("LOCK TABLE attempts IN ACCESS EXCLUSIVE MODE")
    claim = asyncio.ensure_future(store.claim(OTHER, {OTHER}, every_run))
    await until(waiting_for_lock(raw))
    await raw.execute("UPDATE runs SET owner = 'third@1', epoch = epoch + 1 WHERE id = 1")
    await transaction.commit()
    assert [taken.run.id for taken in await claim] == [2]


async def test_masters_that_store_definitions_of_one_name_at_once_give_them_one_version_each(
    store: Store, postgres_url: str
) -> None:
    async def define(number: int) -> None:
        async with opened(postgres_url) as mine:
            for n in range(5):
                body = DefinitionRow(f"{number}-{n}", "report", b"{}")
                await mine.commit(batch(definitions=(body,), owner=f"m{number}"))

    await asyncio.gather(*map(define, range(4)))
    versions = [row[2] for row in (await dump(postgres_url))["definitions"]]
    assert sorted(versions) == list(range(1, 21))


async def test_a_deadlock_is_tried_again(store: Store, raw: Any, postgres_url: str) -> None:
    await submit(store, run(1), run(2))
    database = postgres_url.rpartition("/")[2]
    await raw.execute(f"ALTER DATABASE {database} SET deadlock_timeout = '10ms'")
    await store.close()  # the setting counts from the next connection on
    await store.open()
    transaction = raw.transaction()
    await transaction.start()
    await raw.execute("SET LOCAL deadlock_timeout = '1h'")
    await raw.execute("UPDATE runs SET reason = 'held' WHERE id = 2")
    commit = asyncio.ensure_future(store.commit(batch(attempts=(attempt(1), attempt(2)))))
    await until(waiting_for_lock(raw))
    await raw.execute("UPDATE runs SET reason = 'taken too' WHERE id = 1")  # the commit holds 1 and waits for 2
    await transaction.commit()
    assert await commit == Committed()
    assert await store.attempts(2) == [attempt(2)]


# --- outcomes that are unknown --------------------------------------------------------------------------------------


async def test_a_commit_whose_backend_is_killed_leaves_nothing_and_can_be_repeated(
    store: Store, raw: Any, postgres_url: str
) -> None:
    await submit(store, run(1))
    before = await dump(postgres_url)
    again = batch(new=(run(2, idempotency_key="k"),), changed=(run(1, reason="x"),), attempts=(attempt(1), attempt(2)))
    transaction = raw.transaction()
    await transaction.start()
    await raw.execute("SELECT 1 FROM runs WHERE id = 1 FOR UPDATE")
    commit = asyncio.ensure_future(store.commit(again))
    await raw.execute("SELECT pg_terminate_backend($1)", await until(waiting_for_lock(raw)))
    with pytest.raises(Unavailable, match="PostgreSQL at 127"):
        await commit
    await transaction.rollback()
    assert await dump(postgres_url) == before
    assert await store.commit(again) == Committed()
    assert await store.attempts(2) == [attempt(2)]


async def test_a_commit_whose_answer_was_lost_is_recognised_when_it_is_repeated(
    store: Store, network: ForgetfulNetwork, postgres_server: PostgresServer, postgres_url: str
) -> None:
    await submit(store, run(1), run(2), run(3, idempotency_key="taken"))
    far = postgres_url.replace(str(postgres_server.port), str(await network.start()))
    again = batch(
        new=(run(4, idempotency_key="k"), run(5, idempotency_key="taken")),
        changed=(ended(1), run(2, owner=OTHER, epoch=2)),
        attempts=(attempt(1), attempt(2), attempt(4), attempt(5)),
        definitions=(DefinitionRow("another", "report", b""),),
    )
    async with opened(far) as mine:
        # The driver asks for types when it meets them first; the answer to lose is that of the batch.
        await mine.commit(batch(new=(run(6),), changed=(run(2),), attempts=(attempt(6),), definitions=(DEFINITION,)))
        network.forget = b"SELECT"
        with pytest.raises(Unavailable):
            await mine.commit(again)
        network.forget = None
        before = await dump(postgres_url)
        assert len(before["runs"]) == 5, "the batch was written, only its answer was lost"
        assert await mine.commit(again) == Committed(duplicates={5: 3})
    assert await dump(postgres_url) == before


async def test_a_claim_whose_answer_was_lost_returns_its_runs_when_it_is_repeated(
    store: Store, network: ForgetfulNetwork, postgres_server: PostgresServer, postgres_url: str
) -> None:
    await submit(store, run(1), run(2), attempts=(attempt(1),))
    far = postgres_url.replace(str(postgres_server.port), str(await network.start()))

    def forgetting(_: int) -> bool:
        network.forget = b"UPDATE"  # between the look and the taking
        return True

    async with opened(far) as mine:
        with pytest.raises(Unavailable):
            await mine.claim(OTHER, {OTHER}, forgetting)
        network.forget = None
        assert await store.owned(OTHER) == [1, 2], "the runs were taken, only the answer was lost"
        taken = await mine.claim(OTHER, {OTHER}, lambda _: False)
        assert [(each.run.id, each.run.epoch) for each in taken] == [(1, 3), (2, 3)]
        assert taken[0].attempts == [attempt(1)]
        assert await mine.claim(OTHER, {OTHER}, every_run) == []


async def test_a_commit_that_is_cancelled_leaves_a_store_that_works(store: Store, raw: Any) -> None:
    await submit(store, run(1))
    async with raw.transaction():
        await raw.execute("SELECT 1 FROM runs WHERE id = 1 FOR UPDATE")
        commit = asyncio.ensure_future(store.commit(batch(attempts=(attempt(1),))))
        await until(waiting_for_lock(raw))
        commit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await commit
    assert await store.commit(batch(attempts=(attempt(1, task=1),))) == Committed()


# --- the server goes away -------------------------------------------------------------------------------------------


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """One to crash: recovery syncs every file written since a checkpoint, and the session's server has thousands."""
    server = PostgresServer()
    yield server
    server.close()


async def test_a_store_outlives_a_crash_of_its_server(own_server: PostgresServer) -> None:
    url = own_server.url("postgres")
    async with opened(url, create=True) as store, opened(url) as leaving:
        await submit(store, run(1), attempts=(attempt(1),))
        for each in (store, leaving):
            assert await each.commit(batch(epochs={1: 1})) == Committed()
            assert await each.run(1) == run(1)
        before = await dump(url)
        await asyncio.to_thread(own_server.stop, immediate=True)
        await leaving.close()  # in peace, though nobody answers
        for question in (
            store.commit(batch(attempts=(attempt(1),))),
            store.commit(batch(attempts=(attempt(1),))),
            store.claim(OTHER, {OTHER}, every_run),
            store.run(1),
        ):
            with pytest.raises(Unavailable, match="PostgreSQL at 127"):
                await question
        await asyncio.to_thread(own_server.start)
        assert await dump(url) == before
        assert await store.run(1) == run(1)
        assert await store.commit(batch(attempts=(attempt(1, task=1),))) == Committed()
        assert len(await store.claim(OTHER, {OTHER}, every_run)) == 1


async def every_connection(url: str) -> list[Any]:
    """All that the server has left."""
    taken: list[Any] = []
    with suppress(asyncpg.TooManyConnectionsError):
        while True:
            taken.append(await asyncpg.connect(url))
    return taken


async def test_a_server_without_a_connection_left_is_explained_and_waited_for(own_server: PostgresServer) -> None:
    url = own_server.url("postgres")
    async with opened(url, create=True) as store:
        await submit(store, run(1))
        others = await every_connection(url)
        with pytest.raises(Unavailable, match="raise max_connections"):
            await store.claim(OTHER, {OTHER}, every_run)
        assert await store.commit(batch(attempts=(attempt(1),))) == Committed(), "commits have a connection already"
        for each in others:
            await each.close()

        async def claimed() -> bool:
            with suppress(Unavailable):  # the server has to notice first who has gone
                return len(await store.claim(OTHER, {OTHER}, every_run)) == 1
            return False

        await until(claimed)


async def test_a_long_report_holds_up_neither_commits_nor_claims(store: Store, raw: Any) -> None:
    await submit(store, run(1), attempts=(attempt(1),))
    async with raw.transaction(isolation="repeatable_read"):
        for table in ("runs", "attempts", "definitions"):
            await raw.fetch(f"SELECT * FROM {table}")  # a snapshot that stays open
        assert await store.commit(batch(new=(run(2),), changed=(run(1, reason="x"),))) == Committed()
        assert len(await store.claim(OTHER, {OTHER}, every_run)) == 2


async def test_an_upgrade_whose_connection_is_killed_leaves_nothing_and_can_be_repeated(
    raw: Any, postgres_server: PostgresServer
) -> None:
    url = postgres_server.new_database()
    other = await asyncpg.connect(url)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("CREATE TABLE attempts (somebody_elses INTEGER)")  # the upgrade waits for it in its midst
    upgrade = asyncio.ensure_future(asyncio.to_thread(migrations.upgrade, url))
    await raw.execute("SELECT pg_terminate_backend($1)", await until(waiting_for_lock(raw)))
    with pytest.raises(Unavailable):
        await upgrade
    await transaction.rollback()
    assert await other.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await other.close()
    await asyncio.to_thread(migrations.upgrade, url)
    async with opened(url) as store:
        assert await submit(store, run(1)) == Committed()


# --- opening --------------------------------------------------------------------------------------------------------


async def test_a_database_without_tables_is_refused_or_made(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database()
    with pytest.raises(UsageError, match="dsfast db upgrade"):
        await open_store(url).open()
    async with asyncio.TaskGroup() as group:  # two masters that start at once
        stores = [open_store(url, create=True) for _ in range(2)]
        for each in stores:
            group.create_task(each.open())
    assert await submit(stores[0], run(1)) == Committed()
    for each in stores:
        await each.close()


async def test_older_and_newer_tables_are_refused(raw: Any, postgres_url: str) -> None:
    await raw.execute("UPDATE dsfast_revision SET version_num = '9999'")
    with pytest.raises(UsageError, match="newer dsfast"):
        await open_store(postgres_url, create=True).open()
    await raw.execute("DELETE FROM dsfast_revision")
    with pytest.raises(UsageError, match="no dsfast tables"):
        await open_store(postgres_url).open()


async def test_a_server_that_refuses_is_explained_without_the_password(postgres_server: PostgresServer) -> None:
    port = str(postgres_server.port)
    good = postgres_server.url("postgres")
    for url, sentence in (
        (postgres_server.url("postgres", password="wrong secret"), "password authentication failed"),
        (postgres_server.url("nothing_here"), "no such database"),
        (good.replace(port, "1"), "cannot be reached"),
        (good.replace("127.0.0.1", "no-such-host.invalid"), "cannot be reached"),
    ):
        with pytest.raises(Unavailable, match=sentence) as caught:
            await open_store(url).open()
        assert PASSWORD not in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "%20" not in str(caught.value)


async def test_a_read_only_server_is_explained(store: Store, postgres_url: str, raw: Any) -> None:
    await submit(store, run(1))
    await raw.execute(f"ALTER DATABASE {postgres_url.rpartition('/')[2]} SET default_transaction_read_only = on")
    await store.close()
    await store.open()
    with pytest.raises(Unavailable, match="read-only"):
        await store.commit(batch(attempts=(attempt(1),)))
    assert await store.run(1) == run(1)


# --- the link -------------------------------------------------------------------------------------------------------


async def test_a_lost_conflict_is_tried_again_but_not_forever(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PAUSE_SECONDS", 0.0)
    link = postgres_link.Link(postgres_url, {})
    tries = 0

    async def conflict_until_third(connection: Any) -> int:
        nonlocal tries
        tries += 1
        if tries != 3:
            raise asyncpg.SerializationError("could not serialize")
        return int(await connection.fetchval("SELECT 7"))

    assert await link.use(conflict_until_third) == 7
    with pytest.raises(Unavailable, match="keep getting in the way"):
        await link.use(conflict_until_third)
    assert tries == 3 + server.TRIES_MAX
    await link.close()


async def test_a_silent_network_is_given_up_and_mends(
    store: Store, postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "COMMAND_SECONDS_MAX", 1.0)
    await submit(store, run(1))
    proxy = await Proxy(postgres_server.port).start()
    async with opened(postgres_url.replace(str(postgres_server.port), str(proxy.port))) as far:
        await far.commit(batch(epochs={1: 1}))
        monkeypatch.setattr(server, "CONNECT_SECONDS_MAX", 0.2)
        proxy.freeze()
        for _ in range(2):  # while connected, and while connecting
            with pytest.raises(Unavailable, match="does not answer"):
                await far.commit(batch(attempts=(attempt(1),)))
        proxy.mend()
        monkeypatch.undo()
        assert await far.commit(batch(attempts=(attempt(1),))) == Committed()
    await proxy.close()
