"""Each policy spreads tasks as it says."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsfast.engine.balance import POLICIES, LeastLoaded, RoundRobin, SmoothWeighted
from dsfast.engine.run import Live
from dsfast.engine.workers import Worker
from dsfast.model import AttemptState
from dsfast.rows import AttemptRow
from tests.engine_kit import worker


def workers(*weights: int, slots: int = 4) -> list[Worker]:
    return [Worker(worker(f"w{number}", weight=weight, slots=slots)) for number, weight in enumerate(weights)]


def load(one: Worker, count: int) -> None:
    for number in range(count):
        live = Live(AttemptRow(1, number, 1, AttemptState.RUNNING, one.id))
        one.live[live.key] = live


def chosen(policy: str, among: list[Worker], count: int) -> list[str]:
    choose = POLICIES[policy](random.Random(3)).choose
    return [choose(among).member.name for _ in range(count)]


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_policy_chooses_one_of_those_it_is_given(policy: str) -> None:
    among = workers(1, 2, 3)
    assert set(chosen(policy, among, 200)) <= {"w0", "w1", "w2"}
    assert chosen(policy, among[:1], 3) == ["w0"] * 3


def test_round_robin_takes_each_in_turn() -> None:
    names = chosen("round_robin", workers(1, 1, 1), 9)
    assert names[:3] == names[3:6] == names[6:]
    assert Counter(names) == {"w0": 3, "w1": 3, "w2": 3}


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_smooth_weighted_gives_each_exactly_its_weight_in_every_round(weights: list[int]) -> None:
    names = chosen("smooth_weighted", workers(*weights), 3 * sum(weights))
    for start in range(0, len(names), sum(weights)):
        round_ = Counter(names[start : start + sum(weights)])
        assert round_ == {f"w{number}": weight for number, weight in enumerate(weights)}


def test_smooth_weighted_spreads_the_heavy_ones_turns() -> None:
    assert chosen("smooth_weighted", workers(5, 1, 1), 7) == ["w0", "w0", "w1", "w0", "w2", "w0", "w0"]


def test_smooth_weighted_remembers_who_was_full() -> None:
    policy, (one, other) = SmoothWeighted(random.Random(0)), workers(1, 1)
    assert [policy.choose([one]).id for _ in range(3)] == [one.id] * 3
    assert Counter(policy.choose([one, other]).id for _ in range(10)) == {one.id: 5, other.id: 5}


def test_random_takes_each_about_as_often() -> None:
    counts = Counter(chosen("random", workers(1, 1, 1, 1), 4000))
    assert all(850 < count < 1150 for count in counts.values())


def test_least_loaded_of_two_is_the_one_with_less_work_per_slot() -> None:
    small, large = Worker(worker("small", slots=2)), Worker(worker("large", slots=16))
    load(small, 1)
    load(large, 4)
    assert LeastLoaded(random.Random(0)).choose([small, large]) is large


def test_least_loaded_keeps_many_workers_nearly_even() -> None:
    policy, among = LeastLoaded(random.Random(5)), workers(*[1] * 50, slots=10)
    for number in range(500):
        one = policy.choose(among)
        one.live[1, number, 1] = Live(AttemptRow(1, number, 1, AttemptState.RUNNING, one.id))
    loads = [len(one.live) for one in among]
    assert min(loads) >= 5
    assert max(loads) <= 13


def test_least_loaded_survives_a_worker_without_slots() -> None:
    among = workers(1, 1, slots=0)
    assert LeastLoaded(random.Random(0)).choose(among) in among


def test_round_robin_goes_on_when_workers_come_and_go() -> None:
    policy, among = RoundRobin(random.Random(0)), workers(1, 1, 1, 1)
    counts = Counter(policy.choose(among[: 1 + number % 4]).id for number in range(4000))
    assert counts.keys() <= {one.id for one in among}
