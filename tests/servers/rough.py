"""A bad network in front of a server of this machine, for daemons that are processes of their own.

It runs in a thread, so that a test may wait without an event loop. Bad means slow, or connections that are cut at some
answer: the server has done what it was asked, and nobody learns of it.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from itertools import cycle

CHUNK_BYTES = 1 << 16
LIVES = range(12, 36)  # answers that connections live for, one after the other: every place in a commit has its turn


class RoughNetwork:
    """Listens on `port` and forwards to a port of this machine."""

    def __init__(self, target: int) -> None:
        self.delay_seconds = 0.0  # before every answer
        self.lossy = False  # whether connections made from now on, and those there are, are cut
        self.cuts = 0
        self._target = target
        self._lives = cycle(LIVES)
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._on_client, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End every connection and stop listening."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
            questions = asyncio.create_task(self._ask(reader, there_writer))
            await self._answer(there_reader, writer, next(self._lives))
            questions.cancel()
            there_writer.close()
        writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while question := await reader.read(CHUNK_BYTES):
                writer.write(question)
                await writer.drain()
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, life: int) -> None:
        while answer := await reader.read(CHUNK_BYTES):
            life -= 1
            if self.lossy and life <= 0:
                self.cuts += 1
                return
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            writer.write(answer)
            await writer.drain()
