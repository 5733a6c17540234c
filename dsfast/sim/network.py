"""Links of the simulated cluster: byte streams through the real codec, kept up by masters that dial.

What is promised is what dsfast.runtime.links promises: commands arrive in order or the link ends, nothing of an
old link is delivered after a newer one is up, LinkUp and LinkDown of a peer alternate, and PeerDead is said when
a dialled process is gone. A link that is cut loses what is on its way, and each end learns of it in its own time.
A direction can be blocked: what is sent waits, as TCP would repeat it, and arrives late if the block ends before
heartbeats stay unanswered for too long; then the link is over. The other direction goes on until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsfast._core.frame import FrameDecoder
from dsfast.engine.events import LinkDown, LinkUp, PeerDead, Received
from dsfast.model import Member
from dsfast.wire.codec import MANY, decode, decode_many, encode_all
from dsfast.wire.commands import Command

if TYPE_CHECKING:
    from dsfast.sim.host import Host
    from dsfast.sim.world import World

BODY_BYTES_MAX = 64 << 20
NOTICE_SECONDS = 3.0  # a silent cut is noticed by heartbeats within this
CONNECT_SECONDS = 5.0  # a try to connect into nowhere gives up after this


class Stream:
    """One direction of a link."""

    def __init__(self, link: Link, sender: Host, receiver: Host) -> None:
        self.link = link
        self.sender = sender
        self.receiver = receiver
        self.arrives = 0.0  # when what was sent last arrives: later sends arrive later
        self._unsent: list[tuple[Command, int]] = []
        self._stalled: list[bytes] = []  # what a block holds back
        self._decoder = FrameDecoder(BODY_BYTES_MAX)

    def queue(self, command: Command, request_id: int) -> None:
        self._unsent.append((command, request_id))

    def flush(self) -> None:
        """Put what is queued on its way, in one piece or in two."""
        world = self.link.world
        data, self._unsent = encode_all(self._unsent), []
        if not data or self.link.cut:
            return
        if world.rng.random() < 0.2:
            at = world.rng.randrange(len(data))
            self._send(data[:at])
            self._send(data[at:])
        else:
            self._send(data)

    def _send(self, data: bytes) -> None:
        world = self.link.world
        self.arrives = max(self.arrives, world.clock.now + world.latency())
        world.clock.after(self.arrives - world.clock.now, self._arrive, data)

    def _arrive(self, data: bytes) -> None:
        if self.link.cut or not self.receiver.alive:
            return
        if self._stalled or self.link.world.network.is_blocked(self.sender.name, self.receiver.name):
            self._stalled.append(data)
        else:
            self._deliver(data)

    def unstall(self) -> None:
        """The block is over: everything that waited arrives."""
        stalled, self._stalled = self._stalled, []
        for data in stalled if not self.link.cut and self.receiver.alive else ():
            self._deliver(data)

    def _deliver(self, data: bytes) -> None:
        for kind, request_id, body in self._decoder.feed(data):
            for command in decode_many(body)[1] if kind == MANY else (decode(kind, body),):
                self.receiver.put(Received(self.sender.member.id, request_id, command))


class Link:
    """A connection between two lives of daemons; `dialler` has set it up."""

    def __init__(self, world: World, dialler: Host, listener: Host) -> None:
        self.world = world
        self.ends = (dialler, listener)
        self.cut = False
        self.told: set[str] = set()  # ends that believe in it
        self.streams = {
            dialler.member.id: Stream(self, dialler, listener),
            listener.member.id: Stream(self, listener, dialler),
        }

    def open(self) -> None:
        """The listener has it first; the dialler after the answer has travelled back."""
        dialler, listener = self.ends
        self._report_up(listener, dialler)
        back = self.streams[listener.member.id]
        back.arrives = self.world.clock.now + self.world.latency()
        self.world.clock.after(back.arrives - self.world.clock.now, self._report_up, dialler, listener)

    def _report_up(self, end: Host, peer: Host) -> None:
        if not self.cut and end.alive and peer.alive:
            self.told.add(end.member.id)
            end.links[peer.member.id] = self
            end.put(LinkUp(peer.member))

    def break_off(self, notice: float) -> None:
        """Cut it; each end that lives notices within `notice` seconds, by chance."""
        if self.cut:
            return
        self.cut = True
        for end in self.ends:
            self.world.clock.after(self.world.rng.random() * notice, self.end_at, end)

    def end_at(self, end: Host) -> None:
        """This end learns that the link is over, once."""
        peer = self.ends[0] if end is self.ends[1] else self.ends[1]
        if end.member.id not in self.told or end.links.get(peer.member.id) is not self:
            self.told.discard(end.member.id)
            if end is self.ends[0] and end.alive and peer.member.id not in end.links:
                self.world.network.redial(end, peer.member.id)
            return
        self.told.discard(end.member.id)
        del end.links[peer.member.id]
        if end.alive:
            end.put(LinkDown(peer.member.id, "cut"))
            if end is self.ends[0]:
                self.world.network.redial(end, peer.member.id)


class Network:
    """Who can reach whom, and who dials whom."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dialled: set[tuple[str, str]] = set()
        self._blocked: dict[tuple[str, str], float] = {}  # names of hosts, from and to -> until when
        self.links: list[Link] = []

    # -- dialling ------------------------------------------------------------------------------------------------

    def dial(self, host: Host, member: Member) -> None:
        """Keep a link to this life, until it is known to be over."""
        pair = (host.member.id, member.id)
        if pair not in self._dialled:
            self._dialled.add(pair)
            host.after(self._world.latency(), self._try, host, member.id, 0)

    def redial(self, host: Host, peer_id: str) -> None:
        """A link that was dialled has ended: try again at once."""
        if (host.member.id, peer_id) in self._dialled:
            host.after(self._world.latency(), self._try, host, peer_id, 0)

    def _try(self, host: Host, peer_id: str, tries: int) -> None:
        if not host.alive or peer_id in host.links:
            return
        world, peer = self._world, self._world.lives[peer_id]
        if self._is_silent(host, peer):
            wait = CONNECT_SECONDS * world.rng.random() + min(0.05 * 2 ** min(tries, 10), 5.0)
            host.after(wait, self._try, host, peer_id, tries + 1)
        elif peer.alive:
            self._connect(host, peer)
        else:
            self._dialled.discard((host.member.id, peer_id))
            host.put(PeerDead(peer_id))

    def _is_silent(self, host: Host, peer: Host) -> bool:
        """Whether a try to connect is neither answered nor refused."""
        blocked = self.is_blocked(host.name, peer.name) or self.is_blocked(peer.name, host.name)
        return blocked or peer.paused or (not peer.alive and not peer.refuses)

    def _connect(self, host: Host, peer: Host) -> None:
        old = peer.links.get(host.member.id)
        if old is not None:  # the listener has not noticed yet that the old one is over
            old.cut = True
            old.end_at(peer)
        link = Link(self._world, host, peer)
        self.links = [each for each in self.links if not each.cut]
        self.links.append(link)
        link.open()

    # -- what goes wrong -----------------------------------------------------------------------------------------

    def cut(self, first: str, second: str, notice: float = NOTICE_SECONDS) -> None:
        """End the links between two hosts, by name."""
        for link in self.links:
            if {end.name for end in link.ends} == {first, second}:
                link.break_off(notice)

    def block(self, source: str, target: str, seconds: float) -> None:
        """Let nothing through from one host to another for a while."""
        world = self._world
        until = self._blocked[source, target] = max(world.clock.now + seconds, self._blocked.get((source, target), 0.0))
        world.clock.after(until - world.clock.now, self._unblock, source, target)
        for link in self._links_of(source, target):
            self._watch(link)

    def _watch(self, link: Link) -> None:
        """Heartbeats stay unanswered: unless that ends in time, so does the link."""
        noticed = NOTICE_SECONDS * self._world.rng.uniform(0.5, 1.0)
        self._world.clock.after(noticed, self._give_up, link)

    def _give_up(self, link: Link) -> None:
        one, other = link.ends
        if self._is_silent(one, other) or self._is_silent(other, one):
            link.break_off(NOTICE_SECONDS / 2)

    def _unblock(self, source: str, target: str) -> None:
        if not self.is_blocked(source, target):
            for link in self._links_of(source, target):
                for stream in link.streams.values():
                    if stream.sender.name == source:
                        stream.unstall()

    def _links_of(self, first: str, second: str) -> list[Link]:
        return [link for link in self.links if not link.cut and {end.name for end in link.ends} == {first, second}]

    def is_blocked(self, source: str, target: str) -> bool:
        return self._blocked.get((source, target), 0.0) > self._world.clock.now

    def goes_silent(self, host: Host) -> None:
        """The host answers no heartbeats any more, while its links stand."""
        for link in self.links:
            if host in link.ends and not link.cut:
                self._watch(link)

    def heal(self) -> None:
        """Everybody reaches everybody."""
        pairs = list(self._blocked)
        self._blocked.clear()
        for source, target in pairs:
            self._unblock(source, target)

    def drop_host(self, host: Host, notice: float) -> None:
        """The host's process is gone: its links end."""
        for link in self.links:
            if host in link.ends:
                link.break_off(notice)
