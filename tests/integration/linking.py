"""What the tests of the command channel stand on: daemons without engines, and peers made of bare sockets."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

from dsfast._core.frame import FrameDecoder
from dsfast.engine.events import Event, Received
from dsfast.model import Member
from dsfast.runtime.handshake import Dialling, Identity, Listening
from dsfast.runtime.limits import LinkLimits
from dsfast.runtime.links import Links
from dsfast.wire.codec import decode, encode
from dsfast.wire.commands import Command

KEY = b"k" * 32
OTHER_KEY = b"o" * 32
CLUSTER = "test"
MASTERS_AND_API = frozenset({"master", "api"})
DEADLINE_SECONDS = 10.0  # for anything to happen at all; a test that meets it has failed

Some = TypeVar("Some", bound=Any)


def member(role: str, name: str, boot: str = "1", port: int = 0) -> Member:
    """A member of the test cluster, on loopback."""
    return Member(role=role, name=name, boot=boot, host="127.0.0.1", port=port)


class Node:
    """Links of one daemon, and the events they report, in order."""

    def __init__(self, role: str, name: str, boot: str = "1", **options: Any) -> None:
        defaults: dict[str, Any] = {"keys": (KEY,), "cluster": CLUSTER, "accept": MASTERS_AND_API}
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.links = Links(
            member(role, name, boot),
            on_event=self.events.put_nowait,
            rng=random.Random(1),
            **(defaults | options),
        )

    @property
    def me(self) -> Member:
        return self.links.me

    async def listen(self, port: int = 0) -> int:
        return await self.links.listen("127.0.0.1", port)

    async def expect(self, kind: type[Some]) -> Some:
        """The next event, which must be of this kind."""
        event = await asyncio.wait_for(self.events.get(), DEADLINE_SECONDS)
        assert isinstance(event, kind), event
        return event

    async def received(self, kind: type[Some]) -> Some:
        """The command of the next event, which must be of this kind."""
        event = await self.expect(Received)
        assert isinstance(event.command, kind), event
        return event.command

    async def until(self, reached: Any) -> None:
        """Return once `reached()` is true: for what no event tells."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not reached():  # noqa: ASYNC110
                await asyncio.sleep(0.001)


@asynccontextmanager
async def nodes(*made: Node) -> AsyncIterator[None]:
    """Close these nodes at the end, whatever happens."""
    try:
        yield
    finally:
        for node in made:
            await node.links.close()


class Peer:
    """The other end of a connection, under the test's control byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._decoder = FrameDecoder(1 << 30)
        self._heard: list[tuple[int, int, bytes]] = []

    @classmethod
    async def dial(cls, port: int) -> Peer:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def introduce(self, me: Member, keys: tuple[bytes, ...] = (KEY,), cluster: str = CLUSTER) -> None:
        """Shake hands as an honest dialler."""
        anyone = member("worker", "", "")
        side = Dialling(Identity(me, cluster, keys), secrets.token_bytes(32), anyone)
        self.say(side.start())
        while side.peer is None:
            kind, _, body = await self.frame()
            answer = side.receive(kind, body)
            if answer is not None:
                self.say(answer)

    async def be_dialled(self, me: Member, keys: tuple[bytes, ...] = (KEY,)) -> None:
        """Shake hands as an honest listener."""
        side = Listening(Identity(me, CLUSTER, keys), secrets.token_bytes(32), MASTERS_AND_API)
        while side.peer is None:
            kind, _, body = await self.frame()
            self.say(side.receive(kind, body))

    def say(self, command: Command, request_id: int = 0) -> None:
        self.writer.write(encode(command, request_id))

    async def frame(self) -> tuple[int, int, bytes]:
        """The next frame. Raises ConnectionError at the end of the connection."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not self._heard:
                data = await self.reader.read(1 << 16)
                if not data:
                    raise ConnectionError("the other side has closed the connection")
                self._heard = self._decoder.feed(data)
        return self._heard.pop(0)

    async def hear(self, kind: type[Some]) -> Some:
        """The next command, which must be of this kind."""
        number, _, body = await self.frame()
        command = decode(number, body)
        assert isinstance(command, kind), command
        return command

    async def nothing_but_the_end(self) -> None:
        """The other side closes the connection, and has not sent another byte."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            try:
                assert await self.reader.read(1) == b""
            except ConnectionResetError:
                return

    def hang_up(self) -> None:
        self.writer.transport.abort()


class Impostor:
    """A port where the test itself answers: a worker called w, as far as anybody knows."""

    def __init__(self) -> None:
        self.me = member("worker", "w")
        self.dialled: asyncio.Queue[Peer] = asyncio.Queue()
        self._peers: list[Peer] = []

    async def next(self) -> Peer:
        """The next connection that somebody makes to us."""
        return await asyncio.wait_for(self.dialled.get(), DEADLINE_SECONDS)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.me = member("worker", "w", port=self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for peer in self._peers:
            peer.hang_up()
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self._peers.append(peer)
        self.dialled.put_nowait(peer)


def limits(**changes: Any) -> LinkLimits:
    """Limits at which a test does not have to wait."""
    return LinkLimits(**({"handshake_seconds": 5.0, "close_seconds": 0.2} | changes))
