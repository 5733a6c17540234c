"""Deadlines: one per key, the last one set counts, and waking at `earliest` always finds it due."""

from __future__ import annotations

from collections.abc import Hashable

from hypothesis import given
from hypothesis import strategies as st

from dsfast.engine.deadlines import Deadlines

seconds = st.floats(0.0, 3.2e8)  # ten years after a start at ten years of uptime


@given(st.lists(st.tuples(st.integers(0, 5), seconds), max_size=20), seconds)
def test_what_is_due_comes_out_in_order_once(sets: list[tuple[int, float]], now: float) -> None:
    deadlines = Deadlines()
    oracle: dict[int, int] = {}
    for key, at in sets:
        deadlines.set(key, at)
        oracle.pop(key, None)  # set anew: behind those of the same moment
        oracle[key] = int(at * 1e6)
    due = [key for key in sorted(oracle, key=lambda key: oracle[key]) if oracle[key] <= int(now * 1e6)]
    assert list(deadlines.due(now)) == due
    assert len(deadlines) == len(oracle) - len(due)
    assert list(deadlines.due(now)) == []


@given(seconds)
def test_waking_at_the_earliest_finds_it_due(at: float) -> None:
    deadlines = Deadlines()
    deadlines.set("key", at)
    earliest = deadlines.earliest()
    assert earliest is not None
    assert at - 1e-6 <= earliest <= at + 3e-6
    assert list(deadlines.due(earliest)) == ["key"]


def test_a_cancelled_deadline_never_comes() -> None:
    deadlines = Deadlines()
    deadlines.set("key", 5.0)
    assert deadlines.cancel("key")
    assert not deadlines.cancel("key")
    assert list(deadlines.due(9.0)) == []
    assert deadlines.earliest() is None


def test_when_a_key_is_due_can_be_asked() -> None:
    deadlines = Deadlines()
    deadlines.set("key", 5.25)
    assert deadlines.at("key") == 5.25
    assert deadlines.at("other") is None


def test_what_is_set_while_others_come_due_waits_for_its_own_time() -> None:
    deadlines = Deadlines()
    deadlines.set("first", 1.0)
    seen: list[Hashable] = []
    for key in deadlines.due(2.0):
        seen.append(key)
        if key == "first":
            deadlines.set("later", 3.0)
            deadlines.set("now", 1.5)
    assert seen == ["first", "now"]
