"""Strangers are counted, and the log of them stays short."""

from __future__ import annotations

import logging

import pytest

from dsfast.runtime.gate import LOG_EVERY_SECONDS, Gate
from dsfast.runtime.limits import LinkLimits

LOGGER = logging.getLogger("dsfast.links")


def gate(**limits: int) -> Gate:
    return Gate(LinkLimits(**limits), LOGGER)


def test_there_is_room_for_so_many_of_one_address_and_so_many_in_all() -> None:
    few = gate(half_open_max=3, half_open_per_address_max=2)
    few.enter("a")
    few.enter("a")
    assert not few.has_room("a")
    assert few.has_room("b")
    few.enter("b")
    assert not few.has_room("c")
    few.leave("a")
    assert few.has_room("a")
    assert few.has_room("c")


def test_every_refusal_is_counted_and_one_a_second_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    few = gate()
    with caplog.at_level(logging.WARNING, LOGGER.name):
        for number in range(1000):
            few.refuse("proof", "a", "no key", number * LOG_EVERY_SECONDS / 500)
        few.refuse("role", "a", "no business", 0.0)
    assert few.refused == {"proof": 1000, "role": 1}
    logged = [(record.fields["code"], record.fields["more"]) for record in caplog.records]  # type: ignore[attr-defined]
    assert logged == [("proof", None), ("proof", 499), ("role", None)]
