"""Failpoints: orders as people write them, each carried out once, at the time that was named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsfast.errors import UsageError
from dsfast.failpoint import POINTS, Injected, arm, armed, reach

ORDERED = "from dsfast.failpoint import arm, reach; arm({!r}); reach('M4'); print('passed'); reach('M4')"
DOCS = Path(__file__).parents[2] / "docs" / "failpoints.md"


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm("")


def test_without_orders_a_point_is_passed() -> None:
    arm("")
    reach("M4")
    assert not armed()


def test_an_error_is_raised_once() -> None:
    arm("M4=error")
    with pytest.raises(Injected, match="M4"):
        reach("M4")
    reach("M4")
    assert not armed()


def test_other_points_are_passed() -> None:
    arm("M4=error, W1=error")
    reach("M5")
    assert armed("M4")
    assert not armed("M5")


def test_the_nth_time_counts() -> None:
    arm("M4=error@3")
    reach("M4")
    reach("M4")
    with pytest.raises(Injected):
        reach("M4")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("M99=kill", "there is no point 'M99'"),
        ("M4=die", "no order"),
        ("M4", "no order"),
        ("M4=kill@0", "no order"),
        ("M4=delay", "no order"),
        ("M4=delay:99999", "at most"),
    ],
)
def test_what_cannot_be_ordered_is_said(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        arm(text)


def test_kill_is_kill_at_the_second_time() -> None:
    found = subprocess.run(
        [sys.executable, "-c", ORDERED.format("M4=kill@2")], capture_output=True, text=True, check=False
    )
    assert found.returncode == -signal.SIGKILL


def test_a_delay_passes() -> None:
    arm("M4=delay:0.001")
    reach("M4")
    assert not armed()


def test_a_stopped_process_goes_on_when_it_is_told_to() -> None:
    process = subprocess.Popen([sys.executable, "-c", ORDERED.format("M4=stop")], stdout=subprocess.PIPE, text=True)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    process.send_signal(signal.SIGCONT)
    said, _ = process.communicate()
    assert said == "passed\n"


def test_the_page_has_every_point() -> None:
    rows = [f"| `{point}` | {where} |" for point, where in POINTS.items()]
    assert "\n".join(rows) in DOCS.read_text()
