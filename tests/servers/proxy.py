"""A TCP proxy on the loopback that can be cut and frozen: one client's network, while others go on."""

from __future__ import annotations

import asyncio
from contextlib import suppress

CHUNK_BYTES = 1 << 16


class Proxy:
    """Forwards to a port of this machine. `cut` closes and refuses connections, `freeze` only stops the bytes."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open = True
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._links: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self.port = 0

    async def start(self) -> Proxy:
        """Begin to listen on `port`."""
        self._server = await asyncio.start_server(self._on_client, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def cut(self) -> None:
        """Close every connection, and every new one at once."""
        self._open = False
        for link in self._links:
            link.cancel()

    def freeze(self) -> None:
        """Swallow everything without closing anything, as a network does that drops packets."""
        self._flowing.clear()

    def mend(self) -> None:
        """Forward again."""
        self._open = True
        self._flowing.set()

    async def close(self) -> None:
        """End all connections and stop listening."""
        self._server.close()
        self.cut()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        link.add_done_callback(self._links.discard)
        with suppress(OSError, asyncio.CancelledError):
            if self._open:
                await self._join(reader, writer)
        writer.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        pumps = [
            asyncio.create_task(self._pump(reader, there_writer)),
            asyncio.create_task(self._pump(there_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            there_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                await self._flowing.wait()
                writer.write(chunk)
                await writer.drain()
