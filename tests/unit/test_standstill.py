"""By when a worker has to move: never so late that its tasks could run beside their replacements."""

from __future__ import annotations

import math
import time

import pytest

from dsfast.engine import events as ev
from dsfast.engine.fence import UNSURE_SECONDS
from dsfast.runtime.guardian import LOOK_SECONDS, Deadline
from dsfast.runtime.standstill import RENEW_SECONDS, Standstill
from tests.engine_kit import WALL, Bench, execute

ABSENT_SECONDS = 10.0
LATE_SECONDS = 1.0  # what this process may lose between two looks at the clock


def left(lease_left: float, patience: float) -> float:
    """Seconds that a worker has whose lease ends in so many."""
    deadline, lease_end = Deadline(), time.monotonic() + lease_left
    Standstill(deadline, lambda: lease_end, ABSENT_SECONDS).renew(patience)
    return deadline.left()


@pytest.mark.parametrize("patience", [0.0, 60.0])
@pytest.mark.parametrize("lease_left", [0.5, 5.0, 20.0])
def test_with_a_lease_it_has_its_end_and_most_of_what_masters_wait_after_it(lease_left: float, patience: float) -> None:
    latest = lease_left + ABSENT_SECONDS + patience
    assert latest - 2.0 - LATE_SECONDS <= left(lease_left, patience) <= latest - 2.0


@pytest.mark.parametrize("lease_left", [-0.5, -math.inf])
def test_without_a_lease_it_has_what_its_engine_would_grant(lease_left: float) -> None:
    assert UNSURE_SECONDS - LATE_SECONDS <= left(lease_left, 0.0) <= UNSURE_SECONDS


def test_where_nothing_runs_there_is_no_deadline() -> None:
    bench = Bench("m")
    assert left(5.0, bench.engine.patience()) == math.inf


def test_the_least_patient_task_decides() -> None:
    bench = Bench("m")
    bench.hears("m", execute(1, 0), execute(1, 1))
    assert bench.engine.patience() == 0.0
    bench.step(ev.AttemptStarted((1, 0, 1), WALL, None, None))
    bench.step(ev.AttemptStarted((1, 1, 1), WALL, None, 30.0))
    assert bench.engine.patience() == 30.0
    bench.ended((1, 1, 1))
    assert bench.engine.patience() == math.inf


def test_a_guardian_looks_often_enough_to_see_a_deadline_that_was_just_set() -> None:
    assert max(LOOK_SECONDS, RENEW_SECONDS) < UNSURE_SECONDS


@pytest.mark.parametrize(("still", "lease_left", "found"), [(10.5, -1.0, True), (10.5, 1.0, False), (9.5, -1.0, False)])
def test_it_is_told_that_it_stood_still_when_it_may_have_been_replaced(
    still: float, lease_left: float, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    standstill = Standstill(Deadline(), lambda: 1000.0 + still + lease_left, ABSENT_SECONDS)
    now += still
    standstill.renew(math.inf)  # its timer goes off before its sockets are read
    assert [standstill.stood_still(), standstill.stood_still()] == [found, False]
