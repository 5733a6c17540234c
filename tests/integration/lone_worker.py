"""A worker's links in a process of its own, for tests that kill or stop it.

Arguments: boot id, and the number of an inherited listening socket, or "-" for one of its own. Prints its
port, then echoes every Execute as a Started until it is killed.
"""

from __future__ import annotations

import random
import socket
import sys

import uvloop

from dsfast.engine.events import Event, Received
from dsfast.runtime.inbox import Inbox
from dsfast.runtime.links import Links
from dsfast.wire.commands import Execute, Started
from tests.integration.linking import CLUSTER, KEY, MASTERS_AND_API, member


async def main(boot: str, inherited: str) -> None:
    inbox = Inbox()
    links = Links(
        member("worker", "w", boot),
        keys=(KEY,),
        cluster=CLUSTER,
        accept=MASTERS_AND_API,
        on_event=inbox.put,
        rng=random.Random(1),
    )
    sock = None if inherited == "-" else socket.socket(fileno=int(inherited))
    print(await links.listen("127.0.0.1", 0, sock=sock), flush=True)
    while True:
        for event in await inbox.batch():
            answer(links, event)
        links.flush()


def answer(links: Links, event: Event) -> None:
    if isinstance(event, Received) and isinstance(event.command, Execute):
        ask = event.command
        links.send(event.peer_id, Started(ask.run_id, ask.task, ask.attempt, 0.0))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2]))
