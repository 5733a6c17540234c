"""Credit: fair among those who wait, something for everybody, and no chatter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dsfast.engine.credit import HORIZON_SECONDS, PREFETCH_MAX, Pace, Share, limits, worth_telling

shares = st.builds(Share, held=st.integers(0, 50), hungry=st.booleans())


@given(st.integers(0, 2000), st.lists(shares, min_size=1, max_size=8))
def test_everybody_has_something_and_equals_have_the_same(capacity: int, masters: list[Share]) -> None:
    given_ = limits(capacity, {f"m{number}": share for number, share in enumerate(masters)})
    assert len(given_) == len(masters)
    assert min(given_.values()) >= 1
    for hungry in (True, False):
        assert len({given_[f"m{number}"] for number, share in enumerate(masters) if share.hungry is hungry}) <= 1


@given(st.integers(8, 2000), st.lists(shares, min_size=1, max_size=8))
def test_who_waits_has_at_least_as_much_as_who_does_not(capacity: int, masters: list[Share]) -> None:
    given_ = limits(capacity, {f"m{number}": share for number, share in enumerate(masters)})
    waiting = [given_[f"m{number}"] for number, share in enumerate(masters) if share.hungry]
    resting = [given_[f"m{number}"] for number, share in enumerate(masters) if not share.hungry]
    assert not waiting or not resting or min(waiting) >= max(resting)


@given(st.integers(8, 2000), st.lists(shares, min_size=1, max_size=8))
def test_limits_add_up_to_the_capacity_unless_somebody_rests(capacity: int, masters: list[Share]) -> None:
    given_ = limits(capacity, {f"m{number}": share for number, share in enumerate(masters)})
    if len({share.hungry for share in masters}) == 1:
        assert capacity - len(masters) < sum(given_.values()) <= capacity


def test_one_that_waits_gets_what_the_others_do_not_use() -> None:
    masters = {"busy": Share(hungry=True), "idle": Share(), "slow": Share(held=3)}
    assert limits(12, masters) == {"busy": 9, "idle": 4, "slow": 4}


def test_one_master_has_it_all() -> None:
    assert limits(12, {"m": Share()}) == limits(12, {"m": Share(hungry=True)}) == {"m": 12}


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_only_a_change_by_a_quarter_is_told(old: int, new: int) -> None:
    assert worth_telling(old, new) == (abs(new - old) * 4 >= old and new != old)


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_a_limit_that_wavers_within_a_quarter_is_told_once(one: int, other: int) -> None:
    """No flapping: after the first word, going to and fro between two near values is silence."""
    low, high = sorted((one, other))
    if 5 * low <= 4 * high:
        return
    told = low
    for new in (high, low, high, low):
        assert not worth_telling(told, new)


@given(st.integers(0, 10_000))
def test_the_first_limit_is_always_told(new: int) -> None:
    assert worth_telling(0, new) == (new > 0)


def test_nothing_is_sent_ahead_before_the_pace_is_known() -> None:
    assert Pace().prefetch(8) == 0


def test_long_attempts_are_not_sent_ahead_and_instant_ones_are_up_to_a_bound() -> None:
    long, instant = Pace(), Pace()
    long.add(10.0)
    instant.add(0.0)
    assert long.prefetch(8) == 0
    assert instant.prefetch(8) == PREFETCH_MAX


@given(st.floats(1e-5, 100.0), st.integers(1, 64))
def test_what_is_sent_ahead_covers_the_horizon_at_the_pace(seconds: float, slots: int) -> None:
    pace = Pace()
    for _ in range(10):
        pace.add(seconds)
    ahead = pace.prefetch(slots)
    assert ahead == PREFETCH_MAX or abs(ahead - slots * HORIZON_SECONDS / seconds) <= 1.001


def test_slow_answers_are_covered_too() -> None:
    pace = Pace()
    pace.add(0.01)
    for _ in range(50):
        pace.add_answer(0.1)
    assert 150 <= pace.prefetch(8) <= 160
