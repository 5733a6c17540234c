"""Peers that have not proved anything, or mean ill: they get no word, no memory, no time, and change nothing."""

from __future__ import annotations

import asyncio
import secrets
import struct

import pytest

from dsfast._core import frame
from dsfast.engine.events import LinkDown, LinkUp, Received
from dsfast.model import Member
from dsfast.runtime.handshake import Identity, proof
from dsfast.wire.codec import encode
from dsfast.wire.commands import Challenge, Command, Demand, Execute, Hello, Kill, LogRead, Proof, Welcome
from tests.integration.linking import CLUSTER, OTHER_KEY, Impostor, Node, Peer, limits, member, nodes

MASTER = member("master", "m")
ATTACK = Execute(1, 0, 1, 1, "pwn", b'{"type":"shell","config":{"command":"id"}}')


def hello(nonce: bytes = b"n" * 32, cluster: str = CLUSTER, me: Member = MASTER) -> Hello:
    return Hello(cluster, me, nonce)


def header(kind: int, length: int) -> bytes:
    """A frame's header that is right in everything, and announces a body of this length."""
    head = struct.pack(">HBBQI", 0xD5FA, 1, kind, 0, length)
    return head + struct.pack(">I", frame.crc32c(head))


async def test_issue_18342_an_execute_from_a_stranger_does_nothing() -> None:
    """apache/dolphinscheduler#18342: a worker ran whatever anybody who reached its port asked for."""
    worker = Node("worker", "w")
    async with nodes(worker):
        port = await worker.listen()
        first = await Peer.dial(port)
        first.say(ATTACK)
        await first.nothing_but_the_end()
        behind_a_hello = await Peer.dial(port)
        behind_a_hello.write(encode(hello()) + encode(ATTACK))
        await behind_a_hello.hear(Challenge)
        await behind_a_hello.nothing_but_the_end()
        behind_a_proof = await Peer.dial(port)
        behind_a_proof.say(hello())
        await behind_a_proof.hear(Challenge)
        behind_a_proof.write(encode(Proof(bytes(32))) + encode(ATTACK))
        await behind_a_proof.nothing_but_the_end()
        assert worker.events.empty()
        assert worker.links.peers() == ()
        assert worker.links.refused == {"protocol": 2, "proof": 1}


@pytest.mark.parametrize(
    "command", [Demand(True), Kill(1, 0, 1, 1, 0.0), LogRead(1, 0, 1), Welcome(), Proof(b"x" * 32)]
)
async def test_a_stranger_is_not_heard_before_its_hello(command: Command) -> None:
    worker = Node("worker", "w")
    async with nodes(worker):
        peer = await Peer.dial(await worker.listen())
        peer.say(command)
        await peer.nothing_but_the_end()
        assert worker.links.refused == {"protocol": 1}
        assert worker.events.empty()


async def test_a_wrong_key_is_turned_away_without_a_word() -> None:
    worker = Node("worker", "w")
    async with nodes(worker):
        peer = await Peer.dial(await worker.listen())
        peer.say(hello())
        challenge = await peer.hear(Challenge)
        identity = Identity(MASTER, CLUSTER, (OTHER_KEY,))
        peer.say(Proof(proof(identity, OTHER_KEY, b"dialler", b"n" * 32, challenge.nonce, MASTER, challenge.member)))
        await peer.nothing_but_the_end()
        assert worker.links.refused == {"proof": 1}
        assert worker.events.empty()


async def test_the_listeners_own_proof_does_not_open_it() -> None:
    worker = Node("worker", "w")
    async with nodes(worker):
        peer = await Peer.dial(await worker.listen())
        peer.say(hello())
        peer.say(Proof((await peer.hear(Challenge)).proof))
        await peer.nothing_but_the_end()
        assert worker.links.refused == {"proof": 1}


async def test_a_recorded_handshake_does_not_open_the_listener_again() -> None:
    worker = Node("worker", "w")
    async with nodes(worker):
        port = await worker.listen()
        honest = await Peer.dial(port)
        recorded = await honest.introduce(MASTER)
        await worker.expect(LinkUp)
        thief = await Peer.dial(port)
        thief.write(recorded[0])
        await thief.hear(Challenge)
        thief.write(recorded[1])
        await thief.nothing_but_the_end()
        assert worker.links.refused == {"proof": 1}
        assert [peer.id for peer in worker.links.peers()] == [MASTER.id]


