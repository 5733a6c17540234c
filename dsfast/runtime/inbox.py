"""Events gathered into turns.

Whoever learns something puts an event; the one task that owns the engine takes all of them at once with
`batch` and computes a turn. While a turn is computed and written, the next one fills up, so a slow disk
makes larger turns and never a longer wait per event. Everything happens on one event loop: threads cross
with `call_soon_threadsafe(inbox.put, event)`.
"""

from __future__ import annotations

import asyncio

from dsfast.engine.events import Event
from dsfast.runtime.awake import Awake

# An engine spends 5 to 20 us on an event, so a full turn holds the loop for at most some 40 ms:
# heartbeats are answered and an earlier deadline is not missed by more than that.
BATCH_EVENTS_MAX = 2048

# Loops round timers to whole milliseconds, down as well as up; half of one more never wakes us early.
_ROUNDING_SECONDS = 0.0005


class Inbox:
    """A queue of events with one reader, who takes whole turns."""

    def __init__(self, batch_events_max: int = BATCH_EVENTS_MAX, *, awake: Awake | None = None) -> None:
        self._events: list[Event] = []
        self._batch_events_max = batch_events_max
        self._waiter: asyncio.Future[None] | None = None
        self._awake = awake or Awake()

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Event) -> None:
        """Add an event for the next turn; on the loop's thread."""
        self._events.append(event)
        if self._waiter is not None:  # only the first event of a turn finds it
            self._wake()

    def put_first(self, event: Event) -> None:
        """Add an event before all others: what is behind it must be seen in its light."""
        self._events.insert(0, event)
        if self._waiter is not None:
            self._wake()

    async def batch(self, until: float | None = None) -> list[Event]:
        """All events that are there, in order; at most `batch_events_max`, the rest comes next time.

        Waits for the first event, or until loop time `until` and then returns an empty list. Always lets
        the loop run once, so that a reader who never has to wait does not keep sockets from being read.
        """
        if self._events:
            await asyncio.sleep(0)
        else:
            await self._wait(until)
        return self.take()

    async def _wait(self, until: float | None) -> None:
        loop = asyncio.get_running_loop()
        self._awake.wait_begins()
        waiter = self._waiter = loop.create_future()
        timer = None if until is None else loop.call_at(until + _ROUNDING_SECONDS, self._wake)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()
        self._awake.wait_ended()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def take(self) -> list[Event]:
        """What is there now, without waiting; at most `batch_events_max`."""
        events, limit = self._events, self._batch_events_max
        self._events = events[limit:] if len(events) > limit else []
        return events[:limit] if len(events) > limit else events
