"""A TCP proxy on the loopback that can be cut and frozen: one client's network, while others go on."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

CHUNK_BYTES = 1 << 16
SLICES_PER_SECOND = 20  # in which a slow proxy passes bytes on
SLOW_BUFFER_BYTES = 1 << 14  # a slow proxy must not swallow quickly what it passes on slowly
WAYS = ("there", "back")  # from the client to the target, and the other way
AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


class Proxy:
    """Forwards to a port of this machine. `cut` closes and refuses connections, `freeze` only stops the bytes."""

    def __init__(self, target: int, *, bytes_per_second: int | None = None, delay: float = 0.0) -> None:
        self.target = target
        self._rate = bytes_per_second
        self._delay = delay
        self._buffer_bytes = CHUNK_BYTES if bytes_per_second is None else SLOW_BUFFER_BYTES
        self._open = True
        self._flowing = {way: asyncio.Event() for way in WAYS}
        self._damaged: set[str] = set()
        self._links: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._server: asyncio.Server
        self.connections = 0  # that were ever made
        self.port = 0
        self.mend()

    async def start(self) -> Proxy:
        """Begin to listen on `port`."""
        self._server = await asyncio.start_server(self._on_client, "127.0.0.1", 0, limit=self._buffer_bytes)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def cut(self) -> None:
        """Close every connection, and every new one at once."""
        self._open = False
        for link in self._links:
            link.cancel()

    def reset(self) -> None:
        """Reset every connection; new ones are served."""
        for link, writer in self._links.items():
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            writer.transport.abort()
            link.cancel()

    def freeze(self, *ways: str) -> None:
        """Swallow everything that goes these ways, or any, closing nothing, as a network does that drops packets."""
        for way in ways or WAYS:
            self._flowing[way].clear()

    def damage(self, way: str) -> None:
        """Flip one bit of what next goes this way."""
        self._damaged.add(way)

    def mend(self) -> None:
        """Forward again."""
        self._open = True
        for flowing in self._flowing.values():
            flowing.set()

    async def close(self) -> None:
        """End all connections and stop listening."""
        self._server.close()
        self.cut()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self.connections += 1
        self._links[link] = writer
        link.add_done_callback(self._links.pop)
        with suppress(OSError, asyncio.CancelledError):
            if self._open:
                await self._join(reader, writer)
        writer.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target, limit=self._buffer_bytes)
        for each in (writer, there_writer) if self._rate else ():
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                each.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, option, SLOW_BUFFER_BYTES)
        pumps = [
            asyncio.create_task(self._pump("there", reader, there_writer)),
            asyncio.create_task(self._pump("back", there_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            there_writer.close()

    async def _pump(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = self._rate // SLICES_PER_SECOND if self._rate else CHUNK_BYTES
        with suppress(OSError):
            while chunk := await reader.read(size):
                await asyncio.sleep(self._delay + (len(chunk) / self._rate if self._rate else 0.0))
                await self._flowing[way].wait()
                writer.write(self._spoil(way, chunk))
                await writer.drain()

    def _spoil(self, way: str, chunk: bytes) -> bytes:
        if way not in self._damaged:
            return chunk
        self._damaged.discard(way)
        return chunk[:-1] + bytes([chunk[-1] ^ 0x10])