async def test_another_cluster_is_turned_away_before_the_challenge() -> None:
    worker = Node("worker", "w")
    async with nodes(worker):
        peer = await Peer.dial(await worker.listen())
        peer.say(hello(cluster="other"))
        await peer.nothing_but_the_end()
        assert worker.links.refused == {"cluster": 1}


async def test_a_role_without_business_is_turned_away_although_it_has_the_key() -> None:
    worker = Node("worker", "w")
    async with nodes(worker):
        peer = await Peer.dial(await worker.listen())
        with pytest.raises(ConnectionError):
            await peer.introduce(member("worker", "other"))
        assert worker.links.refused == {"role": 1}
        assert worker.events.empty()


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        bytes.fromhex("16030100c8010000c40303") + bytes(200),  # how a TLS client begins
        bytes(64),
        b"\xff" * 64,
        b"\xbe\x0a" + bytes(8) + b"\x00\x00\x00\x20" + bytes(32),  # DolphinScheduler 1.3: TASK_EXECUTE_REQUEST
        encode(hello())[:-1] + b"\x00",
        frame.encode(Hello.KIND, 0, b"\xc1 is no msgpack"),
    ],
    ids=["http", "tls", "zeros", "ones", "dolphinscheduler", "checksum", "body"],
)
async def test_garbage_ends_its_connection_and_nothing_else(garbage: bytes) -> None:
    worker, master = Node("worker", "w"), Node("master", "m")
    async with nodes(worker, master):
        port = await worker.listen()
        master.links.dial(worker.me)
        await master.expect(LinkUp)
        peer = await Peer.dial(port)
        peer.write(garbage)
        await peer.nothing_but_the_end()
        assert sum(worker.links.refused.values()) == 1
        master.links.send(worker.me.id, Demand(True))
        master.links.flush()
        await worker.expect(LinkUp)
        await worker.received(Demand)


@pytest.mark.parametrize("bytes_said", [0, 1, 19])
async def test_a_stranger_who_takes_its_time_is_cut_off(bytes_said: int) -> None:
    worker = Node("worker", "w", limits=limits(handshake_seconds=0.05))
    async with nodes(worker):
        peer = await Peer.dial(await worker.listen())
        peer.write(encode(hello())[:bytes_said])
        await peer.nothing_but_the_end()
        assert worker.links.refused == {"deadline": 1}


async def test_a_stranger_who_drips_bytes_does_not_get_longer() -> None:
    worker = Node("worker", "w", limits=limits(handshake_seconds=0.1))
    async with nodes(worker):
        peer = await Peer.dial(await worker.listen())

        async def drip() -> None:
            for byte in encode(hello(me=member("master", "m" * 2000))):
                peer.write(bytes([byte]))
                await asyncio.sleep(0.01)

        dripping = asyncio.ensure_future(drip())
        await peer.nothing_but_the_end()
        dripping.cancel()
        assert (await asyncio.gather(dripping, return_exceptions=True))[0] is not None  # cut off, by us or by the end
        assert worker.links.refused == {"deadline": 1}


async def test_a_stranger_who_stops_after_the_challenge_is_cut_off_too() -> None:
    worker = Node("worker", "w", limits=limits(handshake_seconds=0.05))
    async with nodes(worker):
        peer = await Peer.dial(await worker.listen())
        peer.say(hello())
        await peer.hear(Challenge)
        await peer.nothing_but_the_end()
        assert worker.links.refused == {"deadline": 1}


@pytest.mark.parametrize("length", [4097, 64 << 20, 0xFFFFFFFF])
async def test_a_large_frame_is_refused_at_its_header_while_the_peer_is_a_stranger(length: int) -> None:
    worker = Node("worker", "w")
    async with nodes(worker):
        peer = await Peer.dial(await worker.listen())
        peer.write(header(Hello.KIND, length))
        await peer.nothing_but_the_end()
        assert worker.links.refused == {"frame": 1}


