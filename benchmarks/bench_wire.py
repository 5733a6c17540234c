"""What does a command cost on the wire? Links beside a bare uvloop echo, in two processes; the codec beside orjson.

An operation is one Execute there and one Started back (the echo: 200 bytes there and back). "Coalesced" keeps 64 of
them in flight, written and read together, as a busy turn does. The difference to the echo is the price of framing,
checksum, typed decoding, the event and the turn. Wall time needs two idle cores; the processor time of this side alone
(the other spends about as much) does not.
"""

from __future__ import annotations

import asyncio
import random
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import orjson
import pytest
import uvloop

from benchmarks.wire_echo import KEY, MASTER, WORKER
from dsfast._core.frame import FrameDecoder
from dsfast.engine.events import Received
from dsfast.model import AttemptState, Outcome
from dsfast.runtime.inbox import Inbox
from dsfast.runtime.links import Links
from dsfast.wire.codec import decode, encode
from dsfast.wire.commands import Command, Execute, Result, ResultAck, Started

ROOT = Path(__file__).parents[1]
SPEC = orjson.dumps({"type": "shell", "config": {"command": "echo hello " * 10}})
EXECUTE = Execute(7_123_456_789, 17, 1, 3, "extract", SPEC)
HOT = {
    "execute": EXECUTE,
    "started": Started(7_123_456_789, 17, 1, 1_790_000_000.5),
    "result": Result(
        7_123_456_789, 17, 1, Outcome(AttemptState.SUCCEEDED, 0, "", b'{"rows":12}', 1_790_000_000.5, 1_790_000_001.5)
    ),
    "result_ack": ResultAck(7_123_456_789, 17, 1),
}
FRAME = bytes(200)
ROUND_TRIPS = 2_000
IN_FLIGHT = 64
BATCHES = 500
HEADER = struct.Struct(">HBBQII")


class Far:
    """The other process, a loop of ours, and both ways to it."""

    def __init__(self) -> None:
        script = [sys.executable, "-m", "benchmarks.wire_echo"]
        self.process = subprocess.Popen(script, stdout=subprocess.PIPE, cwd=ROOT)
        self.loop = uvloop.new_event_loop()
        self.inbox = Inbox()
        self.loop.run_until_complete(self._connect())

    async def _connect(self) -> None:
        assert self.process.stdout is not None
        links_port, echo_port = map(int, self.process.stdout.readline().split())
        self.links = Links(
            MASTER,
            keys=(KEY,),
            cluster="c",
            accept=frozenset(),
            on_event=self.inbox.put,
            rng=random.Random(1),
        )
        there = msgspec.structs.replace(WORKER, host="127.0.0.1", port=links_port)
        await self.links.connect(there, 10)
        await self.inbox.batch()
        _, self.echo = await self.loop.create_connection(Bare, "127.0.0.1", echo_port)

    def close(self) -> None:
        self.loop.run_until_complete(self.links.close())
        self.echo.transport.close()
        self.process.kill()
        self.process.communicate()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    async def through_links(self, batches: int, in_flight: int) -> None:
        """Turns as a master's: send, flush once, gather the answers."""
        links, inbox, peer = self.links, self.inbox, WORKER.id
        for _ in range(batches):
            for _ in range(in_flight):
                links.send(peer, EXECUTE)
            links.flush()
            left = in_flight
            while left:
                left -= sum(type(event) is Received for event in await inbox.batch())

    async def through_echo(self, batches: int, in_flight: int) -> None:
        """The same amount of bytes there and back, read by no one."""
        self.echo.done = self.loop.create_future()
        self.echo.begin(batches, FRAME * in_flight)
        await self.echo.done


class Bare(asyncio.Protocol):
    """A protocol that writes again as soon as everything has come back."""

    done: asyncio.Future[None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def begin(self, batches: int, data: bytes) -> None:
        self._batches, self._data, self._left = batches, data, len(data)
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left:
            return
        self._batches -= 1
        if self._batches:
            self._left = len(self._data)
            self.transport.write(self._data)
        else:
            self.done.set_result(None)


@pytest.fixture(scope="module")
def far() -> Iterator[Far]:
    made = Far()
    yield made
    made.close()


def test_round_trip(far: Far, beside: Callable[..., None]) -> None:
    compare(far, beside, ROUND_TRIPS, 1)


def test_round_trip_64_coalesced(far: Far, beside: Callable[..., None]) -> None:
    compare(far, beside, BATCHES, IN_FLIGHT)


@pytest.mark.benchmark(timer=time.process_time)
def test_processor_time_of_one_side_64_coalesced(far: Far, beside: Callable[..., None]) -> None:
    compare(far, beside, BATCHES, IN_FLIGHT)


def compare(far: Far, beside: Callable[..., None], batches: int, in_flight: int) -> None:
    def work(way: Callable[[int, int], Any]) -> Callable[[], Callable[[], None]]:
        return lambda: lambda: far.loop.run_until_complete(way(batches, in_flight))

    beside(batches * in_flight, work(far.through_links), bare_echo=work(far.through_echo))


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("name", HOT)
def test_encode_and_decode(name: str, beside: Callable[..., None]) -> None:
    """Beside the same fields as a JSON object behind a struct header with a checksum."""
    command, times = HOT[name], range(10_000)
    fields = plain(command)

    def ours() -> None:
        decoder = FrameDecoder(1 << 20)
        for _ in times:
            [(kind, _, body)] = decoder.feed(encode(command))
            decode(kind, body)

    def json() -> None:
        for _ in times:
            body = orjson.dumps(fields)
            stream = HEADER.pack(0xD5FA, 1, command.KIND, 0, len(body), zlib.crc32(body)) + body
            length, crc = HEADER.unpack_from(stream)[4:]
            read = stream[20 : 20 + length]
            assert zlib.crc32(read) == crc
            orjson.loads(read)

    beside(len(times), lambda: ours, orjson=lambda: json)


def plain(command: Command) -> dict[str, Any]:
    """The command as JSON has it: names, and text in place of bytes."""
    return cast(dict[str, Any], orjson.loads(orjson.dumps(msgspec.to_builtins(named(command)))))


def named(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return {field: named(getattr(value, field)) for field in value.__struct_fields__}
    return value.decode() if isinstance(value, bytes) else value
