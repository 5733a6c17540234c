"""The transition tables: forward only, complete, and drawn in docs/states.md."""

from __future__ import annotations

from itertools import product

import pytest

from dsfast.engine.states import ATTEMPT_STEPS, OUTCOME_STEPS, RUN_STEPS, IllegalTransition, Step, mermaid, next_state
from dsfast.model import AttemptState, RunState
from tests.unit.states_page import PAGE, markdown

A, R = AttemptState, RunState


def test_the_page_shows_the_tables_as_they_are() -> None:
    assert PAGE.read_text() == markdown(), "write it anew with: python -m tests.unit.states_page"


@pytest.mark.parametrize(("state", "step"), sorted(product(A, Step), key=str))
def test_an_attempt_takes_the_steps_of_its_table_and_no_others(state: AttemptState, step: Step) -> None:
    if (state, step) in ATTEMPT_STEPS:
        assert next_state(ATTEMPT_STEPS, state, step) is ATTEMPT_STEPS[state, step]
    else:
        with pytest.raises(IllegalTransition, match=f"{state.name} cannot {step.value}: attempt 7"):
            next_state(ATTEMPT_STEPS, state, step, "attempt 7")


@pytest.mark.parametrize(("state", "step"), sorted(product(R, Step), key=str))
def test_a_run_takes_the_steps_of_its_table_and_no_others(state: RunState, step: Step) -> None:
    if (state, step) in RUN_STEPS:
        assert next_state(RUN_STEPS, state, step) is RUN_STEPS[state, step]
    else:
        with pytest.raises(IllegalTransition):
            next_state(RUN_STEPS, state, step)


def test_final_states_have_no_way_out() -> None:
    assert not [state for state, _ in ATTEMPT_STEPS if state.final]
    assert not [state for state, _ in RUN_STEPS if state.final]


def test_whatever_is_not_final_can_end() -> None:
    for table in (ATTEMPT_STEPS, RUN_STEPS):
        ends = {after for after in table.values() if after.final}
        for _ in table:
            ends |= {state for (state, _), after in table.items() if after in ends}
        assert {state for state, _ in table} <= ends


def test_only_what_never_ran_goes_back() -> None:
    order = [A.SUBMITTED, A.DISPATCHED, A.RUNNING]
    back = {
        (state, step)
        for (state, step), after in ATTEMPT_STEPS.items()
        if after in order and order.index(after) <= order.index(state)
    }
    assert back == {(A.DISPATCHED, Step.RETURN)}


def test_every_outcome_that_a_worker_may_report_ends_an_attempt_that_it_has() -> None:
    for outcome, step in OUTCOME_STEPS.items():
        assert outcome.final
        for state in (A.DISPATCHED, A.RUNNING):
            assert ATTEMPT_STEPS[state, step] is outcome


def test_a_diagram_names_every_step() -> None:
    text = mermaid(ATTEMPT_STEPS)
    assert text.startswith("stateDiagram-v2\n    [*] --> SUBMITTED\n")
    for (state, step), after in ATTEMPT_STEPS.items():
        assert f"    {state.name} --> {after.name}: {step.value}\n" in text
    assert text.count("--> [*]") == 4


@pytest.mark.parametrize("state", list(R))
def test_states_keep_their_codes(state: RunState) -> None:
    """They are stored and sent."""
    codes = {
        "SUBMITTED": 0,
        "RUNNING": 1,
        "READY_PAUSE": 2,
        "PAUSED": 3,
        "READY_STOP": 4,
        "STOPPED": 5,
        "FAILED": 6,
        "SUCCEEDED": 7,
    }
    assert codes[state.name] == state.value


def test_attempt_states_keep_their_codes() -> None:
    codes = {"SUBMITTED": 0, "RUNNING": 1, "FAILED": 6, "SUCCEEDED": 7, "FAILOVER": 8, "KILLED": 9, "DISPATCHED": 17}
    assert {state.name: state.value for state in A} == codes
