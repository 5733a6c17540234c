"""Who is linked to us: at most one live link per peer, and what is reported of it.

A peer that connects again has lost its old connection, even if we have not noticed: the new link replaces the
old one, and LinkDown of the old is reported before LinkUp of the new, so nothing of an old link is ever
delivered after a newer one is up. When two peers dial each other at the same moment, both keep the link that
the one with the smaller id has dialled; the other connection ends before it is reported to anyone.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from dsfast.engine.events import Event, LinkDown, LinkUp, Received
from dsfast.errors import Unavailable
from dsfast.log import log_event
from dsfast.model import Member
from dsfast.runtime.gate import Gate
from dsfast.runtime.handshake import HandshakeError
from dsfast.runtime.limits import LinkLimits
from dsfast.runtime.link import Link
from dsfast.runtime.names import Names
from dsfast.wire import flows
from dsfast.wire.commands import Command

LINKS_PER_PHASE = 32  # beat together, in some 0.5 ms
PHASES = 16  # of a heartbeat: a thousand links are two groups in each

logger = logging.getLogger("dsfast.links")


class LinkTable:
    """All links of a daemon. Links call it about themselves; `report` is where events go."""

    def __init__(
        self,
        me: Member,
        report: Callable[[Event], None],
        load: Callable[[], int],
        limits: LinkLimits,
        rng: random.Random,
    ) -> None:
        self.me = me
        self.report = report
        self.load = load
        self.limits = limits
        self.rng = rng
        self.gate = Gate(limits, logger)
        self.names = Names()
        self._first_phase = rng.random()  # daemons beat apart
        self.links: dict[str, Link] = {}  # live ones, by peer id
        self.strangers: set[Link] = set()  # accepted, not yet up

    def opened(self, link: Link) -> None:
        """A connection exists; nothing is known of the peer."""
        if link.dialled:
            return
        room = self.gate.has_room(link.address)
        self.gate.enter(link.address)
        self.strangers.add(link)
        if not room:
            link.error = HandshakeError("half_open", "too many connections that have not proved anything")
            link.drop(str(link.error))

    def admit(self, link: Link, peer: Member) -> bool:
        """Whether this authenticated link may go up; ends whichever link it is that must not be."""
        old = self.links.get(peer.id)
        if old is None:
            return True
        if old.dialled != link.dialled and (self.me.id < peer.id) == old.dialled:
            link.error = HandshakeError("crossed", "both sides dialled; the other link stays")
            link.drop(str(link.error))
            return False
        old.drop("replaced by a newer link")
        return True

    def up(self, link: Link) -> None:
        """The link is up: report it."""
        assert link.peer is not None
        self._leave_gate(link)
        self.links[link.peer_id] = link
        log_event(logger, "link_up", peer=link.peer_id, role=link.peer.role, address=link.address, dialled=link.dialled)
        self.report(LinkUp(link.peer))

    def received(self, link: Link, request_id: int, command: Command) -> None:
        """A command arrived: the answer to a request of ours, or an event."""
        if request_id:
            answer = link.waiting.pop(request_id, None)
            if answer is not None:
                if not answer.done():
                    answer.set_result(command)
                return
        self.report(Received(link.peer_id, request_id, command))

    def ended(self, link: Link) -> None:
        """The link has ended; requests on it fail."""
        self._leave_gate(link)
        for answer in link.waiting.values():
            if not answer.done():
                answer.set_exception(Unavailable(f"the link to {link.peer_id} was lost: {link.reason}"))
        link.waiting.clear()
        if link.peer is None:
            self._refused(link)
        elif self.links.get(link.peer_id) is link:
            del self.links[link.peer_id]
            log_event(logger, "link_down", peer=link.peer_id, reason=link.reason)
            self.report(LinkDown(link.peer_id, link.reason))

    def allowed_from(self, peer: Member) -> frozenset[int]:
        """The kinds of commands that this peer may send us."""
        return flows.allowed(peer.role, self.me.role)

    def phase(self) -> float:
        """A moment, in seconds, at which a new link's heartbeat falls: as those of its neighbours, but not of all."""
        place = len(self.links) // LINKS_PER_PHASE / PHASES
        return self.limits.heartbeat_seconds * (self._first_phase + place)

    def _leave_gate(self, link: Link) -> None:
        if link in self.strangers:
            self.strangers.discard(link)
            self.gate.leave(link.address)

    def _refused(self, link: Link) -> None:
        if not link.dialled:
            code = link.error.code if isinstance(link.error, HandshakeError) else "protocol" if link.error else "closed"
            self.gate.refuse(code, link.address, link.reason, asyncio.get_running_loop().time())
