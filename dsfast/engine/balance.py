"""Which worker gets the next task: one small object per policy, one method each.

`choose` is handed the workers that can take a task now (never empty) and returns one of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Protocol

from dsfast.engine.workers import Worker


class Policy(Protocol):
    """A way to choose among workers that have room."""

    def choose(self, workers: Sequence[Worker]) -> Worker: ...


class RoundRobin:
    """Each in turn."""

    def __init__(self, _: random.Random) -> None:
        self._next = 0

    def choose(self, workers: Sequence[Worker]) -> Worker:
        self._next += 1
        return workers[self._next % len(workers)]


class SmoothWeighted:
    """Each as often as its weight says, spread evenly: the one furthest behind its share is next.

    The algorithm is nginx's smooth weighted round robin: everyone gains its weight, the richest pays the total.
    """

    def __init__(self, _: random.Random) -> None:
        self._credit: dict[str, int] = {}

    def choose(self, workers: Sequence[Worker]) -> Worker:
        credit = self._credit
        for worker in workers:
            credit[worker.id] = credit.get(worker.id, 0) + worker.member.weight
        best = max(workers, key=lambda worker: credit[worker.id])
        credit[best.id] -= sum(worker.member.weight for worker in workers)
        return best


class Random:
    """Any, by chance."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def choose(self, workers: Sequence[Worker]) -> Worker:
        return self._rng.choice(workers)


class LeastLoaded:
    """The less loaded of two drawn by chance: nearly as even as looking at all, at the cost of two looks."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def choose(self, workers: Sequence[Worker]) -> Worker:
        count = len(workers)
        first = int(self._rng.random() * count)
        second = int(self._rng.random() * (count - 1))
        one, other = workers[first], workers[second + (second >= first) if count > 1 else first]
        return one if _load(one) <= _load(other) else other


def _load(worker: Worker) -> float:
    return len(worker.live) / max(worker.member.slots, 1)


POLICIES: dict[str, Callable[[random.Random], Policy]] = {
    "least_loaded": LeastLoaded,
    "round_robin": RoundRobin,
    "smooth_weighted": SmoothWeighted,
    "random": Random,
}
