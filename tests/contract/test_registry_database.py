"""What a database and its administrators can do to a registry of leases, with real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest

from dsfast.errors import Unavailable, UsageError
from dsfast.registry import Session, open_registry
from dsfast.registry.postgres import CHANNEL, PostgresRoster
from tests.contract.registries import (
    Cluster,
    Ground,
    MemoryGround,
    ServedGround,
    SqliteGround,
    mysql_ground,
    postgres_ground,
    worker,
)
from tests.servers.mysql import MySqlServer
from tests.servers.postgres import PostgresServer

C, S, L = Session.CONNECTED, Session.SUSPENDED, Session.LOST


Servers = tuple[PostgresServer, MySqlServer]
NEVER = {"sqlite": "0, 1e12", "postgresql": "'infinity'", "mysql": "'9999-12-31'"}


class Table:
    """The members' table as an administrator has it, in either database."""

    def __init__(self, cluster: Cluster, servers: Servers) -> None:
        self._ground, self._servers = cluster.ground, servers

    async def sql(self, statement: str) -> str:
        if isinstance(self._ground, SqliteGround):
            return str(self._ground.sql(statement))
        assert isinstance(self._ground, ServedGround)
        postgres, mysql = self._servers
        if self._ground.url.startswith("mysql"):
            return str(await asyncio.to_thread(mysql.sql, statement, self._ground.url))
        return await asyncio.to_thread(postgres.sql, statement, self._ground.url.rpartition("/")[2])

    async def put(self, body: str) -> None:
        assert not isinstance(self._ground, MemoryGround)
        never = NEVER[self._ground.url.partition(":")[0]]
        row = f"'{self._ground.cluster}', '{hash(body)}', '', '', '', '{body}', {never}"
        await self.sql(f"INSERT INTO dsfast_members VALUES ({row})")


@pytest.fixture
async def cluster(
    request: pytest.FixtureRequest, postgres_server: PostgresServer, mysql_server: MySqlServer, tmp_path: Path
) -> AsyncIterator[Cluster]:
    grounds: dict[str, Callable[[], Ground]] = {
        "sqlite": lambda: SqliteGround(tmp_path / "members.db"),
        "postgres": lambda: postgres_ground(postgres_server),
        "mysql": lambda: mysql_ground(mysql_server),
        "empty mysql": lambda: ServedGround(mysql_server.new_database(), mysql_server.port),
        "empty postgres": lambda: ServedGround(postgres_server.new_database(), postgres_server.port),
    }
    cluster = Cluster(grounds[request.param]())
    yield cluster
    await cluster.close()


@pytest.fixture
def table(cluster: Cluster, postgres_server: PostgresServer, mysql_server: MySqlServer) -> Table:
    return Table(cluster, (postgres_server, mysql_server))


every = pytest.mark.parametrize("cluster", ["sqlite", "postgres", "mysql"], indirect=True)
every_empty = pytest.mark.parametrize("cluster", ["sqlite", "empty postgres", "empty mysql"], indirect=True)
only_postgres = pytest.mark.parametrize("cluster", ["postgres"], indirect=True)
only_sqlite = pytest.mark.parametrize("cluster", ["sqlite"], indirect=True)


@every
async def test_a_row_that_an_administrator_deletes_comes_back(cluster: Cluster, table: Table) -> None:
    registry, own = await cluster.start(session=3.0)
    await registry.join(worker("w"))
    await table.sql("DELETE FROM dsfast_members WHERE id = 'w@1'")
    await own.until(lambda: own.sessions == [C, L, C])
    assert "w@1" in await table.sql("SELECT id FROM dsfast_members")


@every_empty
async def test_a_dropped_table_is_made_again(cluster: Cluster, table: Table) -> None:
    registry, own = await cluster.start(session=3.0)
    await registry.join(worker("w"))
    await table.sql("DROP TABLE dsfast_members")
    await own.until(lambda: L in own.sessions and own.sessions[-1] is C)
    await own.until_ids("w@1")


