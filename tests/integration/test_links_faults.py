"""Links when peers die, freeze, stop reading, or when we ourselves stand still."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from dsfast.engine.events import LinkDown, LinkUp, PeerDead, Received
from dsfast.model import Member
from dsfast.wire.commands import Execute, LogChunk, Ping, Started
from tests.integration.linking import DEADLINE_SECONDS, Node, Peer, limits, member, nodes

ROOT = Path(__file__).parents[2]
QUICK = limits(heartbeat_seconds=0.1, heartbeat_timeout_seconds=0.3, handshake_seconds=0.3)


class Lone:
    """A worker in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, me: Member) -> None:
        self.process = process
        self.me = me

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@asynccontextmanager
async def lone_worker(boot: str = "1", sock: socket.socket | None = None) -> AsyncIterator[Lone]:
    """Start it; it is killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.lone_worker",
        boot,
        str(sock.fileno()) if sock else "-",
        stdout=asyncio.subprocess.PIPE,
        pass_fds=(sock.fileno(),) if sock else (),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        port = int(await asyncio.wait_for(process.stdout.readline(), 3 * DEADLINE_SECONDS))
        yield Lone(process, member("worker", "w", boot, port))
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_killed_peer_is_down_and_then_dead() -> None:
    master = Node("master", "m")
    async with nodes(master), lone_worker() as worker:
        master.links.dial(worker.me)
        await master.expect(LinkUp)
        worker.signal(signal.SIGKILL)
        await master.expect(LinkDown)
        assert (await master.expect(PeerDead)).peer_id == "w@1"


async def test_a_killed_peer_is_not_dead_as_long_as_its_guardian_holds_the_port() -> None:
    """The test is the guardian: it closes the listening socket when no task is left, and that is noticed at once."""
    never_back = limits(handshake_seconds=0.3, backoff_seconds_min=3600.0, backoff_seconds_max=3600.0)
    master = Node("master", "m", limits=never_back)
    guardian = socket.create_server(("127.0.0.1", 0))
    async with nodes(master):
        async with lone_worker(sock=guardian) as worker:
            master.links.dial(worker.me)
            await master.expect(LinkUp)
            worker.signal(signal.SIGKILL)
            await master.expect(LinkDown)
            await worker.process.wait()
        guardian.setblocking(False)
        for _ in range(3):  # it is tried again, meets silence, and is not called dead
            await left_unanswered(guardian)
            assert master.events.empty()
        await master.until(lambda: select.select([guardian], [], [], 0)[0])
        guardian.close()  # with a connection that nobody has answered
        assert (await master.expect(PeerDead)).peer_id == "w@1"


async def test_a_restarted_peer_is_another_one() -> None:
    master = Node("master", "m")
    guardian = socket.create_server(("127.0.0.1", 0))
    async with nodes(master):
        async with lone_worker(sock=guardian) as first:
            master.links.dial(first.me)
            await master.expect(LinkUp)
            first.signal(signal.SIGKILL)
            await master.expect(LinkDown)
        async with lone_worker("2", sock=guardian) as second:
            assert (await master.expect(PeerDead)).peer_id == "w@1"
            master.links.dial(second.me)
            assert (await master.expect(LinkUp)).peer.id == "w@2"
        guardian.close()


async def test_a_frozen_peer_is_down_but_never_dead_and_up_again_when_it_thaws() -> None:
    master = Node("master", "m", limits=QUICK)
    async with nodes(master), lone_worker() as worker:
        master.links.dial(worker.me)
        await master.expect(LinkUp)
        worker.signal(signal.SIGSTOP)
        assert (await master.expect(LinkDown)).reason.startswith("silent for")
        worker.signal(signal.SIGCONT)
        await master.expect(LinkUp)


async def test_a_listener_drops_a_dialler_that_falls_silent() -> None:
    worker = Node("worker", "w", limits=QUICK)
    async with nodes(worker):
        peer = await Peer.dial(await worker.listen())
        await peer.introduce(member("master", "m"))
        await worker.expect(LinkUp)
        assert (await worker.expect(LinkDown)).reason.startswith("silent for")


async def test_silence_is_not_held_against_a_peer_while_we_stood_still_ourselves() -> None:
    master = Node("master", "m", limits=limits(heartbeat_seconds=0.3, heartbeat_timeout_seconds=0.4))
    async with nodes(master), lone_worker() as worker:
        master.links.dial(worker.me)
        await master.expect(LinkUp)
        for _ in range(2):
            time.sleep(0.8)  # noqa: ASYNC251 - this is the fault: nothing of ours runs for twice the timeout
            assert isinstance(await request_started(master, worker.me.id), Started)
        assert master.events.empty()


async def test_a_peer_that_stops_reading_is_dropped_and_others_are_served() -> None:
    worker = Node("worker", "w", limits=QUICK)
    async with nodes(worker):
        port = await worker.listen()
        deaf, good = await Peer.dial(port), await Peer.dial(port)
        for name, peer in (("deaf", deaf), ("good", good)):
            await peer.introduce(member("master", name))
            await worker.expect(LinkUp)
        deaf.transport.pause_reading()
        talking = asyncio.ensure_future(talk(deaf, good))  # both are heard all the time
        worker.links.send("deaf@1", Started(1, 2, 3, 0.0))
        stuff(worker, "deaf@1", 30 << 20)
        down = await worker.expect(LinkDown)
        assert down.peer_id == "deaf@1"
        assert "has read nothing for 0.3 s" in down.reason or "connection lost" in down.reason
        worker.links.send("good@1", Started(4, 5, 6, 0.0))
        worker.links.flush()
        assert (await good.hear(Started)).run_id == 4
        talking.cancel()


async def test_a_peer_that_reads_slowly_but_reads_keeps_its_link() -> None:
    worker = Node("worker", "w", limits=QUICK)
    async with nodes(worker):
        slow = await Peer.dial(await worker.listen())
        await slow.introduce(member("master", "slow"))
        await worker.expect(LinkUp)
        slow.transport.pause_reading()
        talking = asyncio.ensure_future(talk(slow))
        stuff(worker, "slow@1", 40 << 20)
        until = time.monotonic() + 1.2  # four timeouts
        while time.monotonic() < until:
            slow.transport.resume_reading()
            await slow.data()
            slow.transport.pause_reading()
            await asyncio.sleep(0.05)
        assert worker.events.empty()
        talking.cancel()


async def test_a_peer_that_hangs_up_while_we_write_does_no_harm() -> None:
    worker = Node("worker", "w")
    async with nodes(worker):
        peer = await Peer.dial(await worker.listen())
        await peer.introduce(member("master", "m"))
        await worker.expect(LinkUp)
        await peer.hang_up()
        while worker.links.send("m@1", Started(1, 2, 3, 0.0)):
            worker.links.flush()
            worker.links.flush()
            await asyncio.sleep(0)
        await worker.expect(LinkDown)


async def request_started(master: Node, worker_id: str) -> object:
    """Have the worker say something."""
    master.links.send(worker_id, Execute(1, 2, 3, 4, "n", b"{}"))
    master.links.flush()
    return (await master.expect(Received)).command


async def talk(*peers: Peer) -> None:
    """Say something now and then, so that silence is not the reason for anything."""
    while True:
        for peer in peers:
            if not peer.transport.is_closing():
                peer.say(Ping())
        await asyncio.sleep(0.05)


def stuff(node: Node, peer_id: str, size: int) -> None:
    """Send more than kernels keep for a peer that does not read."""
    node.links.send(peer_id, LogChunk(0, bytes(size), size, True))
    node.links.flush()


async def left_unanswered(listener: socket.socket) -> None:
    """Wait until somebody has connected, and has given up waiting for an answer."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(DEADLINE_SECONDS):
        connection, _ = await loop.sock_accept(listener)
        with connection:
            while await loop.sock_recv(connection, 1 << 16):
                pass
