"""What does one task cost in a ready queue? The kernel beside heapq over (priority, arrival, key) tuples."""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from dsfast._core.queue import PriorityQueue

pytestmark = pytest.mark.benchmark(timer=time.process_time)  # nothing here waits: neighbours do not count

ITEMS = 100_000
SEED = 20


def priorities(spread: int) -> list[int]:
    chance = random.Random(SEED)
    return [chance.randrange(spread) for _ in range(ITEMS)]


def fill_and_drain(items: list[tuple[int, int]], indexed: bool = False) -> None:
    queue: PriorityQueue[int] = PriorityQueue()
    if indexed:
        queue.push(-1, -1)
        queue.change(-1, -1)  # builds the index, which lives until the queue is empty
    push, pop = queue.push, queue.pop
    for key, priority in items:
        push(key, priority)
    for _ in items:
        pop()


def fill_and_drain_heapq(items: list[tuple[int, int]]) -> None:
    heap: list[tuple[int, int, int]] = []
    push, pop, arrival = heapq.heappush, heapq.heappop, itertools.count()
    for key, priority in items:
        push(heap, (priority, next(arrival), key))
    for _ in items:
        pop(heap)


@pytest.mark.parametrize("spread", [5, 1 << 40], ids=["5_priorities", "all_differ"])
def test_push_and_pop_of_100000(beside: Callable[..., None], spread: int) -> None:
    items = list(enumerate(priorities(spread)))
    beside(ITEMS, lambda: lambda: fill_and_drain(items), heapq=lambda: lambda: fill_and_drain_heapq(items))


def test_push_and_pop_of_100000_with_an_index_of_keys(beside: Callable[..., None]) -> None:
    items = list(enumerate(priorities(1 << 40)))
    beside(
        ITEMS, lambda: lambda: fill_and_drain(items, indexed=True), heapq=lambda: lambda: fill_and_drain_heapq(items)
    )


def test_pop_then_push_with_100000_held(beside: Callable[..., None]) -> None:
    numbers = priorities(1 << 40)

    def ours() -> Callable[[], Any]:
        queue: PriorityQueue[int] = PriorityQueue()
        for key, priority in enumerate(numbers):
            queue.push(key, priority)

        def turn() -> None:
            push, pop = queue.push, queue.pop
            for priority in numbers:
                push(pop(), priority)

        return turn

    def theirs() -> Callable[[], Any]:
        arrival = itertools.count()
        heap = [(priority, next(arrival), key) for key, priority in enumerate(numbers)]
        heapq.heapify(heap)

        def turn() -> None:
            push, pop = heapq.heappush, heapq.heappop
            for priority in numbers:
                push(heap, (priority, next(arrival), pop(heap)[2]))

        return turn

    beside(ITEMS, ours, heapq=theirs)


def test_removal_of_every_key_in_another_order(beside: Callable[..., None]) -> None:
    numbers = priorities(1 << 40)
    victims = random.Random(SEED).sample(range(ITEMS), ITEMS)

    def ours() -> Callable[[], Any]:
        queue: PriorityQueue[int] = PriorityQueue()
        for key, priority in enumerate(numbers):
            queue.push(key, priority)

        def turn() -> None:
            for key in victims:
                queue.remove(key)

        return turn

    def theirs() -> Callable[[], Any]:
        heap = [(priority, key, key) for key, priority in enumerate(numbers)]
        heapq.heapify(heap)

        def turn() -> None:
            gone = set()
            for key in victims:
                gone.add(key)
                while heap and heap[0][2] in gone:
                    heapq.heappop(heap)

        return turn

    beside(ITEMS, ours, heapq_and_a_set=theirs)
