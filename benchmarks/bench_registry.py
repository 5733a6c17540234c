"""How soon do others know? A join, a leave and a killed process, from the act to the callback of another member.

Two registries in one process, each with its own connection, over real servers on this machine. The killed process is
another one, with a session of SESSION_SECONDS; what is measured there is that session and the registry's own delay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from dsfast.registry import Registry, open_registry
from tests.contract.registries import Child, Cluster, Seen, ServedGround, SqliteGround, postgres_ground, worker

SESSION_SECONDS = 2.0
ROUNDS = 20
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
