"""Several masters on one MySQL (MariaDB), and what its faults look like from above: races, lost answers, restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from dsfast.errors import Unavailable, UsageError
from dsfast.model import AttemptState
from dsfast.rows import Committed, DefinitionRow
from dsfast.store import open_store, server
from dsfast.store.base import Store
from tests.servers.mysql import PASSWORD, MySqlServer
from tests.servers.proxy import Proxy
from tests.store_rows import OTHER, attempt, batch, dump, ended, run, submit

LOOK_SECONDS = 0.11  # the server shows who waits as it was at a look more than 0.1 s ago
DEADLINE_SECONDS = 20.0  # for what takes milliseconds
WAITING = "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"


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
async def store(mysql_url: str) -> AsyncIterator[Store]:
    async with opened(mysql_url) as store:
        yield store


@pytest.fixture
def raw(mysql_server: MySqlServer, mysql_url: str) -> Iterator[Any]:
    """A second session, in a transaction from its first statement to its commit."""
    connection = mysql_server.connect(mysql_url)
    connection.autocommit(False)
    execute(connection, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")  # as a store's, or gaps are locked
    yield connection
    connection.close()


def execute(raw: Any, statement: str) -> None:
    with raw.cursor() as cursor:
        cursor.execute(statement)


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """What the condition returns once it is true."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not (found := await condition()):  # noqa: ASYNC110 - the server tells nobody who waits for a lock
            await asyncio.sleep(LOOK_SECONDS)
    return found


def waiting_for_lock(server: MySqlServer) -> Callable[[], Awaitable[Any]]:
    """Whether someone waits for a lock; his connection's id."""

    async def look() -> Any:
        found = await asyncio.to_thread(server.sql, WAITING)
        return found[0][0] if found else None

    return look