async def test_a_listener_that_has_proved_nothing_is_a_stranger_too() -> None:
    master = Node("master", "m")
    async with nodes(master), Impostor() as impostor:
        master.links.dial(impostor.me)
        for answer in (
            header(Challenge.KIND, 4097),
            encode(Welcome()),
            encode(Execute(1, 2, 3, 4, "n", b"{}")),
            encode(Challenge(impostor.me, b"n" * 32, b"p" * 32)),
        ):
            peer = await impostor.next()
            await peer.hear(Hello)
            peer.write(answer)
            await peer.nothing_but_the_end()
        assert master.events.empty()


async def test_few_connections_of_one_address_may_be_half_open() -> None:
    few = limits(half_open_per_address_max=3, half_open_max=100)
    worker, master = Node("worker", "w", limits=few), Node("master", "m")
    async with nodes(worker, master):
        port = await worker.listen()
        holding = [await Peer.dial(port) for _ in range(3)]
        for peer in holding:
            peer.say(hello())
            await peer.hear(Challenge)
        await (await Peer.dial(port)).nothing_but_the_end()
        assert worker.links.refused == {"half_open": 1}
        master.links.dial(worker.me)  # keeps trying until there is room
        await holding.pop().hang_up()
        await master.expect(LinkUp)


async def test_few_connections_may_be_half_open_in_all_and_links_do_not_count() -> None:
    few = limits(half_open_max=2)
    worker = Node("worker", "w", limits=few)
    async with nodes(worker):
        port = await worker.listen()
        for number in range(5):
            await (await Peer.dial(port)).introduce(member("master", str(number)))
            await worker.expect(LinkUp)
        strangers = [await Peer.dial(port) for _ in range(2)]
        for peer in strangers:
            peer.say(hello())
            await peer.hear(Challenge)
        await (await Peer.dial(port)).nothing_but_the_end()
        assert len(worker.links.peers()) == 5


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (b"garbage that is no frame", "stream"),
        (frame.encode(200, 0, b""), "may not send kind 200"),
        (frame.encode(Execute.KIND, 0, b"\x93\x01\x02"), "malformed Execute"),
        (encode(Hello(CLUSTER, MASTER, b"n" * 32)), "a master may not send Hello to a worker"),
        (header(Execute.KIND, (64 << 20) + 1), "stream"),
    ],
    ids=["garbage", "unknown", "malformed", "hello", "large"],
)
async def test_a_peer_that_breaks_the_protocol_loses_its_link_and_no_other(broken: bytes, reason: str) -> None:
    worker = Node("worker", "w")
    async with nodes(worker):
        port = await worker.listen()
        bad, good = await Peer.dial(port), await Peer.dial(port)
        for name, peer in (("bad", bad), ("good", good)):
            await peer.introduce(member("master", name))
            await worker.expect(LinkUp)
        bad.write(broken + encode(ATTACK))
        down = await worker.expect(LinkDown)
        assert down.peer_id == "bad@1"
        assert reason in down.reason
        good.say(Demand(True))
        assert await worker.expect(Received) == Received("good@1", 0, Demand(True))


async def test_a_flood_of_strangers_does_not_keep_peers_from_being_served() -> None:
    worker, master = Node("worker", "w", limits=limits(half_open_per_address_max=8)), Node("master", "m")
    async with nodes(worker, master):
        port = await worker.listen()
        master.links.dial(worker.me)
        await master.expect(LinkUp)
        await worker.expect(LinkUp)
        flood = await asyncio.gather(*[Peer.dial(port) for _ in range(300)])
        for number in range(50):
            master.links.send(worker.me.id, Kill(number, 0, 1, 1, 0.0))
            master.links.flush()
            assert (await worker.received(Kill)).run_id == number
        await worker.until(lambda: sum(peer in Peer.connected for peer in flood) == 8)
        assert worker.links.refused["half_open"] == 292


async def test_nonces_are_never_used_twice() -> None:
    worker = Node("worker", "w")
    async with nodes(worker):
        port = await worker.listen()
        seen = set()
        for _ in range(10):
            peer = await Peer.dial(port)
            peer.say(hello(secrets.token_bytes(32)))
            seen.add((await peer.hear(Challenge)).nonce)
            await peer.hang_up()
        assert len(seen) == 10
