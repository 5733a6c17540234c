"""A loop that stays awake: for as long as was said, unless its time is rationed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dsfast.runtime.awake import AWAKE_SECONDS, SHARED_SECONDS, WANTED_SECONDS, Awake, has_quota

LOOKS = 10  # until AWAKE_SECONDS are over, by the clock of these tests
STEP = AWAKE_SECONDS / (LOOKS - 0.5)  # so that no look falls on the end, where the last digit would decide
ROUNDS = 50  # of the loop: longer than any of them may stay awake
assert STEP < WANTED_SECONDS


class Core:
    """Time passes when it is offered, and by `pass_by`; `wanted` is for how long somebody else takes it then."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks = 0
        self.wanted = 0.0

    def clock(self) -> float:
        return self.now

    def offer(self) -> None:
        self.looks += 1
        self.now += STEP + self.wanted

    def pass_by(self, moments: float) -> None:
        self.now += moments * AWAKE_SECONDS


class Waiter:
    """Somebody who waits, for so many AWAKE_SECONDS, and then lets the loop look as often as it wants to."""

    def __init__(self, *, allowed: bool = True) -> None:
        self.core = Core()
        self.awake = Awake(allowed=allowed, clock=self.core.clock, offer=self.core.offer)

    async def looks_after(self, moments: float) -> int:
        self.awake.wait_begins()
        self.core.pass_by(moments)
        self.awake.wait_ended()
        return await self.looks_within(ROUNDS)

    async def looks_during(self, moments: float) -> int:
        self.awake.wait_begins()
        looks = await self.looks_within(ROUNDS)
        self.core.pass_by(moments)
        self.awake.wait_ended()
        return looks

    async def looks_within(self, rounds: int) -> int:
        before = self.core.looks
        for _ in range(rounds):
            await asyncio.sleep(0)
        return self.core.looks - before


async def test_after_a_short_wait_a_loop_looks_for_a_moment() -> None:
    assert await Waiter().looks_after(0.5) == LOOKS


async def test_after_a_long_wait_a_loop_sleeps() -> None:
    assert await Waiter().looks_after(1.5) == 0


async def test_after_a_short_wait_the_next_one_begins_awake_and_a_long_one_ends_that() -> None:
    waiter = Waiter()
    assert await waiter.looks_during(0.5) == 0
    assert await waiter.looks_after(0.5) == LOOKS
    assert await waiter.looks_during(5.0) == LOOKS
    assert await waiter.looks_during(5.0) == 0


async def test_waits_that_follow_each_other_are_one_time_awake_with_one_look_in_a_round() -> None:
    waiter = Waiter()
    waiter.awake.wait_begins()
    waiter.awake.wait_ended()
    assert await waiter.looks_within(5) == 5
    waiter.awake.wait_begins()
    waiter.awake.wait_ended()
    assert await waiter.looks_within(ROUNDS) == LOOKS


async def test_a_loop_whose_core_is_wanted_sleeps_and_tries_again_after_a_while() -> None:
    waiter = Waiter()
    waiter.core.wanted = WANTED_SECONDS
    assert await waiter.looks_after(0.5) == 1
    waiter.core.wanted = 0.0
    assert await waiter.looks_after(0.5) == 0
    waiter.core.now += SHARED_SECONDS
    assert await waiter.looks_after(0.5) == LOOKS


async def test_a_loop_whose_time_is_rationed_sleeps() -> None:
    assert await Waiter(allowed=False).looks_after(0.5) == 0


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    """A tree of control groups; `tmp_path/own` says that we are in the inner one."""
    (tmp_path / "groups" / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "own").write_text("1:name=systemd:/elsewhere\n0::/outer/inner\n")
    return tmp_path / "groups"


@pytest.mark.parametrize(
    ("outer", "inner", "rationed"),
    [
        ("max 100000", "max 100000", False),
        ("max 100000", "50000 100000", True),
        ("150000 100000", "max 100000", True),
    ],
)
def test_a_limit_of_any_group_that_we_are_in_counts(groups: Path, outer: str, inner: str, rationed: bool) -> None:
    (groups / "outer" / "cpu.max").write_text(f"{outer}\n")
    (groups / "outer" / "inner" / "cpu.max").write_text(f"{inner}\n")
    assert has_quota(groups, groups.parent / "own") is rationed


def test_without_control_groups_nothing_is_rationed(tmp_path: Path, groups: Path) -> None:
    assert not has_quota(groups, tmp_path / "own")
    assert not has_quota(groups, tmp_path / "absent")