@every
async def test_rows_that_are_no_members_are_ignored_and_named_once(
    cluster: Cluster, table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    registry, seen = await cluster.start(session=3.0)
    for body in ("nonsense", '{"role": 7}', "[" * 70_000):
        await table.put(body)
    await registry.join(worker("w"))
    await registry.join(worker("w", weight=7))
    await seen.until(lambda: [member.weight for member in seen.views[-1]] == [7])
    assert [record.name for record in caplog.records if "foreign" in record.message] == ["dsfast.registry"] * 3


@every
async def test_clusters_in_one_table_do_not_see_each_other(cluster: Cluster) -> None:
    assert not isinstance(cluster.ground, MemoryGround)
    registry, own = await cluster.start()
    stranger = open_registry(cluster.ground.url, cluster="other", session_seconds=20.0)
    stranger, theirs = await cluster.start(registry=stranger)
    await registry.join(worker("w"))
    await stranger.join(worker("x"))
    await own.until_ids("w@1")
    await theirs.until_ids("x@1")


@every_empty
async def test_many_start_at_once_on_an_empty_database_and_half_of_them_vanish(cluster: Cluster) -> None:
    started = await asyncio.gather(*(cluster.start(session=2.0) for _ in range(8)))
    await asyncio.gather(*(registry.join(worker(f"w{n}")) for n, (registry, _) in enumerate(started)))
    for _, seen in started:
        await seen.until_ids(*(f"w{n}@1" for n in range(8)))
    await asyncio.gather(*(registry.leave() for registry, _ in started[:4]))
    for _, seen in started:
        await seen.until_ids(*(f"w{n}@1" for n in range(4, 8)))


@only_postgres
async def test_a_restart_of_the_server_loses_nobody(cluster: Cluster, postgres_server: PostgresServer) -> None:
    registry, own = await cluster.start(session=30)
    _, other = await cluster.start(session=30)
    await registry.join(worker("w"))
    await other.until_ids("w@1")
    postgres_server.stop()
    try:
        await own.until_session(S)
        await other.until_session(S)
    finally:
        postgres_server.start()  # not in a thread: the server would end with it
    await own.until_session(C)
    await other.until_session(C)
    assert own.sessions == other.sessions == [C, S, C]
    assert () not in other.views[1:]


@only_postgres
async def test_killed_connections_are_made_again_unnoticed(cluster: Cluster, table: Table) -> None:
    registry, own = await cluster.start(session=30)
    other_registry, other = await cluster.start(session=30)
    await registry.join(worker("w"))
    await other.until_ids("w@1")
    await table.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'dsfast registry' AND datname = current_database()"
    )
    await other_registry.join(worker("x"))
    await own.until_ids("w@1", "x@1")
    assert own.sessions == other.sessions == [C]


@only_postgres
async def test_a_silent_partition_is_noticed_on_our_own_clock(cluster: Cluster) -> None:
    registry, own = await cluster.start(session=1.0)
    _, other = await cluster.start(session=20.0)
    await registry.join(worker("w"))
    await other.until_ids("w@1")
    assert isinstance(cluster.ground, ServedGround)
    cluster.ground.proxy(registry).freeze()
    await own.until_session(L)
    assert own.sessions == [C, S, L]
    await other.until_ids()
    cluster.ground.proxy(registry).mend()
    await own.until_session(C)
    await other.until_ids("w@1")


@only_postgres
async def test_ends_of_leases_are_seen_by_members_that_sweep_at_the_same_time(cluster: Cluster) -> None:
    started = await asyncio.gather(*(cluster.start(session=1.0) for _ in range(8)))
    await asyncio.gather(*(registry.join(worker(f"w{n}")) for n, (registry, _) in enumerate(started)))
    for registry, _ in started[:4]:
        await cluster.ground.suspend(registry)
    for _, seen in started[4:]:
        await seen.until_ids(*(f"w{n}@1" for n in range(4, 8)))
        assert S not in seen.sessions


@only_postgres
async def test_a_wrong_password_and_a_missing_database_are_refused_at_once(
    cluster: Cluster, postgres_server: PostgresServer
) -> None:
    for url in (postgres_server.url("postgres", password="not-it"), postgres_server.url("nowhere")):
        registry = open_registry(url, cluster="test", session_seconds=5.0)
        with pytest.raises(UsageError, match=f"PostgreSQL at 127.0.0.1:{postgres_server.port}/") as refusal:
            await registry.start(print, print)
        assert "not-it" not in str(refusal.value)


