"""Is the database away for all, or for this master alone?

A master whose commits fail keeps its runs, and they wait: if the database is away, nobody could do better with them.
But one that alone cannot reach it holds up its runs for nothing. After a while of failed commits it therefore asks the
masters that it is linked to. If one of them has just been answered by the store, while we are not, we end: the others
see our port closed and take our runs over, and whatever starts us anew does so until the database lets us in. Commits
that are refused by a database that still answers us (full, read-only) are no reason: it would refuse others, too.
All of this is beside the loop, so that a commit is tried again as soon as it would be without it.
"""

from __future__ import annotations

import asyncio
import logging
import time

from dsfast.errors import Unavailable
from dsfast.log import log_event
from dsfast.runtime.links import Links
from dsfast.store.base import Store
from dsfast.wire import commands as cmd

PATIENCE_SECONDS = 10.0  # of failed commits: a server restarts in less, and a takeover moves every run of this master
ANSWER_SECONDS = 5.0  # for one small read, here or at another master: a store that is slower is no better there
NEVER = 2**31 - 1  # masters that nothing has ended: there is nothing to be read but that the database answers

CUT_OFF = (
    "this master alone cannot reach the database: {} has just been answered by it. Its runs go to the masters that "
    "can. Look at the network between this machine and the database; started again, it joins once it gets through"
)


class Outage:
    """Looks at commits that fail. One at a time is asked about, and what was found is good for that one only."""

    def __init__(self, store: Store, links: Links, log: logging.Logger) -> None:
        self._store = store
        self._links = links
        self._log = log
        self._asking: asyncio.Task[str] | None = None
        self._asked_at = 0.0

    def failed(self, began: float) -> None:
        """A commit that began at this second has failed again. Raises Unavailable if others could do better."""
        if self._asking is not None and self._asking.done():
            asking, self._asking = self._asking, None
            if (master := asking.result()) and self._asked_at >= began:
                raise Unavailable(CUT_OFF.format(f"master {master}"))
        if self._asking is None and time.monotonic() - began >= PATIENCE_SECONDS:
            self._asked_at = time.monotonic()
            self._asking = asyncio.create_task(self._ask())

    async def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask(self) -> str:
        """The name of a master that reaches the store while we do not; else nothing."""
        if await reached(self._store):
            return ""
        masters = [peer for peer in self._links.peers() if peer.role == "master"]
        answers = await asyncio.gather(*(self._is_answered(peer.id) for peer in masters))
        found = next((peer.name for peer, yes in zip(masters, answers, strict=True) if yes), "")
        level = logging.CRITICAL if found else logging.WARNING
        log_event(self._log, "store_outage", level=level, asked=len(masters), reached_by=found)
        return found

    async def _is_answered(self, peer_id: str) -> bool:
        """Whether this master is; one that waits for a commit of its own says nothing, which is an answer, too."""
        try:
            answer = await self._links.request(peer_id, cmd.Probe(), 2 * ANSWER_SECONDS)
        except Unavailable:
            return False
        return isinstance(answer, cmd.Reached)


async def reached(store: Store) -> bool:
    """Whether the store answers a master's question, now and without a long wait."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await store.crashed(NEVER)
    except (Unavailable, TimeoutError):
        return False
    return True
