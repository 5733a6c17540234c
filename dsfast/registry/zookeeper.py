"""The roster in ZooKeeper: one ephemeral node per member below /dsfast/<cluster>/members.

Theory of operation. kazoo runs threads; everything they have to say crosses to the event loop in one place,
`_to_loop`, and nothing of ours ever runs or waits in them. What ZooKeeper does not promise is not relied on:

- A watch is a hint. Whatever happened, the list is read again, and every RELIST_SECONDS without a hint.
- kazoo does not put back ephemeral nodes after a session has ended, and some servers renew sessions without a word.
  So an entry counts only while its node belongs to the session of the connection that stands: `renew` compares the
  two ids, deletes a leftover of an earlier session (which would vanish later, under our feet) and writes it anew.
- A client that is cut off is never told that its session has ended. `leased.RosterRegistry` counts on its own clock:
  each `renew` is a read that the server counts as a sign of life, and LEASE_SHARE of a session after the last one
  that was answered, we are lost.
- A server that is starting may swallow a connection (one in ten, with ZooKeeper 3.8), and one whose host has gone
  answers nothing; kazoo would wait a whole session for either and lose it. An attempt gets a share instead.
- kazoo's thread can end for good (refused credentials, an error it did not expect): it is replaced.

A node is named after the member's id and a digest of its body, so a node never changes: an update is a new node,
and after a reconnect only the list has to be read again, not a thousand bodies.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from math import ceil
from threading import Thread
from time import monotonic
from typing import Any, TypeVar, TypeVarTuple
from urllib.parse import quote

from kazoo.client import KazooClient
from kazoo.exceptions import (
    AuthFailedError,
    InvalidACLError,
    KazooException,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    SASLException,
    SessionClosedRequireSaslError,
)
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.protocol.states import KazooState, KeeperState
from kazoo.security import CREATOR_ALL_ACL

from dsfast.errors import Unavailable, UsageError
from dsfast.model import Member
from dsfast.registry.ensemble import Ensemble
from dsfast.registry.roster import View, encode

RELIST_SECONDS = 30.0  # how long a lost watch can hide a change
LEASE_SHARE = 0.9  # of the session: what is left is the margin for a slow last moment
SESSION_TOLERANCE = 0.25  # share by which the session granted may differ from the one asked for without a warning
ATTEMPTS_PER_SESSION = 3  # connection attempts that fit into one session: two servers may keep silent
RECONNECT_SECONDS_MAX = 1.0  # longest wait between attempts: an ensemble that is back is found at once
CLOSE_SECONDS_MAX = 2.0  # how long a shutdown waits for ZooKeeper to end the session
REGISTER_TRIES = 3  # look, put right, look again; more only if somebody else keeps changing our node

Ts = TypeVarTuple("Ts")
T = TypeVar("T")
log = logging.getLogger("dsfast.registry")
kazoo_log = logging.getLogger("dsfast.registry.kazoo")
kazoo_log.setLevel(logging.INFO)  # below that it writes credentials


class ZooKeeperRoster:
    """Implements `Roster`."""

    def __init__(self, ensemble: Ensemble, cluster: str, session_seconds: float) -> None:
        self._ensemble = ensemble
        self._root = f"{ensemble.chroot}/dsfast/{cluster}/members"
        self._asked = self._granted = session_seconds
        self._client: KazooClient | None = None
        self._connected_as: int | None = None  # session id of the connection that stands
        self._refused = False
        self._node: str | None = None  # our node's name
        self._node_session: int | None = None  # the session it was last seen to belong to
        self._bodies: dict[str, bytes] = {}  # by node name, which stands for the body
        self._stale = True
        self._listed_at = 0.0
        self._loop: asyncio.AbstractEventLoop
        self._wake: Callable[[], None]

    @property
    def lease_seconds(self) -> float:
        """See `Roster.lease_seconds`; follows the session that the ensemble granted."""
        return self._granted * LEASE_SHARE

    @property
    def session(self) -> tuple[int, bytes] | None:
        """Session id and password, with which a second client can end the session."""
        return None if self._client is None else self._client.client_id

    def attach(self, wake: Callable[[], None]) -> None:
        """See `Roster.attach`."""
        self._loop, self._wake = asyncio.get_running_loop(), wake

    async def renew(self, member: Member) -> View:
        """See `Roster.renew`."""
        client, body = self._contact(), encode(member)
        name = node_name(member, body)
        kept = await self._register(client, f"{self._root}/{name}", body)
        if self._node not in (None, name):
            await self._delete(client, f"{self._root}/{self._node}")
        self._stale |= not kept
        self._node, self._node_session = name, self._connected_as
        return await self._view(client, kept)

    async def look(self, member: Member | None) -> View:
        """See `Roster.look`."""
        client = self._contact()
        view = await self._view(client, kept=True)
        if member is None or (self._node in self._bodies and self._node_session == self._connected_as):
            return view
        return View(view.bodies, kept=False, look_in=view.look_in)

    async def remove(self, member: Member) -> None:
        """See `Roster.remove`."""
        client = self._contact()
        await self._delete(client, f"{self._root}/{node_name(member, encode(member))}")
        self._node, self._stale = None, True

    async def close(self) -> None:
        """See `Roster.close`."""
        closed = asyncio.Event()
        if self._drop_client(closed.set):
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS_MAX):
                    await closed.wait()

    # The conversation with ZooKeeper, on the loop.

    def _contact(self) -> KazooClient:
        """The client, if it has a connection. Raises Unavailable, or UsageError when we were refused."""
        if self._client is None:
            self._open()
        elif has_ended(self._client):
            self._drop_client()  # the next turn opens another: failures wake us, and this is what paces them
        if self._refused:
            raise UsageError(f"ZooKeeper at {self._ensemble.place} refuses the registry's user or password")
        if self._client is None or self._connected_as is None:
            raise Unavailable(f"there is no connection to ZooKeeper at {self._ensemble.place}")
        return self._client

    async def _register(self, client: KazooClient, path: str, body: bytes) -> bool:
        """See to it that the node is there and belongs to this session; says whether it was so already."""
        for attempt in range(REGISTER_TRIES):
            stat = await self._call(client.exists_async(path))
            if stat is not None and stat.ephemeralOwner == self._connected_as:
                return attempt == 0
            if stat is not None:
                await self._delete(client, path)
            with suppress(NodeExistsError, NoNodeError):  # somebody was quicker: look again
                await self._call(client.ensure_path_async(self._root), NoNodeError)
                await self._call(client.create_async(path, body, ephemeral=True), NoNodeError, NodeExistsError)
        raise Unavailable(
            f"the node {path} in ZooKeeper at {self._ensemble.place} keeps being changed by somebody else"
        )

    async def _delete(self, client: KazooClient, path: str) -> None:
        with suppress(NoNodeError):
            await self._call(client.delete_async(path), NoNodeError)

    async def _view(self, client: KazooClient, kept: bool) -> View:
        if self._stale or monotonic() >= self._listed_at + RELIST_SECONDS:
            await self._list(client)
        return View(tuple(self._bodies.values()), kept, self._listed_at + RELIST_SECONDS - monotonic())

    async def _list(self, client: KazooClient) -> None:
        started, self._stale = monotonic(), False  # a watch that fires from here on makes it stale again
        try:
            names = await self._names(client)
            fresh = [name for name in names if name not in self._bodies]
            bodies = await asyncio.gather(*(self._body(client, name) for name in fresh))
        except BaseException:
            self._stale = True
            raise
        known = self._bodies | {name: body for name, body in zip(fresh, bodies, strict=True) if body is not None}
        self._bodies = {name: known[name] for name in names if name in known}
        self._listed_at = started

    async def _names(self, client: KazooClient) -> list[str]:
        try:
            return list(await self._call(client.get_children_async(self._root, watch=self._on_change), NoNodeError))
        except NoNodeError:
            await self._call(client.ensure_path_async(self._root))
            return list(await self._call(client.get_children_async(self._root, watch=self._on_change)))

    async def _body(self, client: KazooClient, name: str) -> bytes | None:
        try:
            body, _ = await self._call(client.get_async(f"{self._root}/{name}"), NoNodeError)
            return body or b""  # a node can have no data at all
        except NoNodeError:  # gone since the list was read
            return None

    async def _call(self, pending: Any, *expected: type[KazooException]) -> Any:
        """The outcome of a kazoo request. Raises the expected errors as they are, the rest as ours."""
        outcome: asyncio.Future[Any] = self._loop.create_future()
        pending.rawlink(lambda done: self._to_loop(settle, outcome, done))
        try:
            return await outcome
        except expected:
            raise
        except (NoAuthError, InvalidACLError) as error:
            raise UsageError(f"ZooKeeper at {self._ensemble.place} does not allow us to use {self._root}") from error
        except KazooException as error:
            raise Unavailable(f"ZooKeeper at {self._ensemble.place} did not answer: {type(error).__name__}") from error

    def _open(self) -> None:
        """Start a client; kazoo connects and reconnects in its own thread."""
        self._client = client = new_client(self._ensemble, self._asked)
        connect = client._connection._connect

        def connect_and_tell(*address: Any) -> tuple[float, float]:
            """kazoo keeps the session it was granted to itself, and says CONNECTED before it has logged in."""
            try:
                read_timeout, connect_timeout = connect(*address)
            except (SASLException, SessionClosedRequireSaslError) as error:  # kazoo's thread would die of these
                raise AuthFailedError from error
            granted = read_timeout * 1.5 / 1000  # kazoo gives reads two thirds of the session
            self._to_loop(self._on_connected, client, client._session_id, granted)
            return read_timeout, connect_timeout

        client._connection._connect = connect_and_tell
        client.add_listener(lambda state: self._to_loop(self._on_state, client, state, client.client_state))
        client.start_async()

    def _drop_client(self, then: Callable[[], None] | None = None) -> bool:
        """Have a thread end the client, because that may wait for the network; says whether there was one."""
        client, self._client = self._client, None
        self._connected_as, self._stale = None, True
        if client is not None:
            Thread(target=self._close_in_thread, args=(client, then), daemon=True).start()
        return client is not None

    # What kazoo's threads have to say, and how it gets to the loop.

    def _to_loop(self, step: Callable[[*Ts], object], *values: *Ts) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(step, *values)

    def _on_change(self, event: object) -> None:
        self._to_loop(self._on_hint)

    def _close_in_thread(self, client: KazooClient, then: Callable[[], None] | None) -> None:
        with suppress(KazooException, OSError):
            client.stop()
            client.close()
        if then is not None:
            self._to_loop(then)

    # What follows from it, on the loop.

    def _on_hint(self) -> None:
        self._stale = True
        self._wake()

    def _on_connected(self, client: KazooClient, session: int, granted: float) -> None:
        if client is not self._client:
            return
        if granted != self._granted and abs(granted - self._asked) > SESSION_TOLERANCE * self._asked:
            log.warning("registry_session_differs asked_s=%g granted_s=%g", self._asked, granted)
        self._connected_as, self._granted, self._refused = session, granted, False
        self._on_hint()

    def _on_state(self, client: KazooClient, state: str, detail: str) -> None:
        if client is self._client and state != KazooState.CONNECTED:
            self._connected_as = None
            self._refused |= detail == KeeperState.AUTH_FAILED
            self._on_hint()


class Threads(SequentialThreadingHandler):  # type: ignore[misc]
    """kazoo's threads, with a limit of our own for the time that TCP and TLS may take to connect."""

    def __init__(self, connect_seconds: float) -> None:
        super().__init__()
        self._connect_seconds = connect_seconds

    def create_connection(self, *place: Any, **options: Any) -> Any:
        """As kazoo's, but `timeout` is ours: kazoo would try one silent host for a whole session."""
        return super().create_connection(*place, **options | {"timeout": self._connect_seconds})


