"""How soon do others know? A join, a leave and a killed process, from the act to the callback of another member.

Two registries in one process, each with its own connection, over real servers on this machine. The killed process is
another one, with a session of SESSION_SECONDS; what is measured there is that session and the registry's own delay.
And a crowd that joins at once, and is back at once when its server is.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from dsfast.chaos.cluster import clean_environ
from dsfast.chaos.zookeeper import ZooKeeperServer
from dsfast.registry import Registry, open_registry
from tests.contract.registries import Child, Cluster, Seen, ServedGround, SqliteGround, postgres_ground, worker
from tests.servers.postgres import PostgresServer

SESSION_SECONDS = 2.0
ROUNDS = 20
MEMBERS = int(os.environ.get("DSFAST_BENCH_MEMBERS", "300"))
MEMBERS_LOOK = 20  # when the benchmark is only run to see that it can
CROWDS = 10  # processes: one interpreter is no crowd
CROWD = Path(__file__).with_name("crowd.py")
CROWD_SESSION_SECONDS = 30.0
CROWD_SECONDS_MAX = 600.0
LOOK_SECONDS = 0.01
T = TypeVar("T")


class Pair:
    """Two members' registries, and the loop they live on."""

    def __init__(self, ground: SqliteGround | ServedGround) -> None:
        self.ground = ground
        self._loop = uvloop.new_event_loop()
        self._cluster = Cluster(ground)
        self.registry, _ = self.run(self._start())
        _, self.seen = self.run(self._start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    async def _start(self) -> tuple[Registry, Seen]:
        registry = open_registry(self.ground.url, cluster=self.ground.cluster, session_seconds=30.0)
        return await self._cluster.start(registry=registry)

    def close(self) -> None:
        self.run(self._cluster.close())
        self._loop.close()


@pytest.fixture(params=["sqlite", "postgresql", "zookeeper"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    if request.param == "sqlite":
        pair = Pair(SqliteGround(tmp_path / "members.db"))
    elif request.param == "postgresql":
        pair = Pair(postgres_ground(request.getfixturevalue("postgres_server")))
    else:
        server = request.getfixturevalue("zookeeper_server")
        pair = Pair(ServedGround(server.new_url(), server.port))
    yield pair
    pair.close()


@pytest.mark.benchmark(group="registry: a join is seen by another member")
def test_join(benchmark: Any, pair: Pair) -> None:
    async def join() -> None:
        await asyncio.gather(pair.registry.join(worker("w")), pair.seen.until_ids("w@1"))

    async def apart() -> None:
        await asyncio.gather(pair.registry.leave(), pair.seen.until_ids())

    benchmark.pedantic(lambda: pair.run(join()), setup=lambda: pair.run(apart()), rounds=ROUNDS)


@pytest.mark.benchmark(group="registry: a leave is seen by another member")
def test_leave(benchmark: Any, pair: Pair) -> None:
    async def leave() -> None:
        await asyncio.gather(pair.registry.leave(), pair.seen.until_ids())

    async def together() -> None:
        await asyncio.gather(pair.registry.join(worker("w")), pair.seen.until_ids("w@1"))

    benchmark.pedantic(lambda: pair.run(leave()), setup=lambda: pair.run(together()), rounds=ROUNDS)


@pytest.mark.benchmark(group=f"registry: a process killed with a session of {SESSION_SECONDS:g} s is seen to be gone")
def test_killed_process(benchmark: Any, pair: Pair) -> None:
    children: list[Child] = []

    async def born() -> None:
        children.append(await Child.start(pair.ground, "w", SESSION_SECONDS))
        await pair.seen.until_ids("w@1")

    async def killed() -> None:
        children[-1].process.kill()
        await pair.seen.until_ids()
        await children[-1].end()

    benchmark.pedantic(lambda: pair.run(killed()), setup=lambda: pair.run(born()), rounds=5)


class Crowds:
    """Processes full of members, who all do the same at once, and one registry that looks on."""

    def __init__(self, ground: ServedGround, members: int) -> None:
        self._members = members
        self._loop = uvloop.new_event_loop()
        each = members // CROWDS
        begun = [self._begin(ground, f"c{number}", each) for number in range(CROWDS)]
        self._crowds = self.run(_all(begun))
        self.each_says("started")
        self._watcher, self._seen = self.run(self._watch(ground))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    async def _begin(self, ground: ServedGround, name: str, members: int) -> asyncio.subprocess.Process:
        words = [str(CROWD), ground.url, ground.cluster, name, str(CROWD_SESSION_SECONDS), str(members)]
        pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
        command = ["setpriv", "--pdeathsig", "KILL", sys.executable, *words]
        return await asyncio.create_subprocess_exec(*command, env=clean_environ(Path.cwd()), **pipes)

    async def _watch(self, ground: ServedGround) -> tuple[Registry, Seen]:
        seen, lease = Seen(), CROWD_SESSION_SECONDS
        registry = open_registry(ground.url, cluster=ground.cluster, session_seconds=lease)
        await registry.start(seen.on_members, seen.on_session)
        return registry, seen

    def join(self) -> None:
        """All at once, until the one that looks on sees all of them."""
        for crowd in self._crowds:
            assert crowd.stdin is not None
            crowd.stdin.write(b"\n")
        self.run(_until(self._seen, lambda: len(self._seen.views[-1]) == self._members))
        self.each_says("joined")

    def each_says(self, word: str) -> None:
        self.run(_all([_said(crowd, word) for crowd in self._crowds]))

    def all_are_seen(self) -> None:
        self.run(_until(self._seen, lambda: len(self._seen.views[-1]) == self._members))

    def close(self) -> None:
        for crowd in self._crowds:
            crowd.kill()
        self.run(_all([crowd.wait() for crowd in self._crowds]))
        self.run(self._watcher.stop())
        self._loop.close()


async def _all(works: list[Coroutine[Any, Any, T]]) -> list[T]:
    return list(await asyncio.gather(*works))


async def _said(crowd: asyncio.subprocess.Process, word: str) -> None:
    assert crowd.stdout is not None
    while (line := (await crowd.stdout.readline()).decode().strip()) != word:
        assert line, f"a crowd ended before it said {word!r}"


async def _until(seen: Seen, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(CROWD_SECONDS_MAX):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)


@pytest.fixture(params=["postgresql", "zookeeper"])
def crowded(request: pytest.FixtureRequest) -> Iterator[tuple[Crowds, PostgresServer | ZooKeeperServer]]:
    members = MEMBERS_LOOK if request.config.getoption("benchmark_disable") else MEMBERS
    if request.param == "postgresql":
        postgres = PostgresServer()
        postgres.sql(f"ALTER SYSTEM SET max_connections = {members + 100}")
        postgres.restart()
        server, ground = postgres, ServedGround(postgres.new_database(), postgres.port)
    else:
        zookeeper = ZooKeeperServer()
        server, ground = zookeeper, ServedGround(zookeeper.new_url(), zookeeper.port)
    crowds = Crowds(ground, members)
    yield crowds, server
    crowds.close()
    server.close()


@pytest.mark.benchmark(group=f"registry: {MEMBERS} members join at once, and return at once when their server does")
def test_crowd(benchmark: Any, crowded: tuple[Crowds, PostgresServer | ZooKeeperServer]) -> None:
    crowds, server = crowded
    begin = time.monotonic()
    crowds.join()
    benchmark.extra_info["join_seconds"] = round(time.monotonic() - begin, 2)

    def out() -> None:
        server.stop()
        crowds.each_says("out")

    def back() -> None:
        server.start()
        crowds.each_says("back")
        crowds.all_are_seen()

    benchmark.pedantic(back, setup=out, rounds=3)
