"""Keeps a link to one life of a daemon, until told to stop or that life is known to be over.

What a try to connect tells us:
- refused: nobody listens there. The port of a worker is held by its guardian until its last task has ended,
  so the dialled life is over, and nothing of it runs. That is the one case in which we say PeerDead by ourselves;
- a handshake with another life (the same daemon, another boot): the dialled one is over, too;
- accepted, but no answer until the deadline: a guardian that is still clearing up, or a peer that is stuck. Try
  again at once, so that the guardian's end is noticed when it comes: it resets the connection that waits;
- accepted and closed: a wrong key or role, or a daemon that is ending. Try again, by and by less often;
- no route, no answer, no such name: the network. Try again likewise.
A link that is lost is dialled again at once, because a process that has been killed then refuses: that is how
its death is known within milliseconds. While the peer has dialled us, there is nothing to do.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import replace

from dsfast.engine.events import PeerDead
from dsfast.errors import Unavailable
from dsfast.log import log_event
from dsfast.model import Member
from dsfast.runtime.backoff import Backoff
from dsfast.runtime.handshake import NONCE_BYTES, AnotherLife, Dialling, HandshakeError, Identity
from dsfast.runtime.link import Link
from dsfast.runtime.table import LinkTable, logger
from dsfast.runtime.tls import Tls, binding_of_dialler

# Failures after which we try again without waiting. A link to a killed process is lost; the next try may reach its
# port in the moment of its closing and is reset; the one after that is refused, and the death is known.
AT_ONCE = 2


class Dialer:
    """One peer. `member` is who is expected; without a boot id it is whoever answers first.

    Its `task` ends when the dialled life is over; cancel it to stop, which ends a link that was dialled here.
    """

    def __init__(self, table: LinkTable, member: Member, identity: Callable[[], Identity], tls: Tls | None) -> None:
        self.member = member
        self._table = table
        self._identity = identity
        self._tls = tls
        self._start_over()
        self._waited = False  # the last try was a wait in itself
        self._dead = False
        self.trouble = ""  # why the last try failed, for people
        self.first: asyncio.Future[Member] = asyncio.get_running_loop().create_future()  # the first time it is up
        self.first.add_done_callback(_looked_at)
        self.task = asyncio.get_running_loop().create_task(self._run(), name=f"dial {member.id}")

    async def _run(self) -> None:
        """Returns when the dialled life is over."""
        try:
            while not self._dead:
                link = self._table.links.get(self.member.id) or await self._try()
                if link is not None:
                    await self._stay(link)
                if not self._dead:
                    await self._pause()
        finally:
            if not self.first.done():
                self.first.set_exception(Unavailable(f"{self.member.id} is no longer dialled"))

    async def _stay(self, link: Link) -> None:
        """Wait for the end of a link that is up, whoever dialled it."""
        assert link.peer is not None
        self.member = link.peer
        self.trouble = ""
        if not self.first.done():
            self.first.set_result(link.peer)
        try:
            await asyncio.shield(link.ended)
        finally:
            if link.dialled and not link.closing:
                link.drop("no longer dialled")
        if asyncio.get_running_loop().time() - link.up_at >= self._table.limits.stable_seconds:
            self._start_over()

    def _start_over(self) -> None:
        """It has worked, or we have waited: the next failure is the first again."""
        limits = self._table.limits
        self._failures = 0
        self._backoff = Backoff(limits.backoff_seconds_min, limits.backoff_seconds_max, self._table.rng)

    async def _pause(self) -> None:
        """Wait before the next try: not at all after the first failures, or one that took long; then ever longer."""
        self._failures += 1
        if self._waited:
            self._waited = False
            self._start_over()
        elif self._failures > AT_ONCE:
            await self._backoff.wait()

    async def _try(self) -> Link | None:
        """Connect and shake hands; the link if it is up, else what to make of it is noted."""
        link, kept = Link(self._table, self._begin, dialled=True), False
        try:
            await self._connect(link)
            kept = await asyncio.shield(link.settled)
            if kept:
                return link
        except ConnectionRefusedError:
            self._over(f"{self.member.host}:{self.member.port} refuses connections: nobody listens there")
        except TimeoutError:
            self._failed("no answer to the attempt to connect")
            self._waited = True
        except OSError as error:
            self._failed(f"cannot connect: {error}")
        finally:
            if not kept:
                link.drop("no longer dialled")
        self._judge(link)
        return None

    async def _connect(self, link: Link) -> None:
        loop, member = asyncio.get_running_loop(), self.member
        async with asyncio.timeout(self._table.limits.handshake_seconds):
            family, host = await self._table.names.address(member.host)
            ssl, name = (self._tls.client, member.host) if self._tls else (None, None)
            await loop.create_connection(lambda: link, host, member.port, family=family, ssl=ssl, server_hostname=name)

    def _begin(self, transport: asyncio.Transport) -> Dialling:
        identity = replace(self._identity(), binding=binding_of_dialler(transport))
        return Dialling(identity, secrets.token_bytes(NONCE_BYTES), self.member)

    def _judge(self, link: Link) -> None:
        """What a handshake that has failed says about the peer."""
        if isinstance(link.error, AnotherLife):
            self._over(str(link.error))
        elif link.error is not None:
            self._failed(str(link.error))
            if isinstance(link.error, HandshakeError) and link.error.code == "deadline":
                self._waited = True
        elif link.address:
            self._failed(f"{link.reason} in the handshake: it is ending, or does not take our key, cluster or role")

    def _over(self, reason: str) -> None:
        if self.member.id in self._table.links:  # it has dialled us while we tried: it lives
            return
        self._dead = True
        if not self.first.done():
            self.first.set_exception(Unavailable(reason))
        if self.member.boot:
            log_event(logger, "peer_dead", peer=self.member.id, reason=reason)
            self._table.report(PeerDead(self.member.id))

    def _failed(self, reason: str) -> None:
        """Note why there is no link yet; logged when it is news."""
        if reason != self.trouble and self.member.id not in self._table.links:
            self.trouble = reason
            address = f"{self.member.host}:{self.member.port}"
            log_event(logger, "dial_failed", peer=self.member.id, address=address, reason=reason)


def _looked_at(first: asyncio.Future[Member]) -> None:
    """Nobody has to wait for the first link; its failure is in the log and in the events."""
    if not first.cancelled():
        first.exception()
