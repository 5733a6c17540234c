"""What the tests of the command channel stand on: daemons without engines, and peers made of bare sockets."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, ClassVar, Self, TypeVar, cast

import pytest

from dsfast._core.frame import FrameDecoder
from dsfast.engine.events import Event, Received
from dsfast.model import Member
from dsfast.runtime.handshake import Dialling, Identity, Listening
from dsfast.runtime.limits import LinkLimits
from dsfast.runtime.links import Links
from dsfast.wire.codec import decode, encode
from dsfast.wire.commands import Command, Ping, Pong

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

    def __init__(self, role: str, name: str, boot: str = "1", *, port: int = 0, **options: Any) -> None:
        """`port` is the one that peers are told to dial, if it is not the one that it listens on."""
        defaults: dict[str, Any] = {"keys": (KEY,), "cluster": CLUSTER, "accept": MASTERS_AND_API}
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.links = Links(
            member(role, name, boot, port),
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
    """Close these nodes, and the connections of all peers, at the end, whatever happens."""
    try:
        yield
    finally:
        for node in made:
            await node.links.close()
        for peer in list(Peer.connected):
            await peer.hang_up()


class Peer(asyncio.Protocol):
    """The other end of a connection, under the test's control byte by byte."""

    connected: ClassVar[set[Peer]] = set()

    def __init__(self) -> None:
        self._decoder = FrameDecoder(1 << 30)
        self._stream = bytearray()  # received and not yet looked at
        self._frames: list[tuple[int, int, bytes]] = []
        self._changed = asyncio.Event()
        self._lost = False

    @classmethod
    async def dial(cls, port: int) -> Peer:
        _, peer = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return peer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.connected.add(self)

    def data_received(self, data: bytes) -> None:
        self._stream += data
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self.connected.discard(self)
        self._changed.set()

    async def introduce(self, me: Member, keys: tuple[bytes, ...] = (KEY,)) -> list[bytes]:
        """Shake hands as an honest dialler; returns the frames that it took. Raises ConnectionError if turned away."""
        side = Dialling(Identity(me, CLUSTER, keys), secrets.token_bytes(32), member("worker", "", ""))
        said = [encode(side.start())]
        self.write(said[0])
        while side.peer is None:
            kind, _, body = await self.frame()
            answer = side.receive(kind, body)
            if answer is not None:
                said.append(encode(answer))
                self.write(said[-1])
        return said

    async def be_dialled(self, me: Member, keys: tuple[bytes, ...] = (KEY,)) -> None:
        """Shake hands as an honest listener."""
        side = Listening(Identity(me, CLUSTER, keys), secrets.token_bytes(32), MASTERS_AND_API)
        while side.peer is None:
            kind, _, body = await self.frame()
            self.say(side.receive(kind, body))

    def say(self, *commands: Command) -> None:
        self.write(b"".join(map(encode, commands)))

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    async def frame(self) -> tuple[int, int, bytes]:
        """The next frame. Raises ConnectionError at the end of the connection."""
        while not self._frames:
            self._frames = self._decoder.feed(await self.data())
        return self._frames.pop(0)

    async def hear(self, kind: type[Some]) -> Some:
        """The next command that is no heartbeat, which must be of this kind."""
        command: Command = Pong()
        while isinstance(command, Ping | Pong):
            number, _, body = await self.frame()
            command = decode(number, body)
        assert isinstance(command, kind), command
        return command

    async def nothing_but_the_end(self) -> None:
        """The other side closes the connection, and has not sent another byte."""
        with pytest.raises(ConnectionError):
            raise AssertionError(f"also got {await self.data()!r}")

    async def hang_up(self) -> None:
        """End the connection without a goodbye."""
        self.transport.abort()
        with suppress(ConnectionError):
            while True:
                await self.data()

    async def data(self) -> bytes:
        """Whatever has arrived, at least one byte. Raises ConnectionError at the end of the connection."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not self._stream:
                if self._lost:
                    raise ConnectionError("the other side has closed the connection")
                self._changed.clear()
                await self._changed.wait()
        data = bytes(self._stream)
        self._stream.clear()
        return data


class Impostor:
    """A port where the test itself answers: a worker called w, as far as anybody knows."""

    def __init__(self) -> None:
        self.me = member("worker", "w")
        self._dialled: asyncio.Queue[Peer] = asyncio.Queue()

    async def next(self) -> Peer:
        """The next connection that somebody makes to us."""
        return await asyncio.wait_for(self._dialled.get(), DEADLINE_SECONDS)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(self._accept, "127.0.0.1", 0)
        self.me = member("worker", "w", port=self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    def _accept(self) -> Peer:
        peer = Peer()
        self._dialled.put_nowait(peer)
        return peer


def limits(**changes: Any) -> LinkLimits:
    """Limits at which a test does not have to wait."""
    return LinkLimits(**({"handshake_seconds": 5.0, "close_seconds": 0.2} | changes))
