"""The ready queue against a sorted list in the documented order: run urgency, then task priority, then arrival."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dsfast.engine.ready import AGEING_MS, ID_TIME_SHIFT, ReadyQueue, urgency
from dsfast.model import Priority

RUNS = {number: (number << ID_TIME_SHIFT, priority) for number, priority in enumerate(list(Priority) * 2)}


def drained(queue: ReadyQueue) -> list[tuple[int, int]]:
    return [queue.pop() for _ in range(len(queue))]


class ReadyQueueAgainstList(RuleBasedStateMachine):
    """Every operation on the queue and on a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = ReadyQueue()
        self.oracle: list[tuple[int, int, int, int, int]] = []  # urgency, run, task priority, arrival, task
        self.arrivals = 0

    @rule(run=st.sampled_from(sorted(RUNS)), priority=st.sampled_from(list(Priority)))
    def push(self, run: int, priority: Priority) -> None:
        run_id, run_priority = RUNS[run]
        self.arrivals += 1
        self.queue.push(run_id, run_priority, self.arrivals, priority)
        self.oracle.append((urgency(run_id, run_priority), run_id, priority, self.arrivals, self.arrivals))

    @precondition(lambda self: self.oracle)
    @rule()
    def pop(self) -> None:
        first = min(self.oracle)
        self.oracle.remove(first)
        assert self.queue.urgency() == first[0]
        assert self.queue.pop() == (first[1], first[4])

    @rule(run=st.sampled_from(sorted(RUNS)))
    def discard(self, run: int) -> None:
        self.queue.discard(RUNS[run][0])
        self.oracle = [each for each in self.oracle if each[1] != RUNS[run][0]]

    @invariant()
    def lengths_agree(self) -> None:
        assert len(self.queue) == len(self.oracle)
        assert bool(self.queue) == bool(self.oracle)
        for run_id, _ in RUNS.values():
            assert self.queue.waiting(run_id) == sum(each[1] == run_id for each in self.oracle)


TestReadyQueueAgainstList = ReadyQueueAgainstList.TestCase


@given(st.lists(st.sampled_from(list(Priority)), min_size=1, max_size=30))
def test_tasks_of_one_run_leave_by_priority_then_arrival(priorities: list[Priority]) -> None:
    queue = ReadyQueue()
    for task, priority in enumerate(priorities):
        queue.push(1, Priority.MEDIUM, task, priority)
    by_priority = sorted(range(len(priorities)), key=lambda task: priorities[task])
    assert drained(queue) == [(1, task) for task in by_priority]


def test_an_older_run_goes_before_a_younger_one_of_its_priority_whatever_their_tasks_priorities() -> None:
    queue = ReadyQueue()
    queue.push(2, Priority.MEDIUM, 0, Priority.HIGHEST)
    queue.push(1, Priority.MEDIUM, 0, Priority.LOWEST)
    assert drained(queue) == [(1, 0), (2, 0)]


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("ahead_ms", [-1, 1])
def test_a_run_goes_first_once_it_has_waited_ten_minutes_per_step_of_priority(steps: int, ahead_ms: int) -> None:
    low, high = Priority(steps), Priority.HIGHEST
    born = 5_000_000_000
    patient = born << ID_TIME_SHIFT
    urgent = (born + steps * AGEING_MS + ahead_ms) << ID_TIME_SHIFT
    queue = ReadyQueue()
    queue.push(urgent, high, 0, Priority.MEDIUM)
    queue.push(patient, low, 0, Priority.MEDIUM)
    assert queue.pop()[0] == (patient if ahead_ms > 0 else urgent)


def test_an_empty_queue_has_nothing_to_give() -> None:
    queue = ReadyQueue()
    with pytest.raises(IndexError):
        queue.pop()
    with pytest.raises(IndexError):
        queue.urgency()
    queue.discard(1)
    assert len(queue) == 0
