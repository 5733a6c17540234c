"""One link over a transport that only takes notes: what is written when, and what is no longer looked at."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsfast._core import frame
from dsfast.engine.events import Event, LinkDown, LinkUp, Received
from dsfast.model import Member
from dsfast.runtime.handshake import Dialling, Identity, Listening, proof
from dsfast.runtime.limits import LinkLimits
from dsfast.runtime.link import Link
from dsfast.runtime.table import LINKS_PER_PHASE, PHASES, LinkTable
from dsfast.wire.codec import COMMANDS, MANY, encode, encode_all
from dsfast.wire.commands import Challenge, Credit, Demand, Execute, Hello, Ping, Pong, Proof, Started
from dsfast.wire.flows import allowed

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
    """One side of a link, with the other side of the handshake at hand."""

    def __init__(self, sock: socket.socket, me: Member = MASTER, peer: Member = WORKER) -> None:
        self.peer = peer
        self.events: list[Event] = []
        self.table = LinkTable(me, self.events.append, int, LIMITS, random.Random(1))
        self.link, self.transport = self.begin(sock)

    def begin(self, sock: socket.socket) -> tuple[Link, Notes]:
        """A dialled link that is up."""
        start = Dialling(Identity(self.table.me, "c", KEYS), b"d" * 32, self.peer)
        link, transport = Link(self.table, lambda _: start, dialled=True), Notes(sock)
        link.connection_made(transport)
        far = Listening(Identity(self.peer, "c", KEYS), b"l" * 32, {self.table.me.role})
        while far.peer is None:
            frame = transport.writes.pop()
            link.data_received(encode(far.receive(frame[3], frame[20:])))
        return link, transport


def stranger(sock: socket.socket) -> tuple[Link, Notes, list[Event]]:
    """A link that somebody has opened to a worker, with nothing said yet."""
    events: list[Event] = []
    table = LinkTable(WORKER, events.append, int, LIMITS, random.Random(1))
    side = Listening(Identity(WORKER, "c", KEYS), b"l" * 32, {"master"})
    link, transport = Link(table, lambda _: side, dialled=False), Notes(sock)
    link.connection_made(transport)
    return link, transport, events


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    with socket.socket() as sock:
        made = Setup(sock)
        yield made
        made.link.drop("end of the test")


async def test_a_flush_is_one_write_however_many_frames(setup: Setup) -> None:
    frames = [encode(Demand(number % 2 == 0)) for number in range(100)]
    for each in frames:
        setup.link.queue(each)
    assert setup.transport.writes == []
    setup.link.flush()
    assert setup.transport.writes == [b"".join(frames)]
    setup.link.flush()
    assert len(setup.transport.writes) == 1


async def test_nothing_is_written_while_the_peer_does_not_read_and_all_of_it_at_once_afterwards(setup: Setup) -> None:
    setup.link.pause_writing()
    frames = [encode(Demand(True))] * 3
    for each in frames:
        setup.link.queue(each)
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


async def test_commands_that_travel_together_are_delivered_one_by_one(setup: Setup) -> None:
    setup.link.data_received(encode_all([(Credit(number), 0) for number in range(50)]))
    assert setup.events == [LinkUp(WORKER), *[Received("w@1", 0, Credit(number)) for number in range(50)]]


async def test_what_a_role_may_not_say_it_may_not_say_many_times(setup: Setup) -> None:
    setup.link.data_received(encode_all([(Demand(True), 0), (Demand(False), 0)]))
    ended = setup.events[-1]
    assert isinstance(ended, LinkDown)
    assert ended.reason == "a worker may not send Demand to a master"


async def test_nothing_is_delivered_after_the_end_even_of_the_same_frame(setup: Setup) -> None:
    def end_it(event: Event) -> None:
        setup.events.append(event)
        if isinstance(event, Received):
            setup.link.drop("enough")

    setup.table.report = end_it
    setup.link.data_received(encode_all([(Credit(1), 0), (Credit(2), 0)]))
    assert setup.events[1:] == [Received("w@1", 0, Credit(1)), LinkDown("w@1", "enough")]


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


@pytest.mark.parametrize("receiver", [MASTER, WORKER], ids=lambda member: member.role)
@pytest.mark.parametrize("sender", [Member("master", "s", "1"), Member("worker", "s", "1"), Member("api", "s", "1")])
async def test_each_role_is_heard_on_what_it_may_say_and_on_nothing_else(sender: Member, receiver: Member) -> None:
    """A body that is no msgpack tells what was looked at from what was not."""
    may = allowed(sender.role, receiver.role)
    for kind in range(16, 256):  # those below are the link's own
        with socket.socket() as sock:
            setup = Setup(sock, receiver, sender)
            setup.link.data_received(frame.encode(kind, 0, b"\xc1"))
            ended = setup.events[-1]
            assert isinstance(ended, LinkDown)
            assert ended.reason.startswith("malformed" if kind in may else f"a {sender.role} may not send")


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_a_stranger_can_say_anything_and_is_never_an_event(pieces: list[bytes]) -> None:
    said_by_a_stranger(pieces)


@given(st.lists(st.tuples(st.sampled_from(sorted({MANY, *COMMANDS})), st.binary(max_size=100)), max_size=5))
def test_a_stranger_can_frame_anything_and_is_never_an_event(frames: list[tuple[int, bytes]]) -> None:
    said_by_a_stranger([frame.encode(kind, 0, body) for kind, body in frames])


@given(st.integers(0, 31), st.integers(1, 255))
def test_a_stranger_with_a_proof_that_is_almost_right_is_never_an_event(at: int, change: int) -> None:
    identity = Identity(MASTER, "c", KEYS)
    right = bytearray(proof(identity, KEYS[0], b"dialler", b"d" * 32, b"l" * 32, MASTER, WORKER))
    right[at] ^= change
    said_by_a_stranger([encode(Hello("c", MASTER, b"d" * 32)), encode(Proof(bytes(right)))])


def said_by_a_stranger(pieces: list[bytes]) -> None:
    """Whatever it is: no event, no answer but a Challenge, and no exception."""

    async def listen() -> None:
        with socket.socket() as sock:
            link, transport, events = stranger(sock)
            for piece in pieces:
                link.data_received(piece)
            link.drop("end of the test")
            assert events == []
            assert {written[3] for written in transport.writes} <= {Challenge.KIND}

    asyncio.run(listen())


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5))
def test_a_peer_can_say_anything_and_loses_at_most_its_link(pieces: list[bytes]) -> None:
    async def listen() -> None:
        with socket.socket() as sock:
            setup = Setup(sock)
            for piece in pieces:
                setup.link.data_received(piece)
            setup.link.drop("end of the test")
            assert [type(event) for event in setup.events] == [LinkUp, LinkDown]

    asyncio.run(listen())


def test_neighbours_beat_together_and_a_crowd_beats_in_groups() -> None:
    table = LinkTable(MASTER, lambda _: None, int, LIMITS, random.Random(1))
    phases = []
    for number in range(LINKS_PER_PHASE * PHASES):
        phases.append(table.phase())
        table.links[f"w{number}"] = Link.__new__(Link)
    groups = Counter(phases)
    assert len(groups) == PHASES
    assert set(groups.values()) == {LINKS_PER_PHASE}
    assert max(phases) - min(phases) < LIMITS.heartbeat_seconds
