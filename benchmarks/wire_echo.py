"""The other process of bench_wire.py: prints the ports of a worker's links and of a bare echo, and answers on both.

Every Execute is answered with a Started, a turn at a time, as a worker does; the echo sends back what it reads.
"""

from __future__ import annotations

import asyncio
import random
from typing import cast

import uvloop

from dsfast.engine.events import Received
from dsfast.model import Member
from dsfast.runtime.inbox import Inbox
from dsfast.runtime.links import Links
from dsfast.wire.commands import Execute, Started

KEY = b"benchmark" * 4
MASTER, WORKER = Member("master", "m", "1"), Member("worker", "w", "1")


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = cast(asyncio.Transport, transport).write

    def data_received(self, data: bytes) -> None:
        self.write(data)


async def main() -> None:
    inbox = Inbox()
    links = Links(
        WORKER, keys=(KEY,), cluster="c", accept=frozenset({"master"}), on_event=inbox.put, rng=random.Random(1)
    )
    port = await links.listen("127.0.0.1", 0)
    echo = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    print(port, echo.sockets[0].getsockname()[1], flush=True)
    while True:
        for event in await inbox.batch():
            if isinstance(event, Received) and isinstance(event.command, Execute):
                ask = event.command
                links.send(event.peer_id, Started(ask.run_id, ask.task, ask.attempt, 0.5))
        links.flush()


if __name__ == "__main__":
    uvloop.run(main())
