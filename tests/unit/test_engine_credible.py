"""A worker or client that is broken, or worse, can end no master and touches nobody else's tasks."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsfast.engine import events as ev
from dsfast.engine.credible import EXIT_CODE_MAX, REASON_LENGTH_MAX, SECONDS_MAX, believed, moment
from dsfast.model import NAME_LENGTH_MAX, OUTPUTS_BYTES_MAX, AttemptState, Outcome, Retry, RunState, canonical
from dsfast.rows import AttemptRow
from dsfast.wire import commands as cmd
from tests.engine_kit import WALL, Desk, answers, dispatched, flow, keys, sent, task, worker

A, R = AttemptState, RunState
W = worker("w")

odd = st.floats() | st.sampled_from([0.0, WALL, -1.0, math.nan, math.inf])
outcomes = st.builds(
    Outcome,
    state=st.sampled_from(list(A)),
    exit_code=st.none() | st.integers(-(2**63), 2**64 - 1),
    reason=st.text(max_size=5) | st.just("x" * 5000),
    outputs=st.sampled_from([b"", b"{}", b'{"a":1}', b"[]", b"nonsense", b'{"a":1}}', b"\xff"]),
    started_at=odd,
    ended_at=odd,
)


def commands_about(live: list[cmd.Attempt]) -> st.SearchStrategy[cmd.Command]:
    """Anything a worker may say, mostly about attempts that there are."""
    key = st.sampled_from([*live, (1, 0, 1)]) | st.tuples(st.integers(0, 3), st.integers(-1, 3), st.integers(-1, 3))
    return st.one_of(
        st.builds(lambda k, o: cmd.Result(k[0], k[1], k[2], o), key, outcomes),
        st.builds(lambda k, at: cmd.Started(k[0], k[1], k[2], at), key, odd),
        st.builds(lambda k, r, here: cmd.Refused(k[0], k[1], k[2], r, here), key, st.text(max_size=3), st.booleans()),
        st.builds(lambda k, known: cmd.KillAnswer(k[0], k[1], k[2], known), key, st.booleans()),
        st.builds(cmd.Credit, st.integers(-(2**63), 2**40)),
        st.just(cmd.Draining()),
        st.builds(cmd.Deposed, key.map(lambda k: k[0]), st.integers(-5, 2**63)),
        st.builds(
            cmd.Holding,
            st.lists(key.map(lambda k: k[0]), max_size=3).map(tuple),
            st.lists(key, max_size=3).map(tuple),
            st.integers(0, 9),
        ),
    )


def sound(row: AttemptRow) -> bool:
    """Whether any database takes the row, and any successor can compute with it."""
    times = (row.dispatched_at, row.started_at, row.ended_at)
    decodes = row.outputs is None or isinstance(msgspec.json.decode(row.outputs), dict)
    return (
        all(at is None or 0 <= at < SECONDS_MAX for at in times)
        and (row.exit_code is None or abs(row.exit_code) <= EXIT_CODE_MAX)
        and len(row.reason) <= REASON_LENGTH_MAX + 100
        and decodes
    )


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_whatever_a_worker_says_the_master_goes_on_and_the_run_ends(data: st.DataObject) -> None:
    desk = Desk(W)
    reader = task("c", "a", config={"text": "{{ tasks.a.x }}"})
    run_id = desk.start(flow(task("a", retry=Retry(2)), task("b"), reader))
    for _ in range(data.draw(st.integers(1, 12))):
        live = [key for name in list(desk.core.dispatcher.workers) for key in desk.core.dispatcher.workers[name].live]
        said = data.draw(st.lists(commands_about(live), max_size=3))
        desk.step(*(desk.said("w", command) for command in said), after=data.draw(st.sampled_from((0.0, 0.1, 5.0))))
    assert all(sound(row) for row in desk.rows(run_id).values())
    desk.link(worker("honest", slots=100))
    fx = desk.step(ev.PeerDead("w@1"))
    for _ in range(100):
        if run_id not in desk.core.runs:
            break
        live_now = list(desk.core.runs[run_id].live.values())
        for each in live_now:
            fx = desk.ended("honest", each.key)
        fx = desk.step(after=60.0)
    assert fx is not None
    assert desk.state(run_id) in (R.SUCCEEDED, R.FAILED)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"ended_at": math.nan}, "times that no clock shows"),
        ({"started_at": -1.0}, "times that no clock shows"),
        ({"exit_code": 2**63}, "an exit code that no system has"),
        ({"outputs": b'{}},"params":{"x":{}'}, "outputs that are no JSON object"),
        ({"outputs": b"[1]"}, "outputs that are no JSON object"),
        ({"outputs": b'{"a":"' + b"x" * OUTPUTS_BYTES_MAX + b'"}'}, "outputs of 1,048,584 bytes"),
    ],
)
def test_what_cannot_be_true_fails_the_attempt_and_says_so(how: dict[str, Any], sentence: str) -> None:
    outcome = believed(Outcome(A.SUCCEEDED, **how))
    assert outcome.state is A.FAILED
    assert sentence in outcome.reason
    assert (outcome.outputs, outcome.exit_code, outcome.ended_at) == (b"", None, 0.0)


@pytest.mark.parametrize("state", [A.SUBMITTED, A.RUNNING, A.DISPATCHED])
def test_an_end_that_is_none_fails_the_attempt(state: AttemptState) -> None:
    assert believed(Outcome(state)).reason == f"its worker reported an end in state {state.name}"


def test_what_can_be_true_is_believed_as_it_is() -> None:
    outcome = Outcome(A.SUCCEEDED, 0, "fine", b'{"a": [1, {"b": null}]}', WALL, WALL + 1)
    assert believed(outcome) is outcome
    assert moment(WALL, 5.0) == WALL
    assert moment(math.inf, 5.0) == 5.0


def test_reasons_are_cut_to_a_sentence_or_two() -> None:
    assert len(believed(Outcome(A.FAILED, reason="x" * 10_000)).reason) == REASON_LENGTH_MAX + 1


def test_what_is_given_back_after_its_start_is_lost_and_not_started_twice_under_one_number() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("t"))))
    desk.step(desk.started("w", key))
    assert dispatched(desk.hears("w", cmd.Refused(*key, "oops", True))) == [("w", "t", 2)]
    assert desk.rows(key[0])[0, 1].reason == "its worker gave it back after its start: oops"


@pytest.mark.parametrize("grace", [math.nan, -1.0, math.inf, 1e300])
def test_a_grace_that_is_no_time_is_the_masters_own(grace: float) -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("t"))))
    (kill,) = sent(desk.ask(cmd.Cancel(key[0], "x", grace)), cmd.Kill)
    assert kill.grace == desk.core.settings.kill_grace_seconds


@pytest.mark.parametrize("key", ["", "x" * (NAME_LENGTH_MAX + 1)])
def test_a_key_that_no_index_takes_is_refused(key: str) -> None:
    (answer,) = answers(Desk().submit(flow(task("t")), idempotency_key=key))
    assert isinstance(answer, cmd.Failed)


def test_names_that_no_index_takes_are_refused() -> None:
    desk = Desk()
    for workflow in (flow(task("t"), name="x" * 201), flow(task("t" * 201))):
        (answer,) = answers(desk.ask(cmd.Submit(canonical(workflow))))
        assert isinstance(answer, cmd.Failed)
        assert "longer than 200 characters" in answer.message
