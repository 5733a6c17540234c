"""Links between daemons that mean well: who is linked, in which order things are reported, who is dead."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest

from dsfast.engine.events import LinkDown, LinkUp, PeerDead, Received
from dsfast.errors import Unavailable, UsageError
from dsfast.model import Member
from dsfast.runtime.links import Links
from dsfast.wire.codec import encode
from dsfast.wire.commands import Cancel, Demand, Done, Execute, LogChunk, LogRead, ResultAck, Started, Submitted
from tests.integration.linking import DEADLINE_SECONDS, KEY, OTHER_KEY, Impostor, Node, Peer, limits, member, nodes

NEVER_BACK = {"backoff_seconds_min": 3600.0, "backoff_seconds_max": 3600.0}  # a test that has to wait for it fails


async def test_both_sides_learn_of_a_link_and_of_each_other() -> None:
    master, worker = Node("master", "m"), Node("worker", "w")
    async with nodes(master, worker):
        await worker.listen()
        master.links.dial(worker.me)
        assert (await master.expect(LinkUp)).peer == worker.me
        assert (await worker.expect(LinkUp)).peer == master.me
        assert master.links.peers() == (worker.me,)
        assert worker.links.peers() == (master.me,)


async def test_commands_arrive_in_the_order_in_which_they_were_sent_both_ways() -> None:
    master, worker = Node("master", "m"), Node("worker", "w")
    async with nodes(master, worker):
        await link(master, worker)
        for number in range(500):
            assert master.links.send(worker.me.id, ResultAck(number, 0, 1))
            assert worker.links.send(master.me.id, Started(number, 0, 1, 0.5))
            if number % 7 == 0:
                master.links.flush()
                worker.links.flush()
        master.links.flush()
        worker.links.flush()
        assert [(await worker.received(ResultAck)).run_id for _ in range(500)] == list(range(500))
        assert [(await master.received(Started)).run_id for _ in range(500)] == list(range(500))


async def test_nothing_leaves_before_the_flush() -> None:
    master, worker = Node("master", "m"), Node("worker", "w")
    async with nodes(master, worker):
        await link(master, worker)
        master.links.send(worker.me.id, Demand(True))
        answer = asyncio.ensure_future(worker.links.request(master.me.id, LogChunk(0, b"", 0, True), 10))
        assert isinstance((await master.expect(Received)).command, LogChunk)  # the loop has run, sockets were read
        assert worker.events.empty()
        master.links.flush()
        await worker.received(Demand)
        answer.cancel()


async def test_send_says_whether_there_is_a_link() -> None:
    master, worker = Node("master", "m"), Node("worker", "w")
    async with nodes(master, worker):
        assert not master.links.send("w@1", Demand(True))
        await link(master, worker)
        assert master.links.send("w@1", Demand(True))


async def test_a_large_body_arrives_whole() -> None:
    master, worker = Node("master", "m"), Node("worker", "w")
    spec = bytes(range(256)) * 40_000
    async with nodes(master, worker):
        await link(master, worker)
        master.links.send(worker.me.id, Execute(1, 2, 3, 4, "big", spec))
        master.links.send(worker.me.id, Demand(True))
        master.links.flush()
        assert (await worker.received(Execute)).spec == spec
        await worker.received(Demand)


async def test_frames_are_put_together_from_any_pieces() -> None:
    master, worker = Node("master", "m"), Node("worker", "w")
    async with nodes(master, worker):
        await worker.listen()
        peer = await Peer.dial(worker.me.port)
        await peer.introduce(member("master", "m"))
        await worker.expect(LinkUp)
        sent = [Execute(1, 2, 3, 4, "n", bytes(size)) for size in (0, 1, 300, 70_000)] + [Demand(True)] * 3
        stream = b"".join(map(encode, sent))
        for start in range(0, len(stream), 997):
            peer.write(stream[start : start + 997])
            await asyncio.sleep(0)  # the worker's side of the loop reads
        assert [(await worker.expect(Received)).command for _ in sent] == sent


async def test_a_request_is_answered_and_the_answer_is_no_event() -> None:
    api, worker = Node("api", "a"), Node("worker", "w")
    async with nodes(api, worker):
        await link(api, worker)
        answer = asyncio.ensure_future(api.links.request(worker.me.id, LogRead(1, 2, 3), DEADLINE_SECONDS))
        asked = await worker.expect(Received)
        assert asked.command == LogRead(1, 2, 3)
        worker.links.send(api.me.id, LogChunk(0, b"log", 3, True), asked.request_id)
        worker.links.flush()
        assert await answer == LogChunk(0, b"log", 3, True)
        assert api.events.empty()


async def test_requests_from_both_ends_of_a_link_do_not_answer_each_other() -> None:
    one, two = Node("master", "1"), Node("master", "2")
    async with nodes(one, two):
        await link(one, two)
        questions = [
            asyncio.ensure_future(one.links.request(two.me.id, Cancel(1), DEADLINE_SECONDS)),
            asyncio.ensure_future(two.links.request(one.me.id, Cancel(2), DEADLINE_SECONDS)),
        ]
        at_two, at_one = await two.expect(Received), await one.expect(Received)
        assert (at_two.command, at_one.command) == (Cancel(1), Cancel(2))
        two.links.send(one.me.id, Done(1), at_two.request_id)
        one.links.send(two.me.id, Done(2), at_one.request_id)
        one.links.flush()
        two.links.flush()
        assert await asyncio.gather(*questions) == [Done(1), Done(2)]


async def test_a_request_that_is_not_answered_in_time_is_unavailable_and_its_late_answer_an_event() -> None:
    api, master = Node("api", "a"), Node("master", "m")
    async with nodes(api, master):
        await link(api, master)
        with pytest.raises(Unavailable, match=r"m@1 did not answer Cancel within 0\.01 s"):
            await api.links.request(master.me.id, Cancel(1), 0.01)
        asked = await master.expect(Received)
        master.links.send(api.me.id, Done(1), asked.request_id)
        master.links.flush()
        assert await api.received(Done) == Done(1)


async def test_a_request_fails_with_its_link() -> None:
    api, master = Node("api", "a"), Node("master", "m")
    async with nodes(api, master):
        await link(api, master)
        answer = asyncio.ensure_future(api.links.request(master.me.id, Cancel(1), DEADLINE_SECONDS))
        await master.expect(Received)
        await master.links.close()
        with pytest.raises(Unavailable, match="the link to m@1 was lost"):
            await answer


async def test_a_request_without_a_link_is_unavailable() -> None:
    api = Node("api", "a")
    async with nodes(api):
        with pytest.raises(Unavailable, match="no link to m@1"):
            await api.links.request("m@1", Cancel(1), 1)


async def test_a_refused_dial_means_that_the_dialled_life_is_over() -> None:
    master = Node("master", "m")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with nodes(master):
        master.links.dial(member("worker", "w", "1", port))
        assert (await master.expect(PeerDead)).peer_id == "w@1"


async def test_a_daemon_that_ends_is_reported_down_and_then_dead() -> None:
    master, worker = Node("master", "m", limits=limits(**NEVER_BACK)), Node("worker", "w")
    async with nodes(master):
        await link(master, worker)
        await worker.links.close()
        assert (await master.expect(LinkDown)).peer_id == "w@1"
        assert (await master.expect(PeerDead)).peer_id == "w@1"
        assert master.links.peers() == ()


async def test_another_life_at_the_address_means_that_the_dialled_life_is_over() -> None:
    master, worker = Node("master", "m"), Node("worker", "w", boot="2")
    async with nodes(master, worker):
        port = await worker.listen()
        master.links.dial(member("worker", "w", "1", port))
        assert (await master.expect(PeerDead)).peer_id == "w@1"
        master.links.dial(member("worker", "w", "2", port))
        assert (await master.expect(LinkUp)).peer.boot == "2"


async def test_who_listens_there_without_the_key_does_not_make_anyone_dead() -> None:
    master, stranger = Node("master", "m"), Node("worker", "w", boot="2", keys=(OTHER_KEY,))
    async with nodes(master, stranger):
        port = await stranger.listen()
        with pytest.raises(Unavailable, match="does not hold this cluster's key"):
            await master.links.connect(member("worker", "w", "1", port), 0.2)
        assert master.events.empty()


async def test_a_lost_link_is_dialled_again_at_once() -> None:
    master = Node("master", "m", limits=limits(stable_seconds=0.0, **NEVER_BACK))
    async with nodes(master), Impostor() as worker:
        master.links.dial(worker.me)
        for _ in range(3):
            peer = await worker.next()
            await peer.be_dialled(worker.me)
            await master.expect(LinkUp)
            await peer.hang_up()
            await master.expect(LinkDown)


async def test_a_listener_that_hangs_up_is_not_dead_and_is_tried_again() -> None:
    master = Node("master", "m")
    async with nodes(master), Impostor() as worker:
        master.links.dial(worker.me)
        for _ in range(4):
            await (await worker.next()).hang_up()
        await (await worker.next()).be_dialled(worker.me)
        await master.expect(LinkUp)


async def test_a_listener_that_accepts_and_says_nothing_is_not_dead_and_is_tried_again() -> None:
    master = Node("master", "m", limits=limits(handshake_seconds=0.05, **NEVER_BACK))
    async with nodes(master), Impostor() as worker:
        master.links.dial(worker.me)
        await worker.next()
        await worker.next()
        await worker.next()
        await (await worker.next()).be_dialled(worker.me)
        await master.expect(LinkUp)


async def test_undial_ends_the_link_and_stops_dialling() -> None:
    master, worker = Node("master", "m"), Node("worker", "w")
    async with nodes(master, worker):
        await link(master, worker)
        master.links.undial(worker.me.id)
        await master.expect(LinkDown)
        await worker.expect(LinkDown)
        master.links.dial(worker.me)  # the first thing that reaches the worker afterwards is a new dial
        await worker.expect(LinkUp)
        await master.expect(LinkUp)


async def test_a_new_link_of_a_peer_replaces_the_old_one_and_nothing_old_is_delivered_after_it() -> None:
    worker = Node("worker", "w")
    async with nodes(worker):
        port = await worker.listen()
        old, new = await Peer.dial(port), await Peer.dial(port)
        await old.introduce(member("master", "m"))
        await worker.expect(LinkUp)
        for number in range(1000):
            old.say(ResultAck(number, 0, 1))
            old.say(Demand(True))
        await new.introduce(member("master", "m"))
        new.say(Execute(1, 2, 3, 4, "new", b"{}"))
        while isinstance(event := await asyncio.wait_for(worker.events.get(), DEADLINE_SECONDS), Received):
            assert not isinstance(event.command, Execute)
        assert event == LinkDown("m@1", "replaced by a newer link")
        await worker.expect(LinkUp)
        assert (await worker.received(Execute)).name == "new"


@pytest.mark.parametrize("first", [0, 1])
async def test_two_that_dial_each_other_keep_the_link_that_the_smaller_id_dialled(first: int) -> None:
    pair = Node("master", "1"), Node("master", "2")
    async with nodes(*pair):
        for node in pair:
            await node.listen()
        pair[first].links.dial(pair[1 - first].me)
        pair[1 - first].links.dial(pair[first].me)
        one, two = pair
        await one.until(lambda: one.links.peers() and two.links.peers())
        answer = asyncio.ensure_future(one.links.request(two.me.id, Cancel(7), DEADLINE_SECONDS))
        while not isinstance(event := await asyncio.wait_for(two.events.get(), DEADLINE_SECONDS), Received):
            assert isinstance(event, LinkUp | LinkDown)
        assert event.request_id % 2 == 1  # the asking side has dialled
        two.links.send(one.me.id, Done(1), event.request_id)
        two.links.flush()
        assert await answer == Done(1)


async def test_connect_finds_out_who_listens_at_an_address() -> None:
    api, master = Node("api", "a"), Node("master", "m", boot="7")
    async with nodes(api, master):
        port = await master.listen()
        assert await api.links.connect(Member("master", "", "", "localhost", port), DEADLINE_SECONDS) == "m@7"
        api.links.undial("m@7")
        await api.expect(LinkUp)
        await api.expect(LinkDown)


async def test_connect_to_nobody_says_so() -> None:
    api = Node("api", "a")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with nodes(api):
        with pytest.raises(Unavailable, match=f"127.0.0.1:{port} refuses connections"):
            await api.links.connect(Member("master", "", "", "127.0.0.1", port), DEADLINE_SECONDS)
        assert api.events.empty()  # nobody in particular was expected, so nobody is dead


async def test_links_are_made_during_a_rotation_of_the_key() -> None:
    master = Node("master", "m", keys=(KEY,))
    halfway = Node("worker", "w", keys=(KEY, OTHER_KEY))
    renewed = Node("master", "n", keys=(OTHER_KEY,))
    async with nodes(master, halfway, renewed):
        await link(master, halfway)
        await link(renewed, halfway, listening=True)


async def test_heartbeats_carry_the_load_both_ways() -> None:
    quick = limits(heartbeat_seconds=0.01)
    master, worker = Node("master", "m", load=lambda: 5, limits=quick), Node("worker", "w", load=lambda: 7)
    async with nodes(master, worker):
        await link(master, worker)
        await master.until(lambda: master.links.load_of("w@1") == 7)
        await worker.until(lambda: worker.links.load_of("m@1") == 5)
        assert master.links.load_of("nobody@1") is None


async def test_closing_delivers_what_was_queued() -> None:
    master, worker = Node("master", "m"), Node("worker", "w")
    async with nodes(master, worker):
        await link(master, worker)
        master.links.send(worker.me.id, Execute(1, 2, 3, 4, "n", bytes(3_000_000)))
        master.links.send(worker.me.id, Demand(True))
        await master.links.close()
        await worker.received(Execute)
        await worker.received(Demand)
        await worker.expect(LinkDown)
        assert master.events.empty()


async def test_a_worker_may_not_act_as_a_master() -> None:
    master, worker = Node("master", "m"), Node("worker", "w")
    async with nodes(master, worker):
        await link(master, worker)
        worker.links.send(master.me.id, Execute(1, 2, 3, 4, "n", b"{}"))
        worker.links.flush()
        down = await master.expect(LinkDown)
        assert down.reason == "a worker may not send Execute to a master"


async def test_an_answer_of_the_wrong_flow_is_refused_too() -> None:
    master, worker = Node("master", "m"), Node("worker", "w")
    async with nodes(master, worker):
        await link(master, worker)
        master.links.send(worker.me.id, Submitted(1))
        master.links.flush()
        assert "may not send Submitted" in (await worker.expect(LinkDown)).reason


async def test_listening_refuses_a_port_that_is_taken() -> None:
    one, two = Node("worker", "w"), Node("worker", "v")
    async with nodes(one, two):
        port = await one.listen()
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}: .*in use"):
            await two.listen(port)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_listening_to_other_machines_must_be_allowed(host: str) -> None:
    node = Node("worker", "w")
    async with nodes(node):
        with pytest.raises(UsageError, match="can be reached from other machines"):
            await node.links.listen(host, 0)
        with socket.create_server(("0.0.0.0", 0)) as sock, pytest.raises(UsageError, match="other machines"):
            await node.links.listen("127.0.0.1", 0, sock=sock)
        assert await node.links.listen("0.0.0.0", 0, allow_remote=True) == node.me.port


async def test_a_socket_bound_by_somebody_else_serves_as_well() -> None:
    master, worker = Node("master", "m"), Node("worker", "w")
    async with nodes(master, worker):
        sock = socket.create_server(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        assert await worker.links.listen("", 0, sock=sock) == port
        master.links.dial(member("worker", "w", "1", port))
        await master.expect(LinkUp)


def test_a_member_that_does_not_fit_into_the_first_frame_is_refused_at_the_start() -> None:
    crowd = Member("worker", "w", "1", groups=tuple(f"group-{number}" for number in range(500)))
    with pytest.raises(UsageError, match="the first frame of a link holds 4096"):
        Links(crowd, keys=(KEY,), cluster="c", accept=frozenset(), on_event=print, rng=random.Random(1))


async def link(one: Node, two: Node, *, listening: bool = False) -> None:
    """Let the first dial the second, and wait until both know."""
    if not listening:
        await two.listen()
    one.links.dial(two.me)
    await one.expect(LinkUp)
    await two.expect(LinkUp)
