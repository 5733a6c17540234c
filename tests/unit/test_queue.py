"""The priority queue against heapq and against a model that is obviously right, and what it does with references."""

import gc
import heapq
import random
import sys
import tracemalloc
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from dsfast._core.queue import PriorityQueue

INT64 = st.integers(-(2**63), 2**63 - 1)
PRIORITIES = st.one_of(st.integers(0, 3), INT64)


def drained(queue: PriorityQueue[Any]) -> list[Any]:
    return [queue.pop() for _ in range(len(queue))]


# -- order ---------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(PRIORITIES))
def test_leaves_in_the_order_of_heapq_with_arrival_numbers(priorities: list[int]) -> None:
    queue: PriorityQueue[int] = PriorityQueue()
    heap: list[tuple[int, int]] = []
    for arrival, priority in enumerate(priorities):
        queue.push(arrival, priority)
        heapq.heappush(heap, (priority, arrival))
    expected = [heapq.heappop(heap) for _ in priorities]
    assert [queue.pop_item() for _ in priorities] == [(arrival, priority) for priority, arrival in expected]
    assert not queue


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 15, 16, 17, 63, 64, 65, 1000, 20_000])
@pytest.mark.parametrize("spread", [1, 5, 1 << 40])
def test_interleaved_pushes_and_pops_match_heapq_at_sizes_around_growth(size: int, spread: int) -> None:
    chance = random.Random(size * spread)
    queue: PriorityQueue[int] = PriorityQueue()
    heap: list[tuple[int, int]] = []
    for arrival in range(size * 2):
        priority = chance.randrange(spread)
        queue.push(arrival, priority)
        heapq.heappush(heap, (priority, arrival))
        if len(heap) > size or chance.random() < 0.2:
            assert queue.pop() == heapq.heappop(heap)[1]
    assert drained(queue) == [heapq.heappop(heap)[1] for _ in range(len(heap))]


def test_the_whole_range_of_64_bits_is_ordered() -> None:
    queue: PriorityQueue[str] = PriorityQueue()
    for key, priority in (("high", 2**63 - 1), ("zero", 0), ("low", -(2**63)), ("minus", -1)):
        queue.push(key, priority)
    assert drained(queue) == ["low", "minus", "zero", "high"]


# -- every operation, against a model --------------------------------------------------------------------


@dataclass
class Model:
    """A list of (priority, arrival, key); the first of the sorted list leaves."""

    items: list[tuple[int, int, int]] = field(default_factory=list)
    arrivals: int = 0

    def push(self, key: int, priority: int) -> None:
        self.items.append((priority, self.arrivals, key))
        self.items.sort()
        self.arrivals += 1

    def remove(self, key: int) -> bool:
        before = len(self.items)
        self.items = [item for item in self.items if item[2] != key]
        return len(self.items) < before

    def priority(self, key: int) -> int | None:
        return next((priority for priority, _, held in self.items if held == key), None)


