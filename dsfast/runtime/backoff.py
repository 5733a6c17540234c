"""Waiting longer after each failure, with jitter so that many who failed together do not return together."""

from __future__ import annotations

import asyncio
import random


class Backoff:
    """Waits that double from `first` to `longest` seconds, each shortened by chance to between half and all of it."""

    def __init__(self, first: float, longest: float, rng: random.Random | None = None) -> None:
        self._next = first
        self._longest = longest
        self._rng = rng

    def seconds(self) -> float:
        """The next wait."""
        wait, self._next = self._next, min(self._next * 2, self._longest)
        return wait * (self._rng or random).uniform(0.5, 1.0)

    async def wait(self) -> None:
        await asyncio.sleep(self.seconds())
