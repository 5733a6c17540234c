"""One suite for every registry: memory, leases in SQLite, PostgreSQL and MySQL, ZooKeeper."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from dsfast.errors import UsageError
from dsfast.model import Member
from dsfast.registry import Session
from tests.contract.registries import (
    Child,
    Cluster,
    Ground,
    MemoryGround,
    Seen,
    ServedGround,
    SqliteGround,
    mysql_ground,
    postgres_ground,
    worker,
)

SHORT = 1.0  # a session that a test waits for the end of
LONG = 4.0  # a session that must survive an outage a test makes
C, S, L = Session.CONNECTED, Session.SUSPENDED, Session.LOST


@pytest.fixture(params=["memory", "sqlite", "postgres", "mysql", "zookeeper"])
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Ground:
    if request.param == "memory":
        return MemoryGround()
    if request.param == "sqlite":
        return SqliteGround(tmp_path / "members.db")
    server = request.getfixturevalue(f"{request.param}_server")
    grounds = {"postgres": postgres_ground, "mysql": mysql_ground}
    make = grounds.get(request.param)
    return make(server) if make is not None else ServedGround(server.new_url(), server.port)


@pytest.fixture
async def cluster(ground: Ground) -> AsyncIterator[Cluster]:
    cluster = Cluster(ground)
    yield cluster
    await cluster.close()


async def test_start_reports_the_session_and_the_members_before_it_returns(cluster: Cluster) -> None:
    _, first = await cluster.start()
    assert first.sessions == [C]
    assert first.views == [()]


async def test_who_starts_later_is_told_of_everyone_at_once(cluster: Cluster) -> None:
    registry, _ = await cluster.start()
    await registry.join(worker("w", host="10.0.0.7", port=1234, groups=("gpu", "default"), slots=8))
    _, late = await cluster.start()
    assert late.views == [(worker("w", host="10.0.0.7", port=1234, groups=("gpu", "default"), slots=8),)]


async def test_a_join_is_seen_by_others_and_by_oneself(cluster: Cluster) -> None:
    registry, own = await cluster.start()
    _, other = await cluster.start()
    await registry.join(worker("w"))
    await other.until_ids("w@1")
    await own.until_ids("w@1")


async def test_it_says_until_when_others_see_us_for_sure(cluster: Cluster) -> None:
    registry, own = await cluster.start(session=SHORT)
    assert registry.listed_until == -math.inf
    await registry.join(worker("w"))
    assert registry.listed_until > time.monotonic()
    await cluster.ground.suspend(registry)
    await own.until_session(S)
    await cluster.ground.outlast(registry, own)
    assert registry.listed_until < time.monotonic()
    await cluster.ground.resume(registry)
    await own.until_session(C)
    assert registry.listed_until > time.monotonic()
    await registry.leave()
    assert registry.listed_until == -math.inf


async def test_ids_are_sorted(cluster: Cluster) -> None:
    _, watcher = await cluster.start()
    for name in ("m", "z", "a", "B"):
        registry, _ = await cluster.start()
        await registry.join(worker(name))
    await watcher.until_ids("B@1", "a@1", "m@1", "z@1")


async def test_a_leave_is_seen_without_waiting_for_a_session_to_end(cluster: Cluster) -> None:
    registry, _ = await cluster.start(session=60)
    _, other = await cluster.start(session=60)
    await registry.join(worker("w"))
    await other.until_ids("w@1")
    await registry.leave()
    await other.until_ids()
    await registry.join(worker("w"))
    await other.until_ids("w@1")


async def test_stop_leaves_and_falls_silent(cluster: Cluster) -> None:
    registry, own = await cluster.start(session=60)
    other_registry, other = await cluster.start(session=60)
    await registry.join(worker("w"))
    await other.until_ids("w@1")
    reported = len(own.sessions), len(own.views)
    await registry.stop()
    await other.until_ids()
    await other_registry.join(worker("x"))
    await other.until_ids("x@1")
    assert (len(own.sessions), len(own.views)) == reported


async def test_a_restart_is_a_new_member_beside_the_old_one(cluster: Cluster) -> None:
    _, watcher = await cluster.start()
    before, _ = await cluster.start()
    after, _ = await cluster.start()
    await before.join(worker("w", boot="1"))
    await after.join(worker("w", boot="2"))
    await watcher.until_ids("w@1", "w@2")
    await before.leave()
    await watcher.until_ids("w@2")


async def test_joining_again_replaces_what_others_see(cluster: Cluster) -> None:
    registry, _ = await cluster.start()
    _, other = await cluster.start()
    await registry.join(worker("w", weight=100))
    await other.until_ids("w@1")
    await registry.join(worker("w", weight=7))
    await other.until(lambda: [member.weight for member in other.views[-1]] == [7])
    first = next(number for number, view in enumerate(other.views) if view)
    assert all(view for view in other.views[first:]), "an update is no absence"


async def test_joining_as_another_member_takes_the_first_one_away(cluster: Cluster) -> None:
    registry, _ = await cluster.start()
    _, other = await cluster.start()
    await registry.join(worker("w", boot="1"))
    await registry.join(worker("w", boot="2"))
    await other.until_ids("w@2")


async def test_a_member_that_is_too_large_is_refused_with_a_sentence(cluster: Cluster) -> None:
    registry, seen = await cluster.start()
    with pytest.raises(UsageError, match=r"takes \d+ bytes in the registry, and 65536 are allowed"):
        await registry.join(worker("w", groups=tuple(f"group-{number}" for number in range(10_000))))
    assert seen.views == [()]


async def test_a_short_outage_is_a_suspension_and_nobody_else_notices(cluster: Cluster) -> None:
    registry, own = await cluster.start(session=LONG)
    _, other = await cluster.start(session=60)
    await registry.join(worker("w"))
    await other.until_ids("w@1")
    await cluster.ground.suspend(registry)
    await own.until_session(S)
    await cluster.ground.resume(registry)
    await own.until_session(C)
    assert own.sessions == [C, S, C]
    assert other.ids == ["w@1"]
    assert () not in other.views[1:]


async def test_a_long_outage_loses_the_session_and_heals_by_itself(cluster: Cluster) -> None:
    registry, own = await cluster.start(session=SHORT)
    _, other = await cluster.start(session=60)
    await registry.join(worker("w"))
    await cluster.ground.suspend(registry)
    await own.until_session(S)
    await cluster.ground.outlast(registry, own)
    await cluster.ground.resume(registry)
    await own.until_session(C)
    assert own.sessions == [C, S, L, C]
    await own.until_ids("w@1")
    await other.until_ids("w@1")


async def test_out_of_contact_the_last_known_members_stay(cluster: Cluster) -> None:
    registry, own = await cluster.start(session=SHORT)
    other, _ = await cluster.start(session=60)
    await registry.join(worker("w"))
    await other.join(worker("x"))
    await own.until_ids("w@1", "x@1")
    views = len(own.views)
    await cluster.ground.suspend(registry)
    await own.until_session(S)
    await cluster.ground.outlast(registry, own)
    assert len(own.views) == views
    await cluster.ground.resume(registry)


async def test_a_join_waits_out_an_outage(cluster: Cluster) -> None:
    registry, own = await cluster.start(session=SHORT)
    await registry.join(worker("w"))
    await cluster.ground.suspend(registry)
    await own.until_session(S)
    join = asyncio.create_task(registry.join(worker("w", weight=7)))
    await cluster.ground.outlast(registry, own)
    assert not join.done()
    await cluster.ground.resume(registry)
    await join
    await own.until(lambda: [member.weight for member in own.views[-1]] == [7])


async def test_a_leave_in_an_outage_returns_and_holds(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsfast.registry.leased.LEAVE_SECONDS_MAX", 0.2)
    registry, own = await cluster.start(session=SHORT)
    _, other = await cluster.start(session=60)
    await registry.join(worker("w"))
    await other.until_ids("w@1")
    await cluster.ground.suspend(registry)
    await own.until_session(S)
    await registry.leave()
    await cluster.ground.resume(registry)
    await other.until_ids()
    await own.until_session(C)
    await own.until_ids()


async def test_callbacks_run_on_the_loop_and_one_that_fails_stops_nothing(cluster: Cluster) -> None:
    failures: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))
    registry = await cluster.ground.open(60.0)
    seen = Seen()

    def on_members(members: tuple[Member, ...]) -> None:
        seen.on_members(members)
        raise ZeroDivisionError("a bug in a callback")

    await registry.start(on_members, seen.on_session)
    await registry.join(worker("w"))
    await registry.join(worker("w", weight=7))
    await seen.until(lambda: len(seen.views) == 3)
    await registry.stop()
    assert seen.threads == {threading.get_ident()}
    assert [type(failure) for failure in failures] == [ZeroDivisionError] * 3


@pytest.fixture
async def children() -> AsyncIterator[list[Child]]:
    children: list[Child] = []
    yield children
    for child in children:
        with suppress(ProcessLookupError):
            await child.end()


@pytest.mark.parametrize("ground", ["sqlite", "postgres", "zookeeper"], indirect=True)
async def test_a_killed_process_disappears_with_its_session(cluster: Cluster, children: list[Child]) -> None:
    _, watcher = await cluster.start(session=60)
    children.append(await Child.start(cluster.ground, "w", SHORT))
    await watcher.until_ids("w@1")
    children[0].process.kill()
    await watcher.until_ids()


@pytest.mark.parametrize("ground", ["sqlite", "postgres", "zookeeper"], indirect=True)
async def test_a_paused_process_finds_itself_lost_before_connected(cluster: Cluster, children: list[Child]) -> None:
    _, watcher = await cluster.start(session=60)
    children.append(child := await Child.start(cluster.ground, "w", SHORT))
    await watcher.until_ids("w@1")
    child.sessions.clear()
    os.kill(child.process.pid, signal.SIGSTOP)
    await watcher.until_ids()
    os.kill(child.process.pid, signal.SIGCONT)
    await child.until("connected")
    assert child.sessions[-2:] == ["lost", "connected"]
    assert "connected" not in child.sessions[:-1]
    await watcher.until_ids("w@1")
