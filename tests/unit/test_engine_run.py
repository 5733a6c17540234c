"""One run: what becomes ready, what is given up, how it ends; and a run read back from the store is the same run."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsfast.engine.plan import compile_plan
from dsfast.engine.run import Run
from dsfast.engine.states import Step
from dsfast.model import AttemptState, OnFailure, Priority, Retry, RunState, Task, Workflow
from dsfast.rows import AttemptRow, RunRow
from dsfast.wire import commands as cmd
from tests.engine_kit import WALL, Desk, flow, sent, task, worker

A, R = AttemptState, RunState


def run_of(*tasks: Task, given: bytes = b"{}", state: RunState = R.RUNNING, **traits: object) -> Run:
    row = RunRow(1, "flow", "digest", state, "m@1", 1, Priority.MEDIUM, given, WALL, tasks=len(tasks))
    return Run(row, compile_plan(flow(*tasks, **traits), "digest"))


def row(position: int, attempt: int, state: AttemptState, **fields: object) -> AttemptRow:
    return AttemptRow(1, position, attempt, state, "w@1", **fields)  # type: ignore[arg-type]


# -- readiness ------------------------------------------------------------------------------------------------------


def test_disabled_tasks_are_seen_through() -> None:
    run = run_of(task("a", enabled=False), task("b", "a", enabled=False), task("c", "b"), task("d", "a"))
    assert run.begin() == [2, 3]


def test_a_disabled_task_behind_an_enabled_one_waits_for_it() -> None:
    run = run_of(task("a"), task("off", "a", enabled=False), task("c", "off"))
    assert run.begin() == [0]
    assert run.succeed(0, None) == [2]


def test_a_run_of_disabled_tasks_is_over_before_it_begins() -> None:
    run = run_of(task("a", enabled=False), task("b", "a", enabled=False))
    assert run.begin() == []
    assert run.over
    assert run.end_step() is Step.SUCCEED


def test_what_depends_on_a_task_that_is_given_up_is_decided_with_it() -> None:
    run = run_of(task("a"), task("b", "a"), task("c", "b"), task("d"))
    run.begin()
    run.give_up(0)
    assert [run.dag.decided(position) for position in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(("on_failure", "stops"), [(OnFailure.CONTINUE, False), (OnFailure.STOP, True)])
def test_a_task_given_up_stops_the_run_if_the_workflow_says_so(on_failure: OnFailure, stops: bool) -> None:
    run = run_of(task("a"), task("b"), on_failure=on_failure)
    run.begin()
    assert run.give_up(0) is stops
    assert run.stopping is stops


# -- retries --------------------------------------------------------------------------------------------------------


def test_retries_are_counted_and_wait_longer_and_longer() -> None:
    run = run_of(task("a", retry=Retry(limit=3, delay=2.0, backoff=3.0, delay_max=10.0)))
    assert [run.may_retry(0) for _ in range(4)] == [2.0, 6.0, 10.0, None]


def test_a_bound_attempt_has_the_next_number_and_one_given_back_keeps_its_own() -> None:
    run = run_of(task("a"))
    live = run.bind(0, "w@1", WALL)
    assert live.key == (1, 0, 1)
    assert run.bind(0, "v@1", WALL).key == (1, 0, 1)
    del run.live[0]
    assert run.bind(0, "w@1", WALL).key == (1, 0, 2)


def test_an_attempt_is_awaited_from_its_worker_under_its_number_only() -> None:
    run = run_of(task("a"))
    live = run.bind(0, "w@1", WALL)
    assert run.awaits("w@1", (1, 0, 1)) is live
    assert run.awaits("v@1", (1, 0, 1)) is None
    assert run.awaits("w@1", (1, 0, 2)) is None
    assert run.awaits("w@1", (1, 1, 1)) is None


# -- ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "counts", "remaining", "step"),
    [
        (R.RUNNING, {A.SUCCEEDED: 2}, 0, Step.SUCCEED),
        (R.RUNNING, {A.SUCCEEDED: 1, A.FAILED: 1}, 0, Step.FAIL),
        (R.RUNNING, {A.KILLED: 1}, 0, Step.FAIL),
        (R.READY_STOP, {A.KILLED: 1, A.SUCCEEDED: 1}, 0, Step.KILL),
        (R.READY_STOP, {A.SUCCEEDED: 1}, 1, Step.KILL),
        (R.READY_STOP, {A.FAILED: 1}, 1, Step.KILL),
        (R.READY_STOP, {A.FAILED: 1, A.SUCCEEDED: 1}, 0, Step.FAIL),
        (R.READY_STOP, {A.SUCCEEDED: 2}, 0, Step.SUCCEED),
    ],
)
def test_a_cancel_counts_only_if_it_killed_or_held_something_back(
    state: RunState, counts: dict[AttemptState, int], remaining: int, step: Step
) -> None:
    run = run_of(task("a"), task("b"), state=state)
    for position in range(2 - remaining):
        run.dag.settle(position)
    for each, count in counts.items():
        run.count(each, count)
    assert run.end_step() is step


# -- inputs ---------------------------------------------------------------------------------------------------------


def test_inputs_are_params_over_their_defaults_and_nothing_if_there_are_none() -> None:
    assert run_of(task("a")).inputs(0) == b""
    run = run_of(task("a"), given=b'{"day": 2}', params={"day": 1, "host": "x"})
    assert msgspec.json.decode(run.inputs(0)) == {"params": {"day": 2, "host": "x"}}


def test_inputs_hold_the_outputs_of_the_tasks_that_are_read_and_no_others() -> None:
    reader = task("reader", "one", "two", config={"text": "{{ tasks.one.rows }}"})
    run = run_of(task("one"), task("two"), reader)
    run.begin()
    run.succeed(0, b'{"rows":[1,2]}')
    run.succeed(1, b'{"rows":3}')
    assert msgspec.json.decode(run.inputs(2)) == {"params": {}, "tasks": {"one": {"rows": [1, 2]}}}
    assert run.outputs.keys() == {0}


def test_a_task_without_outputs_is_an_empty_object() -> None:
    run = run_of(task("one"), task("reader", "one", config={"text": "{{ tasks.one.rows }}"}))
    run.begin()
    run.succeed(0, None)
    assert msgspec.json.decode(run.inputs(1))["tasks"] == {"one": {}}


# -- restoring ------------------------------------------------------------------------------------------------------


def test_restoring_opens_what_is_ready_and_adopts_what_may_run() -> None:
    run = run_of(task("a"), task("b", "a"), task("c", "a"), task("d", "b"))
    restored = run.restore([row(0, 1, A.SUCCEEDED), row(1, 1, A.DISPATCHED)])
    assert restored.open == [(2, 0.0)]
    assert [live.key for live in restored.adopt] == [(1, 1, 1)]
    assert run.counts == {A.SUCCEEDED: 1}


def test_restoring_counts_failures_but_not_failovers() -> None:
    run = run_of(task("a", retry=Retry(limit=2, delay=5.0)))
    rows = [row(0, 1, A.FAILOVER), row(0, 2, A.FAILED, ended_at=WALL), row(0, 3, A.FAILED, ended_at=WALL + 7)]
    assert run.restore(rows).open == [(0, WALL + 12)]
    assert run.failures == {0: 2}
    assert run.bind(0, "w@1", WALL).key == (1, 0, 4)


def test_restoring_gives_up_what_has_failed_for_good() -> None:
    run = run_of(task("a"), task("b", "a"), task("c"), on_failure=OnFailure.STOP)
    assert run.restore([row(0, 1, A.FAILED)]).open == [(2, 0.0)]
    assert run.stopping
    assert run.dag.decided(1)


def test_restoring_keeps_the_rest_of_a_delay() -> None:
    run = run_of(task("a"), task("b", "a", delay=60.0), task("first", delay=30.0))
    restored = run.restore([row(0, 1, A.SUCCEEDED, ended_at=WALL + 100)])
    assert sorted(restored.open) == [(1, WALL + 160), (2, WALL + 30)]


def test_a_delay_behind_a_disabled_task_counts_from_the_last_one_that_ran() -> None:
    run = run_of(task("a"), task("off", "a", enabled=False), task("b", "off", delay=60.0))
    assert run.restore([row(0, 1, A.SUCCEEDED, ended_at=WALL + 100)]).open == [(2, WALL + 160)]


# -- a run read back is the same run ----------------------------------------------------------------------------------


@dataclass
class Play:
    """A workflow, how often each task fails, and when a person cancels it."""

    workflow: Workflow
    fails: list[int]
    cancel_at: int | None
    heed: list[bool]  # which tasks end when they are killed
    lost: bool  # what the first master had sent never arrived


@st.composite
def plays(draw: st.DrawFn) -> Play:
    size = draw(st.integers(1, 6))
    stop = draw(st.booleans())
    tasks = []
    for position in range(size):
        needs = draw(st.lists(st.integers(0, position - 1), unique=True, max_size=1)) if position else []
        tasks.append(
            task(
                f"t{position}",
                *(f"t{need}" for need in needs),
                retry=Retry(draw(st.integers(0, 2)), 0.0 if stop else draw(st.sampled_from((0.0, 5.0)))),
                delay=0.0 if stop else draw(st.sampled_from((0.0, 0.0, 3.0))),
                enabled=draw(st.integers(0, 5)) > 0,
            )
        )
    workflow = flow(*tasks, on_failure=OnFailure.STOP if stop else OnFailure.CONTINUE)
    fails = draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    heed = draw(st.lists(st.integers(0, 3).map(lambda chance: chance == 0), min_size=size, max_size=size))
    cancel_at = draw(st.none() | st.integers(0, 3))
    return Play(workflow, fails, cancel_at, heed, cancel_at is None and not stop and draw(st.booleans()))


def played(desk: Desk, run_id: int, play: Play, cancel_at: int | None) -> Iterator[int]:
    """Let the attempts of the run end one after the other until it is over; yields after every turn."""
    for turn in range(1000):
        run = desk.core.runs.get(run_id)
        if run is None:
            return
        if turn == cancel_at:
            desk.ask(cmd.Cancel(run_id))
        elif run.live:
            end_one(desk, run_id, play)
        else:
            desk.step(after=10.0)
        yield turn
    raise AssertionError("the run never ends")


def end_one(desk: Desk, run_id: int, play: Play) -> None:
    """The attempt that ends next, and how, depend on nothing but what is durable."""
    live = min(desk.core.runs[run_id].live.values(), key=lambda live: (live.row.task * 5) % 7)
    position, number = live.row.task, live.row.attempt
    failed = sum(each.state is A.FAILED for (at, _), each in desk.rows(run_id).items() if at == position)
    state = A.FAILED if failed < play.fails[position] else A.SUCCEEDED
    if live.kill_reason is not None and play.heed[position]:
        state = A.KILLED
    desk.ended("w", (run_id, position, number), state)


@settings(max_examples=200, deadline=None)
@given(plays())
def test_any_prefix_of_a_run_read_back_ends_as_the_run_did(play: Play) -> None:
    desk = Desk(worker("w", slots=100))
    run_id = desk.start(play.workflow)
    prefixes = []
    for turn in played(desk, run_id, play, play.cancel_at):
        cancelled = play.cancel_at is not None and turn >= play.cancel_at
        if run_id in desk.core.runs and (play.cancel_at is None or cancelled):
            prefixes.append((copy.deepcopy(desk.store), desk.now))
    for store, now in prefixes[:6]:
        successor = Desk(worker("w", slots=100), name="n", store=store)
        successor.now = now
        (adopt,) = sent(successor.claim(), cmd.Adopt)
        unended = [key for key, each in store.attempts.get(run_id, {}).items() if not each.state.final]
        held = () if play.lost else tuple(unended)
        successor.hears("w", cmd.Holding((run_id,), held, adopt.serial))
        for _ in played(successor, run_id, play, None):
            pass
        assert successor.states(run_id) == desk.states(run_id)
        assert successor.state(run_id) is desk.state(run_id)