class QueueMachine(RuleBasedStateMachine):
    keys: Bundle[int] = Bundle("keys")

    def __init__(self) -> None:
        super().__init__()
        self.queue: PriorityQueue[int] = PriorityQueue()
        self.model = Model()
        self.fresh = 0

    @rule(target=keys, priority=PRIORITIES)
    def push(self, priority: int) -> int:
        self.fresh += 1
        self.queue.push(self.fresh, priority)
        self.model.push(self.fresh, priority)
        return self.fresh

    @rule(count=st.integers(50, 150), spread=st.integers(1, 4))
    def push_many(self, count: int, spread: int) -> None:
        for number in range(count):
            self.push(number * 7 % spread)

    @rule(key=keys, priority=PRIORITIES)
    def push_one_that_was_removed_before(self, key: int, priority: int) -> None:
        if key not in self.queue:
            self.queue.push(key, priority)
            self.model.push(key, priority)

    @rule(key=keys, priority=PRIORITIES)
    def push_one_that_is_there(self, key: int, priority: int) -> None:
        if key in self.queue:
            with pytest.raises(ValueError, match="is in the queue"):
                self.queue.push(key, priority)

    @precondition(lambda self: self.model.items)
    @rule(count=st.integers(1, 60))
    def pop(self, count: int) -> None:
        for _ in range(min(count, len(self.model.items))):
            assert self.queue.pop() == self.model.items.pop(0)[2]

    @precondition(lambda self: self.model.items)
    @rule()
    def pop_item(self) -> None:
        priority, _, key = self.model.items.pop(0)
        assert self.queue.pop_item() == (key, priority)

    @rule(key=consumes(keys))
    def remove(self, key: int) -> None:
        assert self.queue.remove(key) == self.model.remove(key)

    @rule(share=st.integers(2, 4))
    def remove_many(self, share: int) -> None:
        for _, _, key in self.model.items[::share]:
            assert self.queue.remove(key)
            self.model.remove(key)

    @rule(key=keys, priority=PRIORITIES)
    def change(self, key: int, priority: int) -> None:
        there = self.model.remove(key)
        assert self.queue.change(key, priority) == there
        if there:
            self.model.push(key, priority)

    @rule(key=keys)
    def look_up(self, key: int) -> None:
        expected = self.model.priority(key)
        assert (key in self.queue) == (expected is not None)
        if expected is None:
            with pytest.raises(KeyError):
                self.queue.priority(key)
        else:
            assert self.queue.priority(key) == expected

    @rule()
    def clear(self) -> None:
        self.queue.clear()
        self.model.items.clear()

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert len(self.queue) == len(self.model.items)
        assert bool(self.queue) == bool(self.model.items)
        assert sorted(self.queue) == sorted(key for _, _, key in self.model.items)
        if self.model.items:
            priority, _, key = self.model.items[0]
            assert self.queue.peek() == (key, priority)

    def teardown(self) -> None:
        assert drained(self.queue) == [key for _, _, key in self.model.items]


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("seed", range(5))
def test_removals_at_scale_keep_the_order(seed: int) -> None:
    chance = random.Random(seed)
    queue: PriorityQueue[int] = PriorityQueue()
    alive: dict[int, int] = {}
    for key in range(20_000):
        priority = chance.randrange(1000)
        queue.push(key, priority)
        alive[key] = priority
        if chance.random() < 0.6:
            victim = chance.randrange(key + 1)
            assert queue.remove(victim) == (alive.pop(victim, None) is not None)
    for victim in chance.sample(sorted(alive), len(alive) * 4 // 5):
        assert queue.remove(victim)
        del alive[victim]
    expected = [key for _, key in sorted((priority, key) for key, priority in alive.items())]
    assert drained(queue) == expected


def test_a_changed_key_goes_behind_its_new_equals() -> None:
    queue: PriorityQueue[str] = PriorityQueue()
    for key in "abc":
        queue.push(key, 1)
    assert queue.change("a", 1)
    assert drained(queue) == ["b", "c", "a"]


# -- misuse ----------------------------------------------------------------------------------------------


def test_an_empty_queue_has_nothing_to_give() -> None:
    queue: PriorityQueue[int] = PriorityQueue()
    for take in (queue.pop, queue.pop_item, queue.peek):
        with pytest.raises(IndexError, match="the queue is empty"):
            take()
    assert not queue.remove(1)
    assert not queue.change(1, 1)
    assert list(queue) == []


@pytest.mark.parametrize(
    ("priority", "error"), [(1.5, TypeError), ("1", TypeError), (2**63, OverflowError), (-(2**63) - 1, OverflowError)]
)
@pytest.mark.parametrize("indexed", [False, True])
def test_a_priority_that_is_no_64_bit_integer_changes_nothing(
    priority: Any, error: type[Exception], indexed: bool
) -> None:
    queue: PriorityQueue[str] = PriorityQueue()
    queue.push("there", 1)
    assert not indexed or "there" in queue
    with pytest.raises(error):
        queue.push("new", priority)
    with pytest.raises(error):
        queue.change("there", priority)
    assert list(queue) == ["there"]
    assert queue.peek() == ("there", 1)


def test_a_key_pushed_twice_is_found_when_the_index_is_built() -> None:
    queue: PriorityQueue[str] = PriorityQueue()
    queue.push("key", 1)
    queue.push("key", 2)
    with pytest.raises(ValueError, match="'key' was pushed twice"):
        queue.remove("key")
    assert drained(queue) == ["key", "key"]


def test_an_unhashable_key_is_refused_once_keys_are_indexed() -> None:
    queue: PriorityQueue[Any] = PriorityQueue()
    queue.remove("build the index")
    with pytest.raises(TypeError, match="unhashable"):
        queue.push([], 1)
    assert len(queue) == 0


@dataclass(eq=False)
class Touchy:
    """Raises when compared or hashed, once told to."""

    angry: bool = False

    def __hash__(self) -> int:
        if self.angry:
            raise RuntimeError("do not hash me")
        return 1

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("do not compare me")


@pytest.mark.parametrize(
    "use",
    [
        lambda queue, key: queue.push(key, 0),
        lambda queue, key: queue.remove(key),
        lambda queue, key: queue.change(key, 0),
        lambda queue, key: queue.priority(key),
        lambda queue, key: key in queue,
    ],
)
def test_an_exception_of_a_key_leaves_the_queue_as_it_was(use: Callable[[PriorityQueue[Any], Any], object]) -> None:
    queue: PriorityQueue[Any] = PriorityQueue()
    held = Touchy()
    queue.push(held, 5)
    assert held in queue
    stranger = Touchy()
    references = sys.getrefcount(stranger)
    with pytest.raises(RuntimeError, match="do not compare me"):
        use(queue, stranger)
    assert sys.getrefcount(stranger) == references
    held.angry = True
    with pytest.raises(RuntimeError, match="do not hash me"):
        queue.pop()
    held.angry = False
    assert queue.peek() == (held, 5)
    assert queue.pop() is held
    assert not queue


# -- references ------------------------------------------------------------------------------------------


class Key:
    """Something a weak reference can point to."""


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize(
    "take_out",
    [
        lambda queue, key: queue.pop(),
        lambda queue, key: queue.pop_item(),
        lambda queue, key: queue.remove(key),
        lambda queue, key: queue.clear(),
    ],
)
def test_a_key_taken_out_is_let_go_at_once(
    take_out: Callable[[PriorityQueue[Any], Any], object], indexed: bool
) -> None:
    queue: PriorityQueue[Any] = PriorityQueue()
    key = Key()
    references = sys.getrefcount(key)
    queue.push(key, 1)
    queue.push("behind", 2)
    assert not indexed or key in queue
    take_out(queue, key)
    assert sys.getrefcount(key) == references


def test_a_key_removed_from_the_middle_is_let_go_at_once() -> None:
    queue: PriorityQueue[Any] = PriorityQueue()
    keys = [Key() for _ in range(1000)]
    for number, key in enumerate(keys):
        queue.push(key, number)
    last = weakref.ref(keys[-1])
    assert queue.remove(keys.pop())
    del key
    assert last() is None


def test_a_queue_lets_go_of_its_keys_when_it_ends() -> None:
    queue: PriorityQueue[Any] = PriorityQueue()
    key = Key()
    references = sys.getrefcount(key)
    queue.push(key, 1)
    assert key in queue
    del queue
    assert sys.getrefcount(key) == references


@pytest.mark.parametrize("indexed", [False, True])
def test_a_cycle_through_a_queue_is_collected(indexed: bool) -> None:
    queue: PriorityQueue[Any] = PriorityQueue()
    key: Any = Key()
    key.queue = queue
    queue.push(key, 1)
    assert not indexed or key in queue
    gone = weakref.ref(key)
    del key, queue
    gc.collect()
    assert gone() is None


def test_a_key_may_use_the_queue_while_it_ends() -> None:
    queue: PriorityQueue[Any] = PriorityQueue()

    class Parting(Key):
        def __del__(self) -> None:
            queue.push(f"from the end of a key at length {len(queue)}", 0)

    for number in range(3):
        queue.push(Parting(), number)
    queue.clear()
    assert len(drained(queue)) == 3


def test_pushing_and_popping_for_long_keeps_no_memory() -> None:
    queue: PriorityQueue[Any] = PriorityQueue()

    def turn() -> None:
        for number in range(200):
            queue.push((number, "key"), number % 7)
        for number in range(0, 200, 3):
            queue.remove((number, "key"))
        drained(queue)

    turn()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(200):
        turn()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < 20_000


@pytest.mark.parametrize("empty", [PriorityQueue.clear, drained, lambda queue: [queue.remove(key) for key in queue]])
def test_an_empty_queue_gives_the_memory_of_a_rush_back(empty: Callable[[PriorityQueue[Any]], object]) -> None:
    tracemalloc.start()
    queue: PriorityQueue[int] = PriorityQueue()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(30_000):
        queue.push(number, 0)
    empty(queue)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(queue) == 0
    assert after - before < 10_000
    queue.push(1, 1)
    assert queue.pop() == 1
