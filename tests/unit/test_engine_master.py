"""The master engine, case by case: submits, results, cancels and their races, what is written and what is sent."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from dsfast.engine import events as ev
from dsfast.engine.effects import MasterEffects
from dsfast.engine.reports import START_FLUSH_SECONDS
from dsfast.engine.turns import amend
from dsfast.model import BATCH_RUNS_MAX, PARAMS_BYTES_MAX, AttemptState, OnFailure, Priority, Retry, RunState, canonical
from dsfast.rows import DefinitionRow
from dsfast.wire import commands as cmd
from tests.engine_kit import CLIENT, WALL, Desk, answers, dispatched, flow, keys, sent, task, worker

A, R = AttemptState, RunState
W = worker("w")


def refused(desk: Desk, workflow: bytes, params: bytes = b"{}") -> str:
    (answer,) = answers(desk.ask(cmd.Submit(workflow, params)))
    failed = cast(cmd.Failed, answer)
    assert failed.code == "usage"
    return failed.message


# -- submit ---------------------------------------------------------------------------------------------------------


def test_a_submit_writes_definition_run_and_first_dispatch_in_one_batch() -> None:
    desk = Desk(W)
    workflow = flow(task("a"), task("b", "a"), priority=Priority.LOW)
    fx = desk.submit(workflow)
    (row,) = fx.batch.new_runs
    assert fx.batch.definitions == [DefinitionRow(row.digest, "flow", canonical(workflow))]
    assert (row.state, row.owner, row.epoch, row.priority, row.tasks) == (R.RUNNING, "m@1", 1, Priority.LOW, 2)
    assert [(key, attempt.state) for key, attempt in fx.batch.attempts.items()] == [((row.id, 0, 1), A.DISPATCHED)]
    assert answers(fx) == [cmd.Submitted(row.id, created_at=row.created_at)]
    assert dispatched(fx) == [("w", "a", 1)]


def test_a_definition_is_written_once() -> None:
    desk = Desk()
    desk.submit(flow(task("a")))
    assert not desk.submit(flow(task("a"))).batch.definitions
    assert desk.submit(flow(task("b"))).batch.definitions


def test_a_submit_may_change_the_priority_and_carries_its_key() -> None:
    (row,) = Desk().submit(flow(task("a")), idempotency_key="once", priority=Priority.HIGHEST).batch.new_runs
    assert (row.priority, row.idempotency_key) == (Priority.HIGHEST, "once")


def test_a_run_without_tasks_and_one_with_none_enabled_succeed_at_once() -> None:
    desk = Desk(W)
    for workflow in (flow(), flow(task("a", enabled=False), task("b", "a", enabled=False))):
        fx = desk.submit(workflow)
        (row,) = fx.batch.new_runs
        assert answers(fx) == [cmd.Submitted(row.id, created_at=row.created_at)]
        assert fx.ended == [row.id]
        assert desk.state(row.id) is R.SUCCEEDED
        assert desk.store.runs[row.id].owner is None
    assert not desk.core.runs


def test_run_ids_grow_with_every_submit() -> None:
    desk = Desk()
    ids = [desk.start(flow(task("a"))) for _ in range(50)]
    assert ids == sorted(set(ids))


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        (b"[]", "not a JSON object"),
        (b"{", "not a JSON object"),
        (b'{"a": "\xff"}', "not a JSON object"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not a JSON object"),
        (b'{"color": 1}', "has no parameter 'color'"),
        (b'{"a": "' + b"x" * PARAMS_BYTES_MAX + b'"}', "pass large data as a file"),
    ],
)
def test_params_that_cannot_be_are_refused_in_a_sentence(params: bytes, sentence: str) -> None:
    desk = Desk()
    assert sentence in refused(desk, canonical(flow(task("t"), params={"a": 1})), params)
    assert not desk.core.runs


def test_what_is_no_workflow_is_refused_in_a_sentence() -> None:
    desk = Desk()
    assert "not a workflow" in refused(desk, b"{}")
    assert "needs itself" in refused(desk, canonical(flow(task("a", "a"))))


def test_a_request_that_no_master_takes_is_answered() -> None:
    (answer,) = answers(Desk().ask(cmd.LogRead(1, 2, 3)))
    assert cast(cmd.Failed, answer).code == "usage"


def test_a_command_that_is_no_request_and_not_for_masters_is_ignored() -> None:
    assert not Desk(W).hears("w", cmd.Demand(True)).sends


# -- many at once ---------------------------------------------------------------------------------------------------


def batch(*orders: cmd.Order, workflows: tuple[bytes, ...] = (canonical(flow(task("a"), params={"n": 0})),)) -> Any:
    return cmd.SubmitBatch(workflows, orders)


def verdicts(fx: MasterEffects) -> tuple[cmd.Verdict, ...]:
    (answer,) = answers(fx)
    assert isinstance(answer, cmd.SubmittedBatch), answer
    return answer.verdicts


def test_a_batch_is_one_turn_with_one_definition_and_an_answer_for_each_run() -> None:
    desk = Desk(W)
    orders = (cmd.Order(params=b'{"n":1}'), cmd.Order(idempotency_key="k", priority=Priority.LOW))
    fx = desk.ask(batch(*orders))
    first, second = fx.batch.new_runs
    assert len(fx.batch.definitions) == 1
    assert verdicts(fx) == (cmd.Verdict(first.id), cmd.Verdict(second.id))
    assert (first.params, first.idempotency_key, first.priority) == (b'{"n":1}', None, Priority.MEDIUM)
    assert (second.params, second.idempotency_key, second.priority) == (b"{}", "k", Priority.LOW)
    assert [key[0] for key in fx.batch.attempts] == [first.id, second.id]


def test_a_bad_run_of_a_batch_spoils_no_other() -> None:
    desk = Desk(W)
    good, bad = canonical(flow(task("a"))), canonical(flow(task("a", "a")))
    orders = (
        cmd.Order(1),
        cmd.Order(0, b'{"color":1}'),
        cmd.Order(0, b"{}", "x" * 201),
        cmd.Order(2),
        cmd.Order(-1),
        cmd.Order(0),
    )
    fx = desk.ask(batch(*orders, workflows=(good, bad)))
    *refusals, taken = verdicts(fx)
    sentences = ("needs itself", "has no parameter 'color'", "1 to 200", "has no workflow 2", "has no workflow -1")
    for verdict, sentence in zip(refusals, sentences, strict=True):
        assert verdict.run_id == 0
        assert sentence in verdict.refused
    assert [row.id for row in fx.batch.new_runs] == [taken.run_id]
    assert not taken.refused


def test_a_batch_names_the_run_that_a_known_key_has_started() -> None:
    desk = Desk(W)
    before = desk.start(flow(task("a")), idempotency_key="known")
    fx = desk.ask(batch(cmd.Order(idempotency_key="known"), cmd.Order(idempotency_key="new"), cmd.Order()))
    gone = amend(fx, desk.committed)
    known, new, keyless = verdicts(fx)
    assert known == cmd.Verdict(before, repeated=True)
    assert not new.repeated
    assert not keyless.repeated
    assert list(gone) == [fx.batch.new_runs[0].id]


def test_a_batch_that_is_too_large_or_comes_to_a_master_without_session_starts_nothing() -> None:
    desk = Desk(W)
    (answer,) = answers(desk.ask(batch(*[cmd.Order()] * (BATCH_RUNS_MAX + 1))))
    assert isinstance(answer, cmd.Failed)
    assert "the most is 1,000" in answer.message
    desk.step(ev.SessionChanged("lost"))
    (answer,) = answers(desk.ask(batch(cmd.Order())))
    assert isinstance(answer, cmd.Failed)
    assert answer.code == "unavailable"
    assert not desk.core.runs


# -- the fast path --------------------------------------------------------------------------------------------------


def test_settling_a_task_and_dispatching_its_successors_is_one_batch() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("a"), task("b", "a"), task("c", "a"))))
    fx = desk.ended("w", key, exit_code=0)
    assert [(at[1], row.state) for at, row in fx.batch.attempts.items()] == [
        (0, A.SUCCEEDED),
        (1, A.DISPATCHED),
        (2, A.DISPATCHED),
    ]
    assert sent(fx, cmd.ResultAck) == [cmd.ResultAck(*key)]
    assert dispatched(fx) == [("w", "b", 1), ("w", "c", 1)]
    assert not fx.batch.runs


def test_a_short_task_is_two_row_writes() -> None:
    desk = Desk(W)
    fx = desk.submit(flow(task("a"), task("b")))
    first, _ = keys(fx)
    writes = len(fx.batch.attempts)
    writes += len(desk.step(desk.started("w", first)).batch.attempts)
    writes += len(desk.ended("w", first).batch.attempts)
    assert writes == 2 + 1
    assert desk.step(after=1.0).wake_at is None


def test_a_task_that_still_runs_after_a_moment_is_written_as_running_with_others() -> None:
    desk = Desk(W)
    first, second = keys(desk.submit(flow(task("a"), task("b"))))
    assert not desk.step(desk.started("w", first), desk.started("w", second)).batch
    fx = desk.step(after=START_FLUSH_SECONDS)
    assert {row.state for row in fx.batch.attempts.values()} == {A.RUNNING}
    assert sent(fx, cmd.StartedAck) == [cmd.StartedAck(*first), cmd.StartedAck(*second)]
    assert sent(desk.step(desk.started("w", first)), cmd.StartedAck) == [cmd.StartedAck(*first)]


def test_the_last_result_ends_the_run_in_the_same_batch() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("a"))))
    fx = desk.ended("w", key)
    row = fx.batch.runs[key[0]]
    assert (row.state, row.owner, row.ended_at, fx.ended) == (R.SUCCEEDED, None, WALL + desk.now, [key[0]])
    assert not desk.core.runs


def test_outputs_are_kept_and_handed_to_who_reads_them() -> None:
    desk = Desk(W)
    reader = task("report", "count", config={"text": "{{ tasks.count.rows }}"})
    (key,) = keys(desk.submit(flow(task("count"), reader)))
    fx = desk.ended("w", key, outputs=b'{"rows":7}')
    (dispatch,) = sent(fx, cmd.Execute)
    assert msgspec.json.decode(dispatch.inputs) == {"params": {}, "tasks": {"count": {"rows": 7}}}
    assert desk.rows(key[0])[0, 1].outputs == b'{"rows":7}'


def test_outputs_survive_a_failover() -> None:
    desk = Desk(W)
    reader = task("report", "count", config={"text": "{{ tasks.count.rows }}"}, delay=5.0)
    (key,) = keys(desk.submit(flow(task("count"), reader)))
    desk.ended("w", key, outputs=b'{"rows":7}')
    (dispatch,) = sent(desk.successor(W).step(after=5.0), cmd.Execute)
    assert msgspec.json.decode(dispatch.inputs)["tasks"] == {"count": {"rows": 7}}


@pytest.mark.parametrize("traits", [{"retry": Retry(limit=1, delay=20.0)}, {"delay": 20.0}])
def test_a_successor_with_a_clock_an_hour_slow_waits_no_longer_than_the_task_says(traits: dict[str, object]) -> None:
    desk = Desk(W)
    desk.now += 3600.0
    run_id = desk.start(flow(task("t", **traits)))
    if "retry" in traits:
        desk.ended("w", (run_id, 0, 1), A.FAILED)
    successor = Desk(W, name="n", store=desk.store)
    successor.claim()
    assert not dispatched(successor.step(after=19.0))
    assert len(dispatched(successor.step(after=1.1))) == 1


def test_a_delay_is_waited_for_after_the_needs() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("a"), task("b", "a", delay=7.0))))
    fx = desk.ended("w", key)
    assert dispatched(fx) == []
    assert fx.wake_at == pytest.approx(desk.now + 7.0)
    assert dispatched(desk.step(after=6.9)) == []
    assert dispatched(desk.step(after=0.11)) == [("w", "b", 1)]


# -- late, repeated, outdated ---------------------------------------------------------------------------------------


def test_a_repeated_result_is_acknowledged_and_changes_nothing() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("a"), task("b", "a"))))
    desk.ended("w", key)
    fx = desk.ended("w", key, A.FAILED)
    assert sent(fx, cmd.ResultAck) == [cmd.ResultAck(*key)]
    assert not fx.batch
    assert desk.states(key[0])[0, 1] is A.SUCCEEDED


def test_the_result_of_an_attempt_that_was_replaced_changes_nothing() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("a"))))
    desk.link(worker("v"))
    desk.step(ev.PeerDead("w@1"))
    fx = desk.ended("w", key)
    assert sent(fx, cmd.ResultAck) == [cmd.ResultAck(*key)]
    assert desk.states(key[0]) == {(0, 1): A.FAILOVER, (0, 2): A.DISPATCHED}


def test_the_result_from_a_worker_that_the_attempt_is_not_bound_to_changes_nothing() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("a"))))
    desk.link(worker("v"))
    assert not desk.ended("v", key).batch


def test_a_result_twice_in_one_turn_counts_once() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("a"), task("b", "a"))))
    fx = desk.step(desk.end("w", key), desk.end("w", key))
    assert dispatched(fx) == [("w", "b", 1)]


def test_a_start_that_arrives_after_the_end_changes_nothing() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("a"), task("b", "a"))))
    desk.ended("w", key)
    assert not desk.step(desk.started("w", key)).batch
    assert desk.states(key[0])[0, 1] is A.SUCCEEDED


# -- failures and retries -------------------------------------------------------------------------------------------


def test_a_failed_task_is_tried_again_after_its_back_off() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("a", retry=Retry(2, 10.0, 2.0)))))
    for attempt, wait in ((2, 10.0), (3, 20.0)):
        assert dispatched(desk.ended("w", key, A.FAILED)) == []
        assert dispatched(desk.step(after=wait - 0.01)) == []
        fx = desk.step(after=0.02)
        assert dispatched(fx) == [("w", "a", attempt)]
        (key,) = keys(fx)
    desk.ended("w", key, A.FAILED)
    assert desk.state(key[0]) is R.FAILED


def test_a_failover_uses_no_retry() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("a", retry=Retry(1)))))
    for life in range(5):
        name = f"v{life}"
        desk.link(worker(name))
        (key,) = keys(desk.step(ev.PeerDead("w@1" if life == 0 else f"v{life - 1}@1")))
    (key,) = keys(desk.ended("v4", key, A.FAILED))
    assert key[2] == 7
    desk.ended("v4", key)
    assert desk.state(key[0]) is R.SUCCEEDED


def test_a_run_goes_on_around_what_has_failed_and_then_fails() -> None:
    desk = Desk(W)
    first, second = keys(desk.submit(flow(task("a"), task("b"), task("c", "a"), task("d", "b"))))
    assert dispatched(desk.ended("w", first, A.FAILED)) == []
    (third,) = keys(desk.ended("w", second))
    desk.ended("w", third)
    assert desk.state(first[0]) is R.FAILED
    assert desk.states(first[0]) == {(0, 1): A.FAILED, (1, 1): A.SUCCEEDED, (3, 1): A.SUCCEEDED}


def test_on_failure_stop_kills_the_others_and_starts_nothing_new() -> None:
    desk = Desk(worker("w", slots=2))
    workflow = flow(task("a"), task("b"), task("c"), on_failure=OnFailure.STOP)
    first, second = keys(desk.submit(workflow))
    fx = desk.ended("w", first, A.FAILED)
    assert dispatched(fx) == []
    (kill,) = sent(fx, cmd.Kill)
    assert (kill.task, kill.reason) == (1, "task 'a' failed")
    desk.ended("w", second, A.KILLED)
    assert desk.state(first[0]) is R.FAILED
    assert set(desk.states(first[0])) == {(0, 1), (1, 1)}


def test_on_failure_stop_survives_a_failover() -> None:
    desk = Desk(worker("w", slots=2))
    first, second = keys(desk.submit(flow(task("a"), task("b"), task("c"), on_failure=OnFailure.STOP)))
    desk.ended("w", first, A.FAILED)
    successor = Desk(W, name="n", store=desk.store)
    fx = successor.claim()
    assert dispatched(fx) == []
    assert [kill.task for kill in sent(fx, cmd.Kill)] == [1]
    successor.ended("w", second, A.SUCCEEDED)
    assert successor.state(first[0]) is R.FAILED


def test_a_task_that_ends_killed_though_nobody_asked_fails_its_run() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("a"), task("b", "a"))))
    desk.ended("w", key, A.KILLED)
    assert desk.state(key[0]) is R.FAILED


def test_disabled_tasks_in_the_middle_are_seen_through() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("a"), task("off", "a", enabled=False), task("c", "off"))))
    assert dispatched(desk.ended("w", key)) == [("w", "c", 1)]


# -- cancel and its races -------------------------------------------------------------------------------------------


def test_a_cancel_is_durable_before_it_is_answered_and_before_anything_is_killed() -> None:
    desk = Desk(worker("w", slots=1))
    (key,) = keys(desk.submit(flow(task("a"), task("b"))))
    fx = desk.ask(cmd.Cancel(key[0], "no need", 1.5))
    assert fx.batch.runs[key[0]].state is R.READY_STOP
    assert answers(fx) == [cmd.Done(key[0])]
    assert sent(fx, cmd.Kill) == [cmd.Kill(*key, 1, 1.5, "no need")]
    desk.ended("w", key, A.KILLED)
    row = desk.store.runs[key[0]]
    assert (row.state, row.reason) == (R.STOPPED, "no need")
    assert desk.states(key[0]) == {(0, 1): A.KILLED}


def test_cancelling_again_insists_with_the_grace_given_now() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("a"))))
    desk.ask(cmd.Cancel(key[0]))
    fx = desk.ask(cmd.Cancel(key[0], "again", 0.0))
    assert not fx.batch
    assert [(kill.grace, kill.reason) for kill in sent(fx, cmd.Kill)] == [(0.0, "cancelled")]
    assert answers(fx) == [cmd.Done(key[0])]


def test_cancelling_what_is_not_ours_says_so() -> None:
    (answer,) = answers(Desk().ask(cmd.Cancel(7)))
    assert cast(cmd.Failed, answer).code == "not_owner"


def test_a_cancel_in_the_turn_of_the_submit_starts_nothing() -> None:
    desk = Desk(W)
    run_id = desk.start(flow(task("a", group="none")))
    fx = desk.step(
        ev.Received(CLIENT, 5, cmd.Cancel(run_id)),
        ev.LinkUp(worker("v", groups=("none",))),
        desk.said("v", cmd.Credit(4)),
    )
    assert dispatched(fx) == []
    assert desk.state(run_id) is R.STOPPED


def test_a_cancel_before_anything_ran_ends_at_once() -> None:
    desk = Desk()
    run_id = desk.start(flow(task("a")))
    fx = desk.ask(cmd.Cancel(run_id))
    assert answers(fx) == [cmd.Done(run_id)]
    assert desk.state(run_id) is R.STOPPED


def test_a_cancel_that_finds_everything_done_changes_nothing() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("a"))))
    desk.ask(cmd.Cancel(key[0]))
    desk.ended("w", key, A.SUCCEEDED)
    assert desk.state(key[0]) is R.SUCCEEDED


def test_a_cancel_and_the_last_result_in_one_turn_end_in_the_state_the_task_earned() -> None:
    for order in (1, -1):
        desk = Desk(W)
        (key,) = keys(desk.submit(flow(task("a"))))
        events = [ev.Received(CLIENT, 5, cmd.Cancel(key[0])), desk.end("w", key)]
        desk.step(*events[::order])
        assert desk.state(key[0]) is R.SUCCEEDED


def test_a_cancel_holds_back_a_retry() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("a", retry=Retry(3, 10.0)))))
    desk.ended("w", key, A.FAILED)
    desk.ask(cmd.Cancel(key[0]))
    assert desk.state(key[0]) is R.STOPPED
    assert dispatched(desk.step(after=20.0)) == []


@pytest.mark.parametrize("crash", [False, True])
def test_a_failure_during_a_cancel_with_retries_left_is_a_retry_held_back(crash: bool) -> None:
    """Simulation seed 134: it made a difference whether the master crashed."""
    desk = Desk(W)
    first, second = keys(desk.submit(flow(task("a", retry=Retry(3)), task("b"))))
    desk.ask(cmd.Cancel(first[0]))
    desk.ended("w", first, A.FAILED)
    if crash:
        desk = desk.successor(W)
    desk.ended("w", second)
    assert desk.state(first[0]) is R.STOPPED


def test_a_cancel_ends_what_was_refused_and_waits() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("a"))))
    desk.hears("w", cmd.Refused(*key, "no memory", True))
    desk.ask(cmd.Cancel(key[0]))
    assert desk.states(key[0]) == {(0, 1): A.KILLED}
    assert desk.state(key[0]) is R.STOPPED
    assert desk.step(after=60.0).wake_at is None


def test_a_refusal_during_a_cancel_ends_the_attempt() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("a"))))
    desk.ask(cmd.Cancel(key[0]))
    desk.hears("w", cmd.Refused(*key, "draining"))
    assert desk.states(key[0]) == {(0, 1): A.KILLED}
    assert desk.state(key[0]) is R.STOPPED


def test_a_kill_of_what_the_worker_does_not_know_ends_the_attempt() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("a"))))
    desk.ask(cmd.Cancel(key[0]))
    assert not desk.hears("w", cmd.KillAnswer(*key, True)).batch
    desk.hears("w", cmd.KillAnswer(*key, False))
    assert desk.states(key[0]) == {(0, 1): A.KILLED}
    assert desk.state(key[0]) is R.STOPPED


def test_a_worker_that_dies_during_a_cancel_ends_the_run_stopped() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("a"))))
    desk.ask(cmd.Cancel(key[0]))
    desk.step(ev.PeerDead("w@1"))
    assert desk.states(key[0]) == {(0, 1): A.FAILOVER}
    assert desk.state(key[0]) is R.STOPPED


def test_a_cancel_survives_a_failover_and_its_kills_are_sent_anew() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("a"), task("b", "a"))))
    desk.ask(cmd.Cancel(key[0], "enough"))
    successor = Desk(W, name="n", store=desk.store)
    fx = successor.claim()
    assert [(kill.epoch, kill.reason) for kill in sent(fx, cmd.Kill)] == [(2, "enough")]
    successor.ended("w", key, A.KILLED)
    assert successor.state(key[0]) is R.STOPPED


def test_killed_in_the_queue_of_a_worker_is_ended_now_and_not_in_1970() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("a"))))
    desk.ask(cmd.Cancel(key[0]))
    desk.ended("w", key, A.KILLED, ended_at=0.0)
    assert desk.rows(key[0])[0, 1].ended_at == WALL + desk.now


def test_another_master_that_asks_whether_the_store_answers_us_is_answered_by_who_can_ask_it() -> None:
    fx = Desk().step(ev.Received("n@1", 9, cmd.Probe()))
    assert fx.probes == [("n@1", 9)]
    assert not fx.sends


# -- watches --------------------------------------------------------------------------------------------------------


def test_who_watches_a_run_is_told_of_its_end_in_the_turn_that_writes_it() -> None:
    desk = Desk(W)
    run_id = desk.start(flow(task("a"), task("b", "a")))
    assert not answers(desk.ask(cmd.Watch(run_id)))
    fx = desk.step(ev.Received("other@1", 7, cmd.Watch(run_id)), desk.end("w", (run_id, 0, 1)))
    assert not sent(fx, cmd.Ended)
    fx = desk.ended("w", (run_id, 1, 1))
    assert fx.batch.runs[run_id].state is R.SUCCEEDED
    told = [(peer, request_id) for peer, request_id, command in fx.sends if command == cmd.Ended(run_id)]
    assert told == [(CLIENT, 5), ("other@1", 7)]
    assert not desk.core.watchers


def test_a_watch_of_a_run_that_is_not_here_is_refused_at_once() -> None:
    desk = Desk(W)
    run_id = desk.start(flow(task("a")))
    desk.ended("w", (run_id, 0, 1))
    (answer,) = answers(desk.ask(cmd.Watch(run_id)))
    assert isinstance(answer, cmd.Failed)
    assert answer.code == "not_owner"


def test_who_watches_a_run_that_another_master_takes_is_told_to_look_there() -> None:
    desk = Desk(W)
    run_id = desk.start(flow(task("a")))
    desk.ask(cmd.Watch(run_id))
    (answer,) = answers(desk.step(ev.RunsLost({run_id: 1})))
    assert isinstance(answer, cmd.Failed)
    assert answer.code == "not_owner"
    assert not desk.core.watchers


def test_who_is_gone_watches_no_longer() -> None:
    desk = Desk(W)
    run_id = desk.start(flow(task("a")))
    desk.ask(cmd.Watch(run_id))
    desk.step(ev.LinkDown(CLIENT, "gone"))
    assert not desk.core.watchers
    assert not answers(desk.ended("w", (run_id, 0, 1)))


def test_who_watches_is_told_when_nobody_can_continue_the_run() -> None:
    desk = Desk(W)
    run_id = desk.start(flow(task("a")))
    desk.ask(cmd.Watch(run_id))
    owned = desk.store.claim("n@1", set(), lambda run: True)
    fx = desk.step(ev.Claimed(owned, {run_id: "a bug"}))
    assert answers(fx) == [cmd.Ended(run_id)]
