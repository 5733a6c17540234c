"""The five registries as the contract suite drives them: how to open one, and how to take its contact away."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from dsfast.model import Member
from dsfast.registry import Registry, Session, open_registry
from dsfast.registry.memory import MemoryHub, MemoryRegistry
from tests.servers.mysql import MySqlServer
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import Proxy

DEADLINE_SECONDS = 30.0  # for anything that should happen; longer only means a slower failure
CHILD = Path(__file__).with_name("registry_child.py")


def worker(name: str, boot: str = "1", **settings: object) -> Member:
    """A member of the suite."""
    return msgspec.convert({"role": "worker", "name": name, "boot": boot, **settings}, Member)


class Seen:
    """What one registry has reported, and a way to wait for more."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.views: list[tuple[Member, ...]] = []
        self.threads: set[int] = set()
        self._news = asyncio.Event()

    def on_session(self, session: Session) -> None:
        self.sessions.append(session)
        self._note()

    def on_members(self, members: tuple[Member, ...]) -> None:
        self.views.append(members)
        self._note()

    @property
    def ids(self) -> list[str]:
        return [member.id for member in self.views[-1]]

    async def until(self, condition: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while not condition():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"sessions: {self.sessions}; last view: {self.views[-1:]}") from None

    async def until_ids(self, *ids: str) -> None:
        await self.until(lambda: self.ids == list(ids))

    async def until_session(self, session: Session) -> None:
        await self.until(lambda: self.sessions[-1] is session)

    def _note(self) -> None:
        self.threads.add(threading.get_ident())
        asyncio.get_running_loop()  # raises outside the loop
        self._news.set()


@cache
def shared_database(server: PostgresServer) -> str:
    """One database for the suite: making, and after a crash syncing, one per test takes longer than the tests."""
    return server.new_database()


def postgres_ground(server: PostgresServer) -> ServedGround:
    """A cluster of its own in the shared database."""
    return ServedGround(shared_database(server), server.port, f"test-{uuid4().hex}")


@cache
def shared_mysql(server: MySqlServer) -> str:
    """One database for the suite."""
    return server.new_database()


def mysql_ground(server: MySqlServer) -> ServedGround:
    """A cluster of its own in the shared database."""
    return ServedGround(shared_mysql(server), server.port, f"test-{uuid4().hex}")


class MemoryGround:
    """Handles on one hub."""

    def __init__(self) -> None:
        self._hub = MemoryHub()

    async def open(self, session: float) -> Registry:
        return MemoryRegistry(self._hub)

    async def suspend(self, registry: Registry) -> None:
        assert isinstance(registry, MemoryRegistry)
        registry.suspend()

    async def outlast(self, registry: Registry, seen: Seen) -> None:
        assert isinstance(registry, MemoryRegistry)
        registry.expire()

    async def resume(self, registry: Registry) -> None:
        assert isinstance(registry, MemoryRegistry)
        registry.resume()

    async def heal(self) -> None:
        """Nothing of it hinders a shutdown."""

    async def close(self) -> None:
        """Nothing is kept open."""


class SqliteGround:
    """One file. Contact is lost by everybody at once: somebody else holds the file's write lock."""

    cluster = "test"

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}"
        self.path = path
        self._lock: sqlite3.Connection | None = None

    async def open(self, session: float) -> Registry:
        return open_registry(self.url, cluster=self.cluster, session_seconds=session)

    async def suspend(self, registry: Registry) -> None:
        self._lock = sqlite3.connect(self.path, isolation_level=None)
        self._lock.execute("BEGIN IMMEDIATE")

    async def outlast(self, registry: Registry, seen: Seen) -> None:
        await seen.until_session(Session.LOST)

    async def resume(self, registry: Registry) -> None:
        assert self._lock is not None
        self._lock.close()
        self._lock = None

    async def heal(self) -> None:
        if self._lock is not None:
            self._lock.close()

    async def close(self) -> None:
        """Nothing is kept open."""

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """What an administrator might do behind our back."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(statement, values).fetchall()


class ServedGround:
    """A server behind one proxy per registry, so that one can lose contact alone."""

    def __init__(self, url: str, port: int, cluster: str = "test") -> None:
        self.url = url
        self.cluster = cluster
        self._port = port
        self._proxies: dict[Registry, Proxy] = {}

    async def open(self, session: float) -> Registry:
        proxy = await Proxy(self._port).start()
        url = self.url.replace(f":{self._port}", f":{proxy.port}")
        registry = open_registry(url, cluster=self.cluster, session_seconds=session)
        self._proxies[registry] = proxy
        return registry

    def proxy(self, registry: Registry) -> Proxy:
        return self._proxies[registry]

    async def suspend(self, registry: Registry) -> None:
        self._proxies[registry].cut()

    async def outlast(self, registry: Registry, seen: Seen) -> None:
        await seen.until_session(Session.LOST)

    async def resume(self, registry: Registry) -> None:
        self._proxies[registry].mend()

    async def heal(self) -> None:
        for proxy in self._proxies.values():
            proxy.mend()

    async def close(self) -> None:
        for proxy in self._proxies.values():
            await proxy.close()


Ground = MemoryGround | SqliteGround | ServedGround


class Cluster:
    """The registries that one test has started."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self._registries: list[Registry] = []

    async def start(self, session: float = 60.0, registry: Registry | None = None) -> tuple[Registry, Seen]:
        registry, seen = registry or await self.ground.open(session), Seen()
        self._registries.append(registry)
        await registry.start(seen.on_members, seen.on_session)
        return registry, seen

    async def close(self) -> None:
        await self.ground.heal()
        await asyncio.gather(*(registry.stop() for registry in self._registries))
        await self.ground.close()


class Child:
    """A process that has joined; it prints what its registry reports."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.sessions: list[str] = []

    @classmethod
    async def start(cls, ground: Ground, name: str, session: float) -> Child:
        assert not isinstance(ground, MemoryGround)
        member = [str(CHILD), ground.url, ground.cluster, name, str(session)]
        command = ["setpriv", "--pdeathsig", "KILL", sys.executable, *member]
        child = cls(await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE))
        await child.until("joined")
        return child

    async def until(self, word: str) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE_SECONDS):
            while line := (await self.process.stdout.readline()).decode().strip():
                self.sessions.append(line)
                if line == word:
                    return
        raise AssertionError(f"the child ended after {self.sessions}")

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