@only_postgres
async def test_a_server_out_of_reach_is_a_sentence(
    cluster: Cluster, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsfast.registry.leased.START_SECONDS_MAX", 0.3)
    url = "postgresql://anna:secret@127.0.0.1:1/dsfast"
    registry = open_registry(url, cluster="test", session_seconds=5.0)
    with pytest.raises(Unavailable, match=r"127.0.0.1:1/dsfast is out of reach.*\(tried for 0.3 seconds\)") as failure:
        await registry.start(print, print)
    assert "secret" not in str(failure.value)


@only_sqlite
async def test_leases_from_before_the_machines_boot_are_void(cluster: Cluster) -> None:
    assert isinstance(cluster.ground, SqliteGround)
    registry, _ = await cluster.start()
    await registry.join(worker("w"))
    later = monotonic() + 1e6  # the clock starts again at every boot: what is ahead of it is older than the boot
    cluster.ground.sql(
        "INSERT INTO dsfast_members VALUES ('test', 'x@1', 'worker', 'x', '1', "
        """'{"role":"worker","name":"x","boot":"1"}', ?, ?)""",
        later,
        later + 60,
    )
    _, seen = await cluster.start()
    assert seen.ids == ["w@1"]


@only_sqlite
async def test_columns_of_the_wrong_kind_are_nobodys_end(cluster: Cluster) -> None:
    assert isinstance(cluster.ground, SqliteGround)
    registry, seen = await cluster.start()
    for body, until in ((b"\xff\xfe", 1e12), ("x", "soon"), (7, b"soon")):
        row = ("test", str(body), "", "", "", body, 0, until)
        cluster.ground.sql("INSERT INTO dsfast_members VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *row)
    await registry.join(worker("w"))
    await seen.until_ids("w@1")


@only_sqlite
async def test_a_file_that_cannot_be_one_is_refused_at_once(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear database, " * 100)
    for path in (tmp_path / "nowhere" / "members.db", tmp_path / "letter.txt"):
        registry = open_registry(f"sqlite:///{path}", cluster="test", session_seconds=5.0)
        with pytest.raises(UsageError, match=f"the registry's SQLite file {path} cannot be used"):
            await registry.start(print, print)


@pytest.mark.parametrize("cluster", ["mysql"], indirect=True)
async def test_a_restart_of_mysql_loses_nobody(cluster: Cluster, mysql_server: MySqlServer) -> None:
    registry, own = await cluster.start(session=30)
    _, other = await cluster.start(session=30)
    await registry.join(worker("w"))
    await other.until_ids("w@1")
    mysql_server.stop(immediate=True)
    try:
        await own.until_session(S)
        await other.until_session(S)
    finally:
        mysql_server.start()
    await own.until_session(C)
    await other.until_session(C)
    assert own.sessions == other.sessions == [C, S, C]
    assert () not in other.views[1:]


@pytest.mark.parametrize("cluster", ["mysql"], indirect=True)
async def test_killed_connections_to_mysql_are_made_again_unnoticed(cluster: Cluster, table: Table) -> None:
    registry, own = await cluster.start(session=30)
    await registry.join(worker("w"))
    await own.until_ids("w@1")
    connections = await table.sql("SELECT group_concat(id) FROM information_schema.processlist WHERE command = 'Sleep'")
    for number in connections.strip("(),'").split(","):
        with suppress(Exception):  # one of them is ours
            await table.sql(f"KILL {number}")
    await registry.join(worker("w", weight=7))
    await own.until(lambda: [member.weight for member in own.views[-1]] == [7])
    assert own.sessions == [C]


async def test_a_mysql_that_refuses_is_a_sentence_without_the_password(mysql_server: MySqlServer) -> None:
    for url, said in (
        (mysql_server.url("mysql", password="hush"), "Access denied"),
        (mysql_server.url("nothing_here"), "Unknown database"),
    ):
        registry = open_registry(url, cluster="c", session_seconds=5.0)
        with pytest.raises(UsageError, match=said) as caught:
            await registry.start(lambda _: None, lambda _: None)
        assert "hush" not in str(caught.value)


async def test_a_notice_to_a_connection_that_was_given_up_is_no_news(postgres_server: PostgresServer) -> None:
    """It was on its way: a driver that has let go of a connection does not know any more whose it is."""
    ground = postgres_ground(postgres_server)
    roster = PostgresRoster(ground.url, "here", ground.cluster, 60.0)
    woken: list[bool] = []
    roster.attach(lambda: woken.append(True))
    await roster.look(None)
    connection = roster._connection
    roster._disconnect()
    woken.clear()
    roster._on_notice(connection, 1, CHANNEL, ground.cluster)
    assert not woken
    await roster.close()
