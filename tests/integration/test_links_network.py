"""Links over networks that are slow, damaged, cut one way, or reset connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dsfast.engine.events import LinkDown, LinkUp, PeerDead, Received
from dsfast.wire.commands import Execute, LogChunk, Started
from tests.integration.linking import Node, limits, nodes
from tests.servers.proxy import WAYS, Proxy

QUICK = limits(heartbeat_seconds=0.1, heartbeat_timeout_seconds=0.4, handshake_seconds=2.0, backoff_seconds_max=0.1)
LARGE = 1_000_000


@asynccontextmanager
async def linked(**network: float) -> AsyncIterator[tuple[Node, Node, Proxy]]:
    """A master that has dialled a worker through a proxy."""
    proxy = await Proxy(0, **network).start()  # type: ignore[arg-type]
    master, worker = Node("master", "m", limits=QUICK), Node("worker", "w", port=proxy.port, limits=QUICK)
    async with nodes(master, worker):
        try:
            proxy.target = await worker.listen()
            master.links.dial(worker.me)
            await master.expect(LinkUp)
            await worker.expect(LinkUp)
            yield master, worker, proxy
        finally:
            await proxy.close()


def say(master: Node, number: int = 1, size: int = 2) -> None:
    master.links.send("w@1", Execute(number, 2, 3, 4, "n", bytes(size)))
    master.links.flush()


def answer(worker: Node, number: int = 1, size: int = 2) -> None:
    worker.links.send("m@1", LogChunk(number, bytes(size), size, True))
    worker.links.flush()


@pytest.mark.parametrize("way", WAYS)
async def test_a_large_frame_over_a_slow_network_starves_no_heartbeat(way: str) -> None:
    """It takes five timeouts to pass; a heartbeat that has to stand behind it says no more than its bytes do."""
    async with linked(bytes_per_second=LARGE // 2) as (master, worker, _):
        if way == "there":
            say(master, size=LARGE)
            assert len((await worker.received(Execute)).spec) == LARGE
        else:
            answer(worker, size=LARGE)
            assert len((await master.received(LogChunk)).data) == LARGE
        say(master)
        assert (await worker.received(Execute)).run_id == 1
        assert master.events.empty(), "its link was never lost"


async def test_latency_slows_and_ends_nothing() -> None:
    """A quarter of a timeout there and as much back: every answer is late, and none too late."""
    async with linked(delay=0.1) as (master, worker, _):
        for number in range(4):
            say(master, number)
            assert (await worker.received(Execute)).run_id == number
            worker.links.send("m@1", Started(number, 2, 3, 1.0))
            worker.links.flush()
            assert (await master.received(Started)).run_id == number


@pytest.mark.parametrize("way", WAYS)
async def test_a_cut_one_way_ends_the_link_at_both_ends_and_kills_nobody(way: str) -> None:
    """Heartbeats are question and answer, so whichever is lost both sides hear nothing."""
    async with linked() as (master, worker, proxy):
        proxy.freeze(way)
        assert (await master.expect(LinkDown)).reason
        assert (await worker.expect(LinkDown)).reason
        proxy.mend()
        await master.expect(LinkUp)
        await worker.expect(LinkUp)


@pytest.mark.parametrize("way", WAYS)
async def test_a_flipped_bit_ends_the_connection_and_is_nobodys_command(way: str) -> None:
    async with linked() as (master, worker, proxy):
        proxy.damage(way)
        (say if way == "there" else answer)(*(master,) if way == "there" else (worker,))
        reasons = [(await node.expect(LinkDown)).reason for node in (master, worker)]
        assert any("checksum" in reason or "frame" in reason for reason in reasons), reasons
        await master.expect(LinkUp)
        await worker.expect(LinkUp)
        say(master, 5)
        assert (await worker.received(Execute)).run_id == 5


async def test_a_storm_of_resets_is_weathered_with_few_tries() -> None:
    """Links come back by themselves and at an ever slower pace; nobody is dead because the network resets."""
    async with linked() as (master, worker, proxy):
        resets = 0
        while resets < 12:
            proxy.reset()
            resets += 1
            event = await master.expect(LinkDown)
            assert not isinstance(event, PeerDead)
            await master.expect(LinkUp)
        assert proxy.connections <= 3 * resets
        say(master, 6)
        event = await worker.expect(LinkDown | LinkUp | Received)  # type: ignore[arg-type]
        while not isinstance(event, Received):
            event = await worker.expect(LinkDown | LinkUp | Received)  # type: ignore[arg-type]
        assert isinstance(event.command, Execute)
