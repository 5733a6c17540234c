"""Virtual time: a heap of calls, each at its second. Nothing sleeps; time jumps from call to call."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

Call = Callable[..., None]
WALL_AT_START = 1_750_000_000.0  # seconds since 1970 at virtual second 0


class Clock:
    """The world's time and everything that will happen in it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls = 0
        self._heap: list[tuple[float, int, Call, tuple[Any, ...]]] = []

    def after(self, seconds: float, call: Call, *args: Any) -> None:
        """Make the call in so many seconds; calls of one instant happen in the order they were asked for."""
        heappush(self._heap, (self.now + seconds, self.calls, call, args))
        self.calls += 1

    def run(self, until: float, calls_max: int) -> bool:
        """Make the calls up to this second, or until so many were asked for; whether any are left."""
        while self._heap and self._heap[0][0] <= until and self.calls <= calls_max:
            self.now, _, call, args = heappop(self._heap)
            call(*args)
        if self._heap and self.calls <= calls_max:
            self.now = until
        return bool(self._heap)
