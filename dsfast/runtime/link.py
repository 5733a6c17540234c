"""One framed connection, from its first byte to its last.

A link begins as a stranger: small frames, a deadline, and only the frames of the handshake are looked at. When
both sides have proved themselves it is up: frames become commands, in order, many per read. It ends once, by
`drop` or by the connection's end, and whatever arrives afterwards is not looked at.

Sending has two steps. `queue` only remembers the frame; `flush` hands everything queued to the kernel in one
write, so a turn costs one system call per peer. While the peer does not read, frames wait here up to
`unsent_bytes_max`; a peer that takes nothing for the heartbeat timeout is dropped.

The dialling side asks (Ping) every heartbeat and the listener answers, so both hear something. A side that has heard
nothing for the timeout drops the link. Many links of a daemon beat at the same moment, which wakes it once for all of
them; a listener looks only when it may have to give up. Silence is judged only by a side that was itself awake: a
timer that comes late by a heartbeat means that this process stood still, and what the peer has sent is still unread.
Nor is it held against a peer whom our question has not reached yet: behind a large frame on a slow network, bytes
that the peer's kernel acknowledges are a sign of life.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, cast

from dsfast._core.frame import FrameDecoder, FrameError
from dsfast.errors import ProtocolError
from dsfast.model import Member
from dsfast.runtime.handshake import Dialling, HandshakeError, Listening
from dsfast.wire.codec import COMMANDS, MANY, decode, decode_many, encode
from dsfast.wire.commands import Command, Ping, Pong

if TYPE_CHECKING:
    from dsfast.runtime.table import LinkTable

# After an idle spell the kernel asks the peer's kernel, so that middleboxes keep the connection in mind.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 3), (socket.TCP_KEEPCNT, 3))


class Link(asyncio.Protocol):
    """A connection that belongs to a table. `start` makes our side of the handshake once there is a transport."""

    def __init__(
        self, table: LinkTable, start: Callable[[asyncio.Transport], Dialling | Listening], *, dialled: bool
    ) -> None:
        self._table = table
        self._limits = table.limits
        self._start = start
        self._loop = asyncio.get_running_loop()
        self._decoder = FrameDecoder(table.limits.stranger_body_bytes_max)
        self._allowed: frozenset[int] = frozenset()
        self._frames: list[bytes] = []
        self._unsent_bytes = 0
        self._paused = False
        self._written = self._taken = self._asked_at = 0  # bytes: by us; of those by the peer; up to the last question
        self._heard_at = self._moved_at = self._timer_due = 0.0
        self._phase = 0.0  # a moment at which our beat falls, and so do those whole beats away from it
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._handshake: Dialling | Listening | None = None
        self.dialled = dialled
        self.closing = False
        self.over = False
        self.address = ""
        self.peer: Member | None = None  # set while the link is up, and kept afterwards
        self.peer_id = ""
        self.peer_load = 0
        self.up_at = 0.0
        self.reason = ""  # why it ended
        self.error: ProtocolError | None = None  # if the peer broke the protocol
        self.waiting: dict[int, asyncio.Future[Command]] = {}  # our requests by id
        self.settled: asyncio.Future[bool] = self._loop.create_future()  # True: is up; False: ended before that
        self.ended: asyncio.Future[None] = self._loop.create_future()

    # -- sending ------------------------------------------------------------------------------------------

    def queue(self, frame: bytes) -> bool:
        """Add a frame to what the next flush sends; False if the link has ended, or ends because of it."""
        if self.over:
            return False
        self._frames.append(frame)
        self._unsent_bytes += len(frame)
        if self._unsent_bytes > self._limits.unsent_bytes_max:
            self.drop(f"{self._unsent_bytes} bytes wait for a peer that reads too slowly")
            return False
        return True

    def flush(self) -> None:
        """Hand everything queued to the kernel in one write, unless the peer is not reading at the moment."""
        if self._paused or not self._frames:
            return
        frames, self._frames = self._frames, []
        self._write(frames[0] if len(frames) == 1 else b"".join(frames))
        if not self._paused:  # the write itself may have filled the transport
            self._unsent_bytes = 0

    def pause_writing(self) -> None:
        self._paused = True
        self._moved_at = self._loop.time()
        if self.peer is not None and not self.over:
            self._arm(self._next_look(self._moved_at))

    def resume_writing(self) -> None:
        self._paused = False
        self._unsent_bytes = sum(map(len, self._frames))
        self.flush()

    # -- receiving ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from asyncio's
        self._transport = transport
        if self.over:
            transport.abort()
            return
        self.address = str((transport.get_extra_info("peername") or ["?"])[0])
        self._tune(transport)
        self._arm(self._limits.handshake_seconds)
        self._handshake = handshake = self._start(transport)
        if isinstance(handshake, Dialling):
            self._write(encode(handshake.start()))
        self._table.opened(self)

    def data_received(self, data: bytes) -> None:
        if self.over:
            return
        self._heard_at = self._loop.time()
        try:
            self._take(self._decoder.feed(data))
        except FrameError as error:
            self._refuse(HandshakeError("frame", str(error)))
        except ProtocolError as error:
            self._refuse(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"connection lost: {exc}" if exc else "closed by the peer")

    def drop(self, reason: str) -> None:
        """End the link at once: nothing that was received but not yet delivered, or queued, counts any more."""
        if not self.over:
            self._end(reason)
            if self._transport is not None:
                self._transport.abort()

    def close(self) -> None:
        """End the link after everything queued has left, even to a peer that is slow."""
        self.closing = True
        if self.peer is None or self._transport is None:
            self.drop("closed")
        else:
            self._write(b"".join(self._frames))
            self._transport.close()

    def _take(self, frames: list[tuple[int, int, bytes]]) -> None:
        for kind, request_id, body in frames:
            if kind in self._allowed:
                self._table.received(self, request_id, decode(kind, body))
            elif kind == MANY and self.peer is not None:
                self._take_many(body)
            else:
                self._about_link(kind, body)
            if self.over:
                return

    def _take_many(self, body: bytes) -> None:
        kind, commands = decode_many(body)
        if kind not in self._allowed:
            self._not_allowed(kind)
        for command in commands:
            self._table.received(self, 0, command)
            if self.over:
                return

    def _about_link(self, kind: int, body: bytes) -> None:
        """Handshake and heartbeat; anything else is not for this peer to say."""
        if self.peer is None:
            self._shake(kind, body)
        elif kind == Ping.KIND:
            self._answer_ping(body)
        elif kind == Pong.KIND:
            self._note_load(body)
        else:
            self._not_allowed(kind)

    def _not_allowed(self, kind: int) -> NoReturn:
        assert self.peer is not None
        name = COMMANDS[kind].__name__ if kind in COMMANDS else f"kind {kind}"
        raise ProtocolError(f"a {self.peer.role} may not send {name} to a {self._table.me.role}")

    def _shake(self, kind: int, body: bytes) -> None:
        handshake = self._handshake
        assert handshake is not None
        answer = handshake.receive(kind, body)
        if handshake.trusted:
            self._decoder.body_bytes_max = self._limits.body_bytes_max
        if handshake.peer is not None and not self._table.admit(self, handshake.peer):
            return
        if answer is not None:
            self._write(encode(answer))
        if handshake.peer is not None:
            self._begin(handshake.peer)

    def _begin(self, peer: Member) -> None:
        self.peer, self.peer_id = peer, peer.id
        self._allowed = self._table.allowed_from(peer)
        self.up_at = self._moved_at = self._loop.time()
        self._phase = self._table.phase()
        self._arm(self._next_look(self.up_at))
        self.settled.set_result(True)
        self._table.up(self)

    def _refuse(self, error: ProtocolError) -> None:
        self.error = error
        self.drop(str(error))

    def _end(self, reason: str) -> None:
        if self.over:
            return
        self.over = True
        self.reason = reason
        if self._timer is not None:
            self._timer.cancel()
        self._frames.clear()
        self.ended.set_result(None)
        if not self.settled.done():
            self.settled.set_result(False)
        self._table.ended(self)

    # -- heartbeat ----------------------------------------------------------------------------------------

    def _arm(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = self._loop.time() + seconds
        self._timer = self._loop.call_later(seconds, self._tick)

    def _tick(self) -> None:
        if self.peer is None:
            self._refuse(HandshakeError("deadline", f"no handshake within {self._limits.handshake_seconds:g} s"))
        else:
            self._beat(self._loop.time())

    def _beat(self, now: float) -> None:
        beat, timeout = self._limits.heartbeat_seconds, self._limits.heartbeat_timeout_seconds
        if now - self._timer_due > beat:  # we stood still ourselves: give what has arrived meanwhile time to be read
            self._heard_at = max(self._heard_at, now - timeout + beat)
            self._moved_at = max(self._moved_at, now - timeout + beat)
        taken, self._taken = self._taken, self._taken_now()
        if self._taken > taken:
            self._moved_at = now
            if self._taken < self._asked_at or self._paused:
                self._heard_at = now
        if now - self._heard_at >= timeout:
            self.drop(f"silent for {now - self._heard_at:.1f} s")
        elif self._stuck_since(now) >= timeout:
            self.drop(f"has read nothing for {timeout:g} s")
        else:
            if self.dialled:
                self._say(Ping(self._table.load()))
                self._asked_at = self._written
            self._arm(self._next_look(now))

    def _next_look(self, now: float) -> float:
        """Seconds until something may have to be done: to ask, to see what a slow peer has taken, or to give up."""
        give_up = self._heard_at + self._limits.heartbeat_timeout_seconds - now
        if not self.dialled and not self._paused:
            return give_up  # loops read their sockets before they look at their timers: who was asked has heard it
        beat = self._limits.heartbeat_seconds
        wait = beat - (now - self._phase) % beat
        return min(wait if wait > beat / 8 else wait + beat, give_up)  # timers may come early by a millisecond

    def _stuck_since(self, now: float) -> float:
        """Seconds for which the peer has taken nothing of what is waiting for it."""
        if not self._paused:
            self._moved_at = now
        return now - self._moved_at

    def _taken_now(self) -> int:
        """How many of the bytes that we have written the peer's kernel has acknowledged."""
        assert self._transport is not None
        sock: socket.socket = self._transport.get_extra_info("socket")
        (in_kernel,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
        return self._written - self._transport.get_write_buffer_size() - int(in_kernel)

    def _answer_ping(self, body: bytes) -> None:
        self._note_load(body, Ping.KIND)
        self._say(Pong(self._table.load()))

    def _note_load(self, body: bytes, kind: int = Pong.KIND) -> None:
        command = decode(kind, body)
        assert isinstance(command, Ping | Pong)
        self.peer_load = command.load

    def _say(self, command: Command) -> None:
        """Send a heartbeat past the queue; one that waits is not needed, because the bytes before it are heard too."""
        if not self._paused:
            self._write(encode(command))

    def _write(self, data: bytes) -> None:
        """Unless the connection is gone already and the loop has yet to say so: then writing is an error to it."""
        if self._transport is not None and not self._transport.is_closing():
            self._written += len(data)
            self._transport.write(data)

    def _tune(self, transport: asyncio.Transport) -> None:
        limits = self._limits
        transport.set_write_buffer_limits(high=limits.write_high_water_bytes)
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        unacknowledged_ms = int(limits.heartbeat_timeout_seconds * 1000)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unacknowledged_ms)
