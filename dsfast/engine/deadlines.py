"""Everything that is due at a time, in one heap: retries, delays, back-offs, timeouts. Nothing is polled."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from dsfast._core.queue import PriorityQueue

MICROSECONDS = 1_000_000
TICK_SECONDS = 1 / MICROSECONDS  # what is nearer than this is due


class Deadlines:
    """Keys with the monotonic second at which each is due; one deadline per key, the last one set counts."""

    __slots__ = ("_heap",)

    def __init__(self) -> None:
        self._heap: PriorityQueue[Hashable] = PriorityQueue()

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, key: Hashable, at: float) -> None:
        """Make `key` due at `at`, whether or not it was due before."""
        self._heap.remove(key)
        self._heap.push(key, int(at * MICROSECONDS))

    def cancel(self, key: Hashable) -> bool:
        """Forget the key; whether it was there."""
        return self._heap.remove(key)

    def due(self, now: float) -> Iterator[Hashable]:
        """Take out and yield what is due by `now`, earliest first."""
        limit = int(now * MICROSECONDS)
        while self._heap and self._heap.peek()[1] <= limit:
            yield self._heap.pop()

    def at(self, key: Hashable) -> float | None:
        """When the key is due, or None."""
        return self._heap.priority(key) / MICROSECONDS if key in self._heap else None

    def earliest(self) -> float | None:
        """When the next key is due, rounded up so that waking then finds it due."""
        return (self._heap.peek()[1] + 1) / MICROSECONDS if self._heap else None
