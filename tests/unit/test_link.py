"""One link over a transport that only takes notes: what is written when, and what is no longer looked at."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dsfast.engine.events import Event, LinkDown, LinkUp, Received
from dsfast.model import Member
from dsfast.runtime.handshake import Dialling, Identity, Listening
from dsfast.runtime.limits import LinkLimits
from dsfast.runtime.link import Link
from dsfast.runtime.table import LinkTable
from dsfast.wire.codec import encode
from dsfast.wire.commands import Credit, Demand, Execute, Ping, Pong, Started

MASTER, WORKER = Member("master", "m", "1"), Member("worker", "w", "1")
KEYS = (b"k" * 32,)
LIMITS = LinkLimits(
    unsent_bytes_max=10_000, body_bytes_max=5_000, heartbeat_seconds=0.02, heartbeat_timeout_seconds=0.05
)


class Notes(asyncio.Transport):
    """A connection to nowhere: remembers every write, and fills up when it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__({"socket": sock, "peername": ("192.0.2.1", 1)})
        self.writes: list[bytes] = []
        self.unsent = 0
        self.closed = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high_water = high

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


class Setup:
    """A master's side of a link to a worker, with the worker's side of the handshake at hand."""

    def __init__(self, sock: socket.socket) -> None:
        self.events: list[Event] = []
        self.table = LinkTable(MASTER, self.events.append, int, LIMITS, random.Random(1))
        self.link, self.transport = self.begin(sock)

    def begin(self, sock: socket.socket) -> tuple[Link, Notes]:
        """A dialled link that is up."""
        start = Dialling(Identity(MASTER, "c", KEYS), b"d" * 32, WORKER)
        link, transport = Link(self.table, lambda _: start, dialled=True), Notes(sock)
        link.connection_made(transport)
        far = Listening(Identity(WORKER, "c", KEYS), b"l" * 32, {"master"})
        while far.peer is None:
            frame = transport.writes.pop()
            link.data_received(encode(far.receive(frame[3], frame[20:])))
        return link, transport


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    with socket.socket() as sock:
        made = Setup(sock)
        yield made
        made.link.drop("end of the test")


async def test_a_flush_is_one_write_however_many_frames(setup: Setup) -> None:
    frames = [encode(Demand(number % 2 == 0)) for number in range(100)]
    for frame in frames:
        setup.link.queue(frame)
    assert setup.transport.writes == []
    setup.link.flush()
    assert setup.transport.writes == [b"".join(frames)]
    setup.link.flush()
    assert len(setup.transport.writes) == 1


async def test_nothing_is_written_while_the_peer_does_not_read_and_all_of_it_at_once_afterwards(setup: Setup) -> None:
    setup.link.pause_writing()
    frames = [encode(Demand(True))] * 3
    for frame in frames:
        setup.link.queue(frame)
        setup.link.flush()
    assert setup.transport.writes == []
    setup.link.resume_writing()
    assert setup.transport.writes == [b"".join(frames)]


async def test_a_peer_that_does_not_read_may_have_so_much_waiting_and_no_more(setup: Setup) -> None:
    setup.link.pause_writing()
    frame = encode(Execute(1, 2, 3, 4, "n", bytes(3_000)))
    assert [setup.link.queue(frame) for _ in range(4)] == [True, True, True, False]
    assert setup.transport.closed
    assert isinstance(setup.events[-1], LinkDown)
    assert "wait for a peer that reads too slowly" in setup.events[-1].reason


async def test_a_peer_that_speaks_but_does_not_read_is_dropped_after_the_timeout(setup: Setup) -> None:
    """Kernels with TCP_USER_TIMEOUT see to it as well, as far as they can."""
    setup.link.pause_writing()
    setup.transport.unsent = 1000
    async with asyncio.timeout(10):
        while not setup.transport.closed:
            setup.link.data_received(encode(Ping()))
            await asyncio.sleep(0.005)
    assert setup.events[-1] == LinkDown("w@1", "has read nothing for 0.05 s")


async def test_a_peer_that_reads_may_be_sent_any_amount(setup: Setup) -> None:
    frame = encode(Execute(1, 2, 3, 4, "n", bytes(3_000)))
    for _ in range(20):
        assert setup.link.queue(frame)
        setup.link.flush()
    assert not setup.transport.closed


async def test_all_frames_of_a_read_are_delivered_in_order(setup: Setup) -> None:
    sent = [Credit(number) for number in range(50)]
    setup.link.data_received(b"".join(map(encode, sent)))
    assert setup.events == [LinkUp(WORKER), *[Received("w@1", 0, command) for command in sent]]


async def test_nothing_is_delivered_after_the_end_even_of_the_same_read(setup: Setup) -> None:
    """The table may end a link at any event; what was read with it is dropped."""

    def end_it(event: Event) -> None:
        setup.events.append(event)
        if isinstance(event, Received):
            setup.link.drop("enough")

    setup.table.report = end_it
    setup.link.data_received(encode(Credit(1)) + encode(Credit(2)))
    setup.link.data_received(encode(Credit(3)))
    assert setup.events[1:] == [Received("w@1", 0, Credit(1)), LinkDown("w@1", "enough")]


async def test_a_new_link_ends_the_old_one_before_it_is_reported(setup: Setup) -> None:
    with socket.socket() as sock:
        setup.link.data_received(encode(Started(1, 2, 3, 0.5))[:30])  # half a frame that will never be whole
        new, _ = setup.begin(sock)
        setup.link.data_received(encode(Started(1, 2, 3, 0.5))[30:])
        new.data_received(encode(Credit(1)))
        up, down = LinkUp(WORKER), LinkDown("w@1", "replaced by a newer link")
        assert setup.events == [up, down, up, Received("w@1", 0, Credit(1))]
        new.drop("end of the test")


async def test_the_end_is_reported_once(setup: Setup) -> None:
    setup.link.drop("first")
    setup.link.drop("second")
    setup.link.connection_lost(None)
    assert setup.events[1:] == [LinkDown("w@1", "first")]
    assert not setup.link.queue(encode(Demand(True)))


async def test_a_ping_is_answered_past_the_queue_unless_the_peer_does_not_read(setup: Setup) -> None:
    setup.link.queue(encode(Demand(True)))
    setup.link.data_received(encode(Ping(3)))
    assert setup.transport.writes == [encode(Pong(0))]
    assert setup.link.peer_load == 3
    setup.link.pause_writing()
    setup.link.data_received(encode(Ping(4)))
    assert len(setup.transport.writes) == 1


async def test_nothing_is_written_to_a_connection_that_the_loop_knows_to_be_lost(setup: Setup) -> None:
    setup.transport.closed = True
    setup.link.queue(encode(Demand(True)))
    setup.link.flush()
    assert setup.transport.writes == []


async def test_the_limit_of_frames_grows_with_the_proof(setup: Setup) -> None:
    setup.link.data_received(encode(Started(1, 2, 3, 0.5)) + encode(Credit(1)))
    big = encode(Execute(1, 2, 3, 4, "n", bytes(5_000)))
    setup.link.data_received(big)
    assert isinstance(setup.events[-1], LinkDown)
    assert "5000" in setup.events[-1].reason
