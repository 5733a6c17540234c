"""Frames of 1.3.5: magic 0xBE, type, opaque (8 bytes), body length (4), a JSON body. No version, no checksum, no limit.

A channel is a socket with a thread that reads it and handles each frame before it reads the next; sending waits for the
socket only. Nobody waits for an answer: a request that is lost stays lost.
"""

from __future__ import annotations

import logging
import socket
import struct
import threading
from collections.abc import Callable
from enum import IntEnum
from itertools import count
from typing import Any

import msgspec

MAGIC = 0xBE
HEADER = struct.Struct(">BBqi")
CONNECT_SECONDS_MAX = 3.0
BACKLOG = 1024
log = logging.getLogger("baseline.wire")


class Kind(IntEnum):
    """The command types that are used here, by their ordinals in 1.3.5."""

    EXECUTE = 10
    ACK = 11
    RESULT = 12
    DB_ACK = 13
    DB_RESULT = 14
    KILL = 15
    KILL_RESPONSE = 16


Body = dict[str, Any]
Handler = Callable[["Channel", Kind, Body], None]


class Channel:
    """One connection, whichever side has opened it."""

    _opaque = count(1)

    def __init__(self, sock: socket.socket, handler: Handler) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket, self._handler = sock, handler
        self._sending = threading.Lock()
        self.active = True
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, kind: Kind, body: Body) -> None:
        """Raises OSError when the connection has ended."""
        data = msgspec.json.encode(body)
        with self._sending:
            self._socket.sendall(HEADER.pack(MAGIC, kind, next(self._opaque), len(data)) + data)

    def _read(self) -> None:
        with self._socket.makefile("rb") as stream:
            try:
                while header := stream.read(HEADER.size):
                    _, kind, _, length = HEADER.unpack(header)
                    self._handle(Kind(kind), msgspec.json.decode(stream.read(length)))
            except (OSError, struct.error) as error:
                log.info("a channel ended: %s", error)
        self.active = False

    def _handle(self, kind: Kind, body: Body) -> None:
        try:
            self._handler(self, kind, body)
        except Exception:
            log.exception("%s %s", kind.name, body)


def connect(host: str, handler: Handler) -> Channel:
    """A channel to `ip:port`. Raises OSError."""
    ip, _, port = host.partition(":")
    sock = socket.create_connection((ip, int(port)), CONNECT_SECONDS_MAX)
    sock.settimeout(None)
    return Channel(sock, handler)


def listen(ip: str, handler: Handler) -> str:
    """Accept channels on a free port of this address; returns `ip:port`."""
    server = socket.create_server((ip, 0), backlog=BACKLOG)

    def accept() -> None:
        while True:
            Channel(server.accept()[0], handler)

    threading.Thread(target=accept, daemon=True).start()
    return f"{ip}:{server.getsockname()[1]}"