class ForgetfulNetwork:
    """Between a store and its server: lets the question that has `forget` in it through, and loses the answer."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.forget: bytes | None = None
        self._asked = False

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def close(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        questions = asyncio.create_task(self._ask(reader, there_writer))
        with suppress(OSError):
            while answer := await there_reader.read(1 << 16):
                if self._asked:
                    self._asked = False
                    break
                writer.write(answer)
                await writer.drain()
        questions.cancel()
        for each in (writer, there_writer):
            each.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        before = b""
        with suppress(OSError):
            while question := await reader.read(1 << 16):
                wanted = self.forget
                if wanted is not None and wanted in before[1 - len(wanted) :] + question:  # it may come in two pieces
                    self._asked, self.forget = True, None
                before = question
                writer.write(question)
                await writer.drain()


@pytest.fixture
async def network(mysql_server: MySqlServer) -> AsyncIterator[ForgetfulNetwork]:
    network = ForgetfulNetwork(mysql_server.port)
    yield network
    network.close()


# --- several masters ------------------------------------------------------------------------------------------------


async def test_masters_that_claim_at_once_split_the_runs_cleanly(store: Store, mysql_url: str) -> None:
    await submit(store, *(run(n) for n in range(1, 1201)), attempts=tuple(attempt(n) for n in range(1, 1201)))
    claimants = [f"m{n}@later" for n in range(4)]

    async def claim(name: str) -> list[int]:
        async with opened(mysql_url) as mine:
            return [each.run.id for each in await mine.claim(name, claimants, every_run)]

    taken = await asyncio.gather(*map(claim, claimants))
    assert sorted(run_id for ids in taken for run_id in ids) == list(range(1, 1201))
    for name, ids in zip(claimants, taken, strict=True):
        assert await store.owned(name) == ids


async def test_a_commit_that_meets_a_claim_waits_and_is_then_fenced(
    store: Store, raw: Any, mysql_server: MySqlServer
) -> None:
    await submit(store, run(1), run(2))
    execute(raw, f"UPDATE runs SET owner = '{OTHER}', epoch = 2 WHERE id = 1")
    late = asyncio.ensure_future(store.commit(batch(changed=(ended(1),), attempts=(attempt(1), attempt(2)))))
    await until(waiting_for_lock(mysql_server))
    raw.commit()
    assert await late == Committed(lost=frozenset({1}))
    assert await store.run(1) == run(1, owner=OTHER, epoch=2)
    assert await store.attempts(1) == []
    assert await store.attempts(2) == [attempt(2)]


async def test_a_claim_that_meets_a_commit_reads_what_it_wrote(
    store: Store, raw: Any, mysql_server: MySqlServer
) -> None:
    await submit(store, run(1))
    execute(raw, "SELECT id FROM runs WHERE id = 1 FOR UPDATE")
    execute(raw, "INSERT INTO attempts (run_id, task, attempt, state, reason) VALUES (1, 0, 1, 7, '')")
    claim = asyncio.ensure_future(store.claim(OTHER, {OTHER}, every_run))
    await until(waiting_for_lock(mysql_server))
    raw.commit()
    (taken,) = await claim
    assert [row.state for row in taken.attempts] == [AttemptState.SUCCEEDED]


async def test_a_commit_does_not_wait_for_runs_it_does_not_write(store: Store, raw: Any) -> None:
    await submit(store, *(run(n) for n in range(1, 6)))
    for number in (1, 3, 5):
        execute(raw, f"SELECT id FROM runs WHERE id = {number} FOR UPDATE")
    written = batch(new=(run(6), run(7)), changed=(run(2, reason="x"), ended(4)), attempts=(attempt(2), attempt(6)))
    assert await store.commit(written) == Committed()


async def test_masters_that_store_definitions_of_one_name_at_once_give_them_one_version_each(
    store: Store, mysql_url: str
) -> None:
    async def define(number: int) -> None:
        async with opened(mysql_url) as mine:
            for n in range(5):
                body = DefinitionRow(f"{number}-{n}", "report", b"{}")
                await mine.commit(batch(definitions=(body,), owner=f"m{number}"))

    await asyncio.gather(*map(define, range(4)))
    versions = [row[2] for row in (await dump(mysql_url))["definitions"]]
    assert sorted(versions) == list(range(1, 21))


async def test_a_deadlock_is_tried_again(store: Store, raw: Any, mysql_server: MySqlServer) -> None:
    await submit(store, *(run(n) for n in range(1, 5)))
    # The server ends the transaction that has written least, so ours is made the heavier one.
    execute(raw, "INSERT INTO attempts SELECT 4, seq, 1, 7, '', 0, 0, 0, 0, '', '' FROM seq_1_to_500")
    execute(raw, "UPDATE runs SET reason = 'held' WHERE id = 2")
    commit = asyncio.ensure_future(store.commit(batch(attempts=(attempt(1), attempt(2)))))
    await until(waiting_for_lock(mysql_server))
    execute(raw, "UPDATE runs SET reason = 'taken too' WHERE id = 1")  # the commit holds 1 and waits for 2
    raw.commit()
    assert await commit == Committed()
    assert await store.attempts(2) == [attempt(2)]


async def test_a_lock_that_is_held_too_long_is_waited_for_again_and_explained(
    store: Store, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await submit(store, run(1), run(2))
    monkeypatch.setattr(server, "LOCK_WAIT_SECONDS", 1)
    monkeypatch.setattr(server, "TRIES_MAX", 2)
    await store.close()  # the setting counts from the next connection on
    await store.open()
    execute(raw, "SELECT id FROM runs WHERE id = 2 FOR UPDATE")
    written = batch(changed=(run(1, reason="x"),), attempts=(attempt(1), attempt(2)))
    with pytest.raises(Unavailable, match="keeps rows of a run locked"):
        await store.commit(written)
    assert await store.attempts(1) == [], "all of a batch or nothing"
    raw.commit()
    assert await store.commit(written) == Committed()


# --- outcomes that are unknown --------------------------------------------------------------------------------------


async def test_a_commit_whose_connection_is_killed_leaves_nothing_and_can_be_repeated(
    store: Store, raw: Any, mysql_server: MySqlServer, mysql_url: str
) -> None:
    await submit(store, run(1))
    before = await dump(mysql_url)
    again = batch(new=(run(2, idempotency_key="k"),), changed=(run(1, reason="x"),), attempts=(attempt(1), attempt(2)))
    execute(raw, "SELECT 1 FROM runs WHERE id = 1 FOR UPDATE")
    commit = asyncio.ensure_future(store.commit(again))
    victim = await until(waiting_for_lock(mysql_server))
    await asyncio.to_thread(mysql_server.sql, f"KILL {victim}")
    with pytest.raises(Unavailable, match="MySQL at 127"):
        await commit
    raw.rollback()
    assert await dump(mysql_url) == before
    assert await store.commit(again) == Committed()
    assert await store.attempts(2) == [attempt(2)]


async def test_a_commit_whose_answer_was_lost_is_recognised_when_it_is_repeated(
    store: Store, network: ForgetfulNetwork, mysql_server: MySqlServer, mysql_url: str
) -> None:
    await submit(store, run(1), run(2), run(3, idempotency_key="taken"))
    far = mysql_url.replace(str(mysql_server.port), str(await network.start()))
    again = batch(
        new=(run(4, idempotency_key="k"), run(5, idempotency_key="taken")),
        changed=(ended(1), run(2, owner=OTHER, epoch=2)),
        attempts=(attempt(1), attempt(2), attempt(4), attempt(5)),
        definitions=(DefinitionRow("another", "report", b""),),
    )
    async with opened(far) as mine:
        network.forget = b"COMMIT"
        with pytest.raises(Unavailable, match="connection was lost"):
            await mine.commit(again)
        before = await dump(mysql_url)
        assert len(before["runs"]) == 4, "the batch was written, only its answer was lost"
        assert await mine.commit(again) == Committed(duplicates={5: 3})
    assert await dump(mysql_url) == before


async def test_a_commit_cut_off_between_its_statements_leaves_nothing(
    store: Store, network: ForgetfulNetwork, mysql_server: MySqlServer, mysql_url: str
) -> None:
    await submit(store, run(1))
    before = await dump(mysql_url)
    far = mysql_url.replace(str(mysql_server.port), str(await network.start()))
    again = batch(new=(run(2),), changed=(ended(1),), attempts=(attempt(1), attempt(2)))
    async with opened(far) as mine:
        for statement in (b"FOR UPDATE", b"INSERT INTO runs", b"INSERT INTO attempts"):
            network.forget = statement
            with pytest.raises(Unavailable):
                await mine.commit(again)
            assert await dump(mysql_url) == before
        assert await mine.commit(again) == Committed()
    assert await store.run(1) == ended(1)


async def test_a_claim_whose_answer_was_lost_returns_its_runs_when_it_is_repeated(
    store: Store, network: ForgetfulNetwork, mysql_server: MySqlServer, mysql_url: str
) -> None:
    await submit(store, run(1), run(2), attempts=(attempt(1),))
    far = mysql_url.replace(str(mysql_server.port), str(await network.start()))

    def forgetting(_: int) -> bool:
        network.forget = b"COMMIT"  # between the look and the taking
        return True

    async with opened(far) as mine:
        with pytest.raises(Unavailable):
            await mine.claim(OTHER, {OTHER}, forgetting)
        assert await store.owned(OTHER) == [1, 2], "the runs were taken, only the answer was lost"
        taken = await mine.claim(OTHER, {OTHER}, lambda _: False)
        assert [(each.run.id, each.run.epoch) for each in taken] == [(1, 3), (2, 3)]
        assert taken[0].attempts == [attempt(1)]
        assert await mine.claim(OTHER, {OTHER}, every_run) == []


async def test_a_new_run_that_an_earlier_try_is_just_inserting_is_written_once(
    store: Store, raw: Any, mysql_server: MySqlServer
) -> None:
    await submit(store, run(9))
    values = "1, 'report', 'd', 1, 'm1@boot', 1, 2, '{}', 1700000000.25, '', 0"
    columns = "id, workflow, digest, state, owner, epoch, priority, params, created_at, reason, tasks"
    execute(raw, f"INSERT INTO runs ({columns}) VALUES ({values})")
    again = asyncio.ensure_future(store.commit(batch(new=(run(1), run(2)), attempts=(attempt(1),))))
    await until(waiting_for_lock(mysql_server))
    raw.commit()
    assert await again == Committed()
    assert [row.id for row in await store.runs()] == [9, 2, 1]
    assert await store.attempts(1) == [attempt(1)]


# --- the server goes away -------------------------------------------------------------------------------------------


@pytest.fixture
def own_server() -> Iterator[MySqlServer]:
    """One to crash, which nobody else is using."""
    server = MySqlServer()
    yield server
    server.close()


async def test_a_store_outlives_a_crash_of_its_server(own_server: MySqlServer) -> None:
    url = own_server.new_database()
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
            with pytest.raises(Unavailable, match="MySQL at 127"):
                await question
        await asyncio.to_thread(own_server.start)
        assert await dump(url) == before
        assert await store.run(1) == run(1)
        assert await store.commit(batch(attempts=(attempt(1, task=1),))) == Committed()
        assert len(await store.claim(OTHER, {OTHER}, every_run)) == 1


async def test_a_server_that_may_lose_commits_or_large_workflows_is_refused(own_server: MySqlServer) -> None:
    url = own_server.new_migrated_database()
    own_server.sql("SET GLOBAL innodb_flush_log_at_trx_commit = 2")
    with pytest.raises(UsageError, match="set innodb_flush_log_at_trx_commit = 1"):
        await open_store(url).open()
    async with opened(url, exclusive=False) as reader:
        assert await reader.runs() == []
    own_server.sql("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
    own_server.sql("SET GLOBAL max_allowed_packet = 16777216")
    with pytest.raises(UsageError, match="set max_allowed_packet = 256M"):
        await open_store(url).open()


async def test_a_server_without_a_connection_left_is_explained_and_waited_for(own_server: MySqlServer) -> None:
    url = own_server.new_migrated_database()
    own_server.sql("SET GLOBAL max_connections = 10")
    async with opened(url) as store:
        await submit(store, run(1))
        others = [own_server.connect() for _ in range(9)]
        others.append(own_server.connect())  # the administrator's spare one
        with pytest.raises(Unavailable, match="raise max_connections"):
            await store.claim(OTHER, {OTHER}, every_run)
        assert await store.commit(batch(attempts=(attempt(1),))) == Committed(), "commits have a connection already"
        for each in others:
            each.close()

        async def claimed() -> bool:
            with suppress(Unavailable):  # the server has to notice first who has gone
                return len(await store.claim(OTHER, {OTHER}, every_run)) == 1
            return False

        await until(claimed)


async def test_a_long_report_holds_up_neither_commits_nor_claims(store: Store, raw: Any) -> None:
    await submit(store, run(1), attempts=(attempt(1),))
    execute(raw, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    for table in ("runs", "attempts", "definitions"):
        execute(raw, f"SELECT * FROM {table}")  # a snapshot that stays open
    assert await store.commit(batch(new=(run(2),), changed=(run(1, reason="x"),))) == Committed()
    assert len(await store.claim(OTHER, {OTHER}, every_run)) == 2


# --- opening --------------------------------------------------------------------------------------------------------


async def test_a_database_without_tables_is_refused_or_made(mysql_server: MySqlServer) -> None:
    url = mysql_server.new_database()
    with pytest.raises(UsageError, match="dsfast db upgrade"):
        await open_store(url).open()
    async with asyncio.TaskGroup() as group:  # two masters that start at once
        stores = [open_store(url, create=True) for _ in range(2)]
        for each in stores:
            group.create_task(each.open())
    assert await submit(stores[0], run(1)) == Committed()
    for each in stores:
        await each.close()


async def test_older_and_newer_tables_are_refused(mysql_server: MySqlServer, mysql_url: str) -> None:
    mysql_server.sql("UPDATE dsfast_revision SET version_num = '9999'", mysql_url)
    with pytest.raises(UsageError, match="newer dsfast"):
        await open_store(mysql_url, create=True).open()
    mysql_server.sql("DELETE FROM dsfast_revision", mysql_url)
    with pytest.raises(UsageError, match="no dsfast tables"):
        await open_store(mysql_url).open()


async def test_a_server_that_refuses_is_explained_without_the_password(mysql_server: MySqlServer) -> None:
    good = mysql_server.url("mysql")
    for url, sentence in (
        (mysql_server.url("mysql", password="wrong secret"), "check user and password"),
        (mysql_server.url("nothing_here"), "no such database"),
        (good.replace(str(mysql_server.port), "1"), "cannot be reached"),
        (good.replace("127.0.0.1", "no-such-host.invalid"), "cannot be reached"),
    ):
        with pytest.raises(Unavailable, match=sentence) as caught:
            await open_store(url).open()
        assert PASSWORD not in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "%20" not in str(caught.value)


async def test_a_read_only_server_is_explained(mysql_server: MySqlServer, mysql_url: str) -> None:
    mysql_server.sql("CREATE USER IF NOT EXISTS plain IDENTIFIED BY 'plain'")
    mysql_server.sql("GRANT ALL ON *.* TO plain")
    mysql_server.sql("REVOKE READ ONLY ADMIN, SUPER ON *.* FROM plain")
    url = mysql_url.replace(mysql_server.url(""), mysql_server.url("", user="plain", password="plain"))
    async with opened(url) as store:
        await submit(store, run(1))
        mysql_server.sql("SET GLOBAL read_only = ON")
        try:
            with pytest.raises(Unavailable, match="read-only"):
                await store.commit(batch(attempts=(attempt(1),)))
            assert await store.run(1) == run(1)
        finally:
            mysql_server.sql("SET GLOBAL read_only = OFF")
        assert await store.commit(batch(attempts=(attempt(1),))) == Committed()


# --- what only MySQL can get wrong ----------------------------------------------------------------------------------


async def test_keys_that_differ_in_case_accents_or_trailing_blanks_are_different_keys(store: Store) -> None:
    keys = ["key", "KEY", "kéy", "key ", "key\t"]
    for number, key in enumerate(keys, 1):
        assert await submit(store, run(number, idempotency_key=key)) == Committed()
    assert [await store.find_key(key) for key in keys] == [1, 2, 3, 4, 5]


async def test_the_longest_workflow_and_the_longest_names_fit(store: Store) -> None:
    body = b'"' * (64 << 20)  # as large as the api takes, and every byte of it has to be escaped
    name = "\U0001f600" * 200
    long = run(1, workflow=name, idempotency_key=name, owner="m" * 100 + "@boot", reason="\U0001f600" * 20_000)
    definition = DefinitionRow("d" * 64, name, body)
    assert await store.commit(batch(new=(long,), definitions=(definition,), owner=long.owner or "")) == Committed()
    assert await store.run(1) == long
    assert await store.definition("d" * 64) == body


async def test_a_batch_larger_than_one_statement_is_one_transaction(
    store: Store, network: ForgetfulNetwork, mysql_server: MySqlServer, mysql_url: str
) -> None:
    await submit(store, run(1))
    far = mysql_url.replace(str(mysql_server.port), str(await network.start()))
    large = tuple(attempt(1, task, outputs=b"%d" % task * 50_000) for task in range(100, 120))
    async with opened(far) as mine:
        network.forget = b"(1, 119, "  # it travels in one of the last statements
        with pytest.raises(Unavailable):
            await mine.commit(batch(attempts=large))
        assert await store.attempts(1) == []
        await mine.commit(batch(attempts=large))
    assert await store.attempts(1) == list(large)


# --- the link -------------------------------------------------------------------------------------------------------


async def test_a_silent_network_is_given_up_and_mends(
    store: Store, mysql_server: MySqlServer, mysql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await submit(store, run(1))
    proxy = await Proxy(mysql_server.port).start()
    monkeypatch.setattr(server, "COMMAND_SECONDS_MAX", 1.0)
    async with opened(mysql_url.replace(str(mysql_server.port), str(proxy.port))) as far:
        await far.commit(batch(epochs={1: 1}))
        monkeypatch.setattr(server, "CONNECT_SECONDS_MAX", 0.2)
        proxy.freeze()
        for _ in range(2):  # while connected, and while connecting
            with pytest.raises(Unavailable, match=r"the connection was lost|cannot be reached"):
                await far.commit(batch(attempts=(attempt(1),)))
        proxy.mend()
        monkeypatch.undo()
        assert await far.commit(batch(attempts=(attempt(1),))) == Committed()
    await proxy.close()


async def test_a_commit_that_is_cancelled_is_finished_and_leaves_a_store_that_works(
    store: Store, raw: Any, mysql_server: MySqlServer
) -> None:
    await submit(store, run(1))
    execute(raw, "SELECT 1 FROM runs WHERE id = 1 FOR UPDATE")
    commit = asyncio.ensure_future(store.commit(batch(attempts=(attempt(1),))))
    await until(waiting_for_lock(mysql_server))
    commit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await commit
    raw.commit()
    assert await store.commit(batch(attempts=(attempt(1, task=1),))) == Committed()
    assert await store.attempts(1) == [attempt(1), attempt(1, task=1)]
