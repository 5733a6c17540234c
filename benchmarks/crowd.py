"""Many members in one process, for bench_registry.py: `crowd.py URL CLUSTER NAME SESSION COUNT`.

Prints `started` once all have connected, joins with all at once when a line comes in, and says `joined`; from then on
`out` when none of them has contact any more, and `back` when all have it again.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from contextlib import suppress

from dsfast.errors import Unavailable
from dsfast.model import Member
from dsfast.registry import Registry, Session, open_registry


class Crowd:
    """Registries, and how many of them are in which state."""

    def __init__(self, count: int) -> None:
        self._states: dict[int, Session] = {}
        self._count = count
        self._said = ""

    async def start(self, number: int, registry: Registry) -> None:
        """Try until it works: all at once on one machine may take longer to log in than a daemon waits."""
        while True:
            with suppress(Unavailable):
                return await registry.start(lambda members: None, lambda state: self._note(number, state))

    def _note(self, number: int, state: Session) -> None:
        self._states[number] = state
        connected = Counter(self._states.values())[Session.CONNECTED]
        word = {0: "out", self._count: "back"}.get(connected, self._said)
        if word != self._said:
            self._said = word
            print(word, flush=True)


async def main(url: str, cluster: str, name: str, session: float, count: int) -> None:
    registries = [open_registry(url, cluster=cluster, session_seconds=session) for _ in range(count)]
    crowd = Crowd(count)
    await asyncio.gather(*(crowd.start(*each) for each in enumerate(registries)))
    print("started", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    members = [Member("worker", f"{name}-{number}", "1") for number in range(count)]
    await asyncio.gather(*(registry.join(member) for registry, member in zip(registries, members, strict=True)))
    print("joined", flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    _, url, cluster, name, session, count = sys.argv
    asyncio.run(main(url, cluster, name, float(session), int(count)))
