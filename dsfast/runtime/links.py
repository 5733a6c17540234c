"""The command channel: authenticated framed links to peers, dialled or accepted.

What a caller may rely on:
- a peer is told apart by its member id, which is new for every life of a daemon; each has at most one live link;
- LinkUp and LinkDown of a peer alternate, and every Received of a link lies between its two;
- commands arrive in the order in which they were sent, or the link ends: nothing is lost from the middle;
- `send` never waits: it queues, and `flush` writes what a turn has queued for a peer at once;
- a link says nothing about whether its peer lives: only PeerDead does (see `dialer`), or the registry.

`link` is one connection, `table` who is linked, `dialer` how a link is kept, `handshake` who may link at all.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import secrets
import socket
from collections.abc import Callable
from functools import partial
from itertools import count

import msgspec

from dsfast.engine.events import Event
from dsfast.errors import Problem, Unavailable, UsageError
from dsfast.fatal import report_fatal
from dsfast.model import Member
from dsfast.runtime.dialer import Dialer
from dsfast.runtime.handshake import KEYS_MAX, NONCE_BYTES, PROOF_BYTES, Identity, Listening
from dsfast.runtime.limits import LinkLimits
from dsfast.runtime.link import Link
from dsfast.runtime.table import LinkTable
from dsfast.runtime.tls import Tls
from dsfast.wire.codec import encode, encode_all
from dsfast.wire.commands import Challenge, Command, Hello

DEFAULT_LIMITS = LinkLimits()


class Links:
    """All links of one daemon, on one event loop. Events go to `on_event`, on that loop."""

    def __init__(
        self,
        me: Member,
        *,
        keys: tuple[bytes, ...],
        cluster: str,
        accept: frozenset[str],
        on_event: Callable[[Event], None],
        rng: random.Random,
        load: Callable[[], int] = int,
        limits: LinkLimits = DEFAULT_LIMITS,
        tls: Tls | None = None,
    ) -> None:
        _require_short_introduction(me, cluster, limits)
        self._keys = keys
        self._cluster = cluster
        self._accept = accept
        self._limits = limits
        self._tls = tls
        self._table = LinkTable(me, on_event, load, limits, rng)
        self._dialers: dict[str, Dialer] = {}  # by the id that was dialled, or by address if it was not known
        self._unflushed: dict[Link, list[tuple[Command, int]]] = {}  # what the next flush sends
        self._server: asyncio.Server | None = None
        # Both sides of a link may ask; ids of the dialling side are odd, so an answer is never taken for a request.
        self._request_ids = count(2, 2)

    @property
    def me(self) -> Member:
        """Ourselves as peers see us; `listen` fills in host and port if they were left open."""
        return self._table.me

    @property
    def refused(self) -> dict[str, int]:
        """How many strangers were turned away, by code."""
        return dict(self._table.gate.refused)

    def peers(self) -> tuple[Member, ...]:
        """Everyone with a live link, sorted by id."""
        return tuple(link.peer for _, link in sorted(self._table.links.items()) if link.peer is not None)

    def load_of(self, peer_id: str) -> int | None:
        """The load that a peer gave with its last heartbeat; None without a link."""
        link = self._table.links.get(peer_id)
        return link.peer_load if link is not None else None

    async def listen(
        self, host: str, port: int, *, sock: socket.socket | None = None, allow_remote: bool = False
    ) -> int:
        """Accept links, and return the port. A socket that is already bound may be given instead of an address.

        Raises UsageError when the address is taken, is not ours, or others could reach it without `allow_remote`.
        """
        assert self._server is None, "listening already"
        sock = sock or await _bind(host, port, allow_remote)
        address, port = sock.getsockname()[:2]
        _require_local(address, allow_remote)
        if not self.me.port:
            self._table.me = msgspec.structs.replace(self.me, host=self.me.host or host, port=port)
        loop, tls = asyncio.get_running_loop(), self._tls
        self._server = await loop.create_server(
            self._accepted,
            sock=sock,
            backlog=self._limits.backlog,
            ssl=tls.server if tls else None,
            ssl_handshake_timeout=self._limits.handshake_seconds if tls else None,
        )
        return int(port)

    def dial(self, member: Member) -> None:
        """Keep a link to this life of a daemon until `undial`, or until PeerDead is reported for it."""
        self._dialer(member.id, member)

    def undial(self, peer_id: str) -> None:
        """Stop dialling; a link that we dialled ends with a LinkDown."""
        dialer = self._dialers.get(peer_id)
        if dialer is None:  # it may have been dialled before its id was known
            dialer = next((each for each in self._dialers.values() if each.member.id == peer_id), None)
        if dialer is not None:
            self._stop(dialer)

    async def connect(self, member: Member, timeout: float) -> str:  # noqa: ASYNC109 - the sentence names it
        """Dial, wait until the link is up, and return the peer's id; for clients.

        A member without a boot id means whoever listens at its address. Raises Unavailable with the last trouble.
        """
        key = member.id if member.boot else f"{member.host}:{member.port}"
        dialer = self._dialer(key, member)
        try:
            async with asyncio.timeout(timeout):
                peer = await asyncio.shield(dialer.first)
        except TimeoutError:
            self._stop(dialer)
            trouble = dialer.trouble or "no answer"
            raise Unavailable(f"no link to {member.host}:{member.port} within {timeout:g} s: {trouble}") from None
        return peer.id

    def send(self, peer_id: str, command: Command, request_id: int = 0) -> bool:
        """Queue a command for the next flush; False if there is no link. `request_id` is the one that it answers."""
        link = self._table.links.get(peer_id)
        if link is None:
            return False
        sends = self._unflushed.get(link)
        if sends is None:
            self._unflushed[link] = [(command, request_id)]
        else:
            sends.append((command, request_id))
        return True

    def flush(self) -> None:
        """Write what has been queued since the last flush: once per peer.

        Peers that came in last go first: a turn of a master ends with what is to start, and whoever is written to may
        be given this very core at once. Answers and acknowledgements can wait for that.
        """
        unflushed, self._unflushed = self._unflushed, {}
        for link, sends in reversed(unflushed.items()):
            if link.queue(encode_all(sends)):
                link.flush()

    async def request(self, peer_id: str, command: Command, timeout: float) -> Command:  # noqa: ASYNC109 - likewise
        """Send a command and wait for its answer, which is not reported as an event.

        Raises Unavailable when there is no link, when it is lost, and when no answer comes within `timeout` seconds.
        """
        self.flush()  # what was queued for this peer comes first
        link = self._table.links.get(peer_id)
        request_id = next(self._request_ids) + (link is not None and link.dialled)
        if link is None or not link.queue(encode(command, request_id)):
            raise Unavailable(f"there is no link to {peer_id}")
        answer: asyncio.Future[Command] = asyncio.get_running_loop().create_future()
        link.waiting[request_id] = answer
        link.flush()
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            name = type(command).__name__
            raise Unavailable(f"{peer_id} did not answer {name} within {timeout:g} s") from None
        finally:
            link.waiting.pop(request_id, None)

    def drop(self, reason: str) -> None:
        """End all links at once: what they have received and not delivered counts no more. Peers may dial again."""
        for link in list(self._table.links.values()):
            link.drop(reason)

    async def close(self) -> None:
        """Stop listening and dialling, send what is queued, and end all links; nothing is reported any more."""
        self._table.report = _to_nobody
        self.flush()
        if self._server is not None:
            self._server.close()
        links = [*self._table.links.values(), *self._table.strangers]
        tasks = [dialer.task for dialer in self._dialers.values()]
        for link in links:
            link.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if links:
            await asyncio.wait([link.ended for link in links], timeout=self._limits.close_seconds)
        for link in links:
            link.drop("closed")

    def _dialer(self, key: str, member: Member) -> Dialer:
        found = self._dialers.get(key)
        if found is None:
            found = self._dialers[key] = Dialer(self._table, member, self._identity, self._tls)
            found.task.add_done_callback(partial(self._dialled_out, key, found))
        return found

    def _stop(self, dialer: Dialer) -> None:
        dialer.task.cancel()
        self._dialers = {key: each for key, each in self._dialers.items() if each is not dialer}

    def _dialled_out(self, key: str, dialer: Dialer, task: asyncio.Task[None]) -> None:
        """The life that was dialled is over, or dialling has a bug: then this peer would never be dialled again."""
        if self._dialers.get(key) is dialer:
            del self._dialers[key]
        if not task.cancelled() and (bug := task.exception()) is not None:
            report_fatal(f"the task that dials {dialer.member.id} died", bug)

    def _identity(self) -> Identity:
        return Identity(self.me, self._cluster, self._keys)

    def _accepted(self) -> Link:
        return Link(self._table, self._begin_listening, dialled=False)

    def _begin_listening(self, transport: asyncio.Transport) -> Listening:
        binding = self._tls.binding_of_listener() if self._tls else b""
        identity = Identity(self.me, self._cluster, self._keys, binding)
        return Listening(identity, secrets.token_bytes(NONCE_BYTES), self._accept)


async def _bind(host: str, port: int, allow_remote: bool) -> socket.socket:
    """A socket bound to the first address that the host name stands for."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        _require_local(str(address[0]), allow_remote)
        return socket.create_server((str(address[0]), int(address[1])), family=family)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error


def _require_local(address: str, allow_remote: bool) -> None:
    if not allow_remote and not ipaddress.ip_address(address).is_loopback:
        hint = "bind to 127.0.0.1, or allow remote links in the configuration"
        raise UsageError(Problem(f"{address or 'every address'} can be reached from other machines", hint=hint))


def _require_short_introduction(me: Member, cluster: str, limits: LinkLimits) -> None:
    """Peers accept only small frames from strangers, so a member must fit into one."""
    proofs = bytes(PROOF_BYTES * KEYS_MAX)
    nonce = bytes(NONCE_BYTES)
    size = max(len(encode(Hello(cluster, me, nonce))), len(encode(Challenge(me, nonce, proofs))))
    if size > limits.stranger_body_bytes_max:
        text = f"the names of cluster, daemon and worker groups take {size} bytes together"
        raise UsageError(f"{text}; the first frame of a link holds {limits.stranger_body_bytes_max}")


def _to_nobody(event: Event) -> None:
    """Where events go once the links are being closed."""