def node_name(member: Member, body: bytes) -> str:
    """The name of this member's node while it has this body."""
    return f"{quote(member.id, safe='@')}.{blake2b(body, digest_size=8).hexdigest()}"


def has_ended(client: KazooClient) -> bool:
    """Whether kazoo's thread has given up; its state does not tell that from a client that is about to begin."""
    return not client._connection._connection_routine.is_alive()


def new_client(ensemble: Ensemble, session_seconds: float) -> KazooClient:
    """A kazoo client that is not started yet. It never accepts a read-only server."""
    login = f"{ensemble.user}:{ensemble.password}"
    sasl = {"mechanism": "DIGEST-MD5", "username": ensemble.user, "password": ensemble.password}
    servers = ensemble.hosts.split(",")
    return KazooClient(
        hosts=servers * ceil(ATTEMPTS_PER_SESSION / len(servers)),  # one gets the session / the length of this list
        handler=Threads(session_seconds / ATTEMPTS_PER_SESSION),
        timeout=session_seconds,
        default_acl=None if ensemble.user is None else CREATOR_ALL_ACL,
        auth_data=None if ensemble.user is None or ensemble.sasl else [("digest", login)],
        sasl_options=sasl if ensemble.sasl else None,
        connection_retry={"max_tries": -1, "delay": 0.1, "max_delay": RECONNECT_SECONDS_MAX},
        read_only=False,
        logger=kazoo_log,
        use_ssl=ensemble.tls,
        check_hostname=ensemble.tls,
        ca=ensemble.ca,
        certfile=ensemble.cert,
        keyfile=ensemble.key,
    )


def settle(outcome: asyncio.Future[Any], done: Any) -> None:
    """Give the future what kazoo's result holds, unless nobody waits for it any more."""
    if outcome.done():
        return
    try:
        outcome.set_result(done.get_nowait())
    except Exception as error:  # noqa: BLE001 - whatever kazoo failed with is the outcome
        outcome.set_exception(error)
