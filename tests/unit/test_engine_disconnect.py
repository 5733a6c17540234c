"""`on_disconnect`: how long a worker nobody can see runs on with a task, and when masters start it elsewhere."""

from __future__ import annotations

import msgspec
import pytest

from dsfast.engine import events as ev
from dsfast.engine.effects import KillOrder, MasterEffects
from dsfast.model import AttemptState, OnDisconnect, Outcome, RunState
from dsfast.wire import commands as cmd
from tests.engine_kit import WALL, Bench, Desk, answers, dispatched, execute, flow, keys, sent, task, worker

A, R = AttemptState, RunState
W, V = worker("w", slots=1), worker("v")
KEY = (1, 0, 1)
LOST, CONNECTED = ev.SessionChanged("lost"), ev.SessionChanged("connected")
AGAIN = msgspec.structs.replace(W, boot="2")  # another life of the worker w


def vanish(desk: Desk) -> MasterEffects:
    """The worker w has neither link nor lease any more; v is there to replace it."""
    desk.unlink("w")
    desk.leave("w")
    return desk.link(V)


def begin_again(desk: Desk) -> MasterEffects:
    """Another life of w is there."""
    desk.join(AGAIN)
    return desk.step(ev.LinkUp(AGAIN), ev.Received(AGAIN.id, 0, cmd.Credit(1)))


def running(runs_on: float | None) -> Bench:
    """A worker that runs one attempt, bound to the master m."""
    bench = Bench("m")
    bench.hears("m", execute())
    bench.step(ev.AttemptStarted(KEY, WALL, None, runs_on))
    return bench


# -- masters wait ------------------------------------------------------------------------------------------------------


def test_without_a_word_an_attempt_is_replaced_once_its_worker_has_had_time_to_end_it() -> None:
    desk = Desk(W)
    desk.start(flow(task("t")))
    vanish(desk)
    absent = desk.core.settings.absent_seconds
    assert not dispatched(desk.step(after=absent - 0.1))
    assert dispatched(desk.step(after=0.2)) == [("v", "t", 2)]


def test_the_wait_is_never_shorter_than_what_the_worker_may_run_on() -> None:
    desk = Desk(W)
    desk.start(flow(task("t", on_disconnect=OnDisconnect(stop_after=60.0, replace_after=1.0))))
    vanish(desk)
    absent = desk.core.settings.absent_seconds
    assert not dispatched(desk.step(after=absent))
    assert not dispatched(desk.step(after=59.9))
    assert dispatched(desk.step(after=0.2)) == [("v", "t", 2)]


def test_a_longer_wait_is_kept() -> None:
    desk = Desk(W)
    desk.start(flow(task("t", on_disconnect=OnDisconnect(replace_after=300.0))))
    vanish(desk)
    assert not dispatched(desk.step(after=299.9))
    assert dispatched(desk.step(after=0.2)) == [("v", "t", 2)]


def test_tasks_of_one_worker_wait_each_its_own_time() -> None:
    desk = Desk(worker("w", slots=3))
    times = {"soon": OnDisconnect(), "later": OnDisconnect(replace_after=100.0), "never": OnDisconnect(replace=False)}
    desk.start(flow(*(task(name, on_disconnect=policy) for name, policy in times.items())))
    vanish(desk)
    assert dispatched(desk.step(after=desk.core.settings.absent_seconds)) == [("v", "soon", 2)]
    assert dispatched(desk.step(after=100.0)) == [("v", "later", 2)]
    fx = desk.step(after=1e6)
    assert (dispatched(fx), fx.wake_at) == ([], None)


def test_what_must_not_run_twice_waits_for_its_worker_and_takes_its_result() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("t", on_disconnect=OnDisconnect(replace=False)))))
    vanish(desk)
    desk.step(after=1e5)
    desk.link(W)
    desk.ended("w", key)
    assert (desk.state(key[0]), desk.states(key[0])) == (R.SUCCEEDED, {(0, 1): A.SUCCEEDED})


def test_what_must_not_run_twice_is_replaced_once_its_worker_is_known_to_be_dead() -> None:
    desk = Desk(W)
    desk.start(flow(task("t", on_disconnect=OnDisconnect(replace=False))))
    vanish(desk)
    desk.step(after=1e5)
    assert dispatched(desk.step(ev.PeerDead("w@1"))) == [("v", "t", 2)]


def test_another_life_under_its_name_is_proof_that_a_worker_is_dead() -> None:
    """The master that knew it may be dead itself: who takes over has never seen the former life."""
    desk = Desk(W)
    desk.start(flow(task("t", on_disconnect=OnDisconnect(replace=False))))
    vanish(desk)
    other = desk.successor()
    begin_again(other)
    assert not dispatched(other.step(after=other.core.settings.absent_seconds - 1))
    assert dispatched(other.step(after=1.0)) == [("w", "t", 2)]


def test_another_life_that_comes_later_is_proof_as_well() -> None:
    desk = Desk(W)
    desk.start(flow(task("t", on_disconnect=OnDisconnect(replace=False))))
    vanish(desk)
    desk.leave("v")
    desk.unlink("v")
    assert not dispatched(desk.step(after=1e5))
    assert dispatched(begin_again(desk)) == [("w", "t", 2)]


def test_a_successor_waits_as_long_from_its_takeover() -> None:
    desk = Desk(W)
    run_id = desk.start(flow(task("t", on_disconnect=OnDisconnect(stop_after=60.0))))
    vanish(desk)
    desk.step(after=50.0)
    other = desk.successor(V)
    assert other.states(run_id) == {(0, 1): A.DISPATCHED}
    assert not dispatched(other.step(after=60.0))
    assert dispatched(other.step(after=other.core.settings.absent_seconds)) == [("v", "t", 2)]


def test_out_of_contact_with_the_registry_no_worker_is_taken_for_unlisted() -> None:
    """Its last view may be that of a moment at which everybody was missing; others see who is back since."""
    desk = Desk(W)
    desk.start(flow(task("t")))
    desk.leave("w")
    desk.step(ev.SessionChanged("suspended"))
    desk.unlink("w")
    desk.join(V)
    desk.link(V)
    assert not dispatched(desk.step(after=1e5))
    desk.step(ev.SessionChanged("connected"))
    assert not dispatched(desk.step(after=desk.core.settings.absent_seconds - 1))
    assert dispatched(desk.step(after=2.0)) == [("v", "t", 2)]


def test_a_worker_that_comes_back_starts_the_wait_anew() -> None:
    desk = Desk(W)
    desk.start(flow(task("t")))
    vanish(desk)
    desk.step(after=desk.core.settings.absent_seconds - 1)
    desk.join(W)
    desk.leave("w")
    assert not dispatched(desk.step(after=2.0))


@pytest.mark.parametrize("policy", [OnDisconnect(replace=False), OnDisconnect(stop_after=1e4)])
def test_the_cluster_has_a_default_and_a_task_its_own_word(policy: OnDisconnect) -> None:
    desk = Desk(worker("w", slots=2), on_disconnect=policy)
    desk.start(flow(task("careful"), task("bold", on_disconnect=OnDisconnect())))
    vanish(desk)
    assert dispatched(desk.step(after=desk.core.settings.absent_seconds)) == [("v", "bold", 2)]
    assert not dispatched(desk.step(after=100.0))


def test_why_such_a_task_waits_is_said() -> None:
    desk = Desk(W)
    run_id = desk.start(flow(task("t", on_disconnect=OnDisconnect(replace=False))))
    vanish(desk)
    desk.step(after=100.0)
    (explained,) = [c for _, _, c in desk.ask(cmd.Explain(run_id, 10)).sends if isinstance(c, cmd.Explained)]
    assert "out of reach for 100 s" in explained.tasks[0][2]
    assert "not replaced before its worker is back or known to be dead" in explained.tasks[0][2]


# -- workers run on ------------------------------------------------------------------------------------------------


def test_a_task_runs_on_for_its_time_and_is_ended_then() -> None:
    bench = running(30.0)
    bench.unlink("m")
    assert not bench.step(LOST).kills
    assert not bench.step(after=29.9).kills
    (order,) = bench.step(after=0.2).kills
    assert order == KillOrder(KEY, 0.0, "its worker had no lease, and no link to a master that owns the run")


def test_a_task_that_is_never_replaced_runs_on_without_end() -> None:
    bench = running(None)
    bench.unlink("m")
    bench.step(LOST)
    assert not bench.step(after=1e6).kills


def test_a_lease_in_time_lets_it_live() -> None:
    bench = running(30.0)
    bench.unlink("m")
    bench.step(LOST)
    bench.step(CONNECTED, after=29.0)
    assert not bench.step(after=100.0).kills


def test_an_owner_in_time_lets_it_live() -> None:
    bench = running(30.0)
    bench.unlink("m")
    bench.step(LOST)
    bench.step(after=29.0)
    bench.link("n")
    bench.hears("n", cmd.Adopt(((1, 2),), 1))
    assert not bench.step(after=100.0).kills


def test_an_owner_that_disowns_it_does_not() -> None:
    bench = running(30.0)
    bench.step(LOST)
    assert not bench.hears("m", cmd.Disown(1)).kills
    bench.step(after=20.0)
    bench.hears("m", cmd.Disown(1))
    assert [order.key for order in bench.step(after=10.1).kills] == [KEY]


def test_what_a_task_is_granted_counts_from_the_end_of_the_lease_not_from_when_it_was_heard() -> None:
    """Simulation, storm 2002299: the worker had stood still meanwhile."""
    bench = running(30.0)
    bench.unlink("m")
    assert not bench.step(ev.SessionChanged("lost", bench.now + 1.0), after=20.0).kills
    assert bench.engine.patience() == pytest.approx(11.0)
    assert [order.key for order in bench.step(after=11.1).kills] == [KEY]


def test_a_second_loss_begins_a_new_wait() -> None:
    bench = running(30.0)
    bench.unlink("m")
    bench.step(LOST)
    bench.step(CONNECTED, after=29.0)
    bench.step(LOST)
    assert not bench.step(after=29.0).kills
    assert {order.key for order in bench.step(after=1.1).kills} == {KEY}


def test_what_ends_meanwhile_keeps_its_result() -> None:
    bench = running(30.0)
    bench.unlink("m")
    bench.step(LOST)
    bench.ended(KEY)
    assert not bench.step(after=100.0).kills
    bench.link("m")
    fx = bench.hears("m", cmd.Adopt(((1, 1),), 1))
    assert [result.outcome.state for result in sent(fx, cmd.Result)] == [A.SUCCEEDED]


# -- a person's word ---------------------------------------------------------------------------------------------------


def test_a_person_may_vouch_for_the_death_of_a_worker() -> None:
    desk = Desk(W)
    desk.start(flow(task("t", on_disconnect=OnDisconnect(replace=False))))
    vanish(desk)
    fx = desk.ask(cmd.Bury("w"))
    assert answers(fx) == [cmd.Buried(1)]
    assert dispatched(fx) == [("v", "t", 2)]
    assert answers(desk.ask(cmd.Bury("w"))) == [cmd.Buried(0)]


@pytest.mark.parametrize("seen", ["linked", "listed"])
def test_a_worker_that_is_seen_is_not_buried(seen: str) -> None:
    desk = Desk(W)
    run_id = desk.start(flow(task("t", on_disconnect=OnDisconnect(replace=False))))
    if seen == "linked":
        desk.leave("w")
    else:
        desk.unlink("w")
    (answer,) = answers(desk.ask(cmd.Bury("w")))
    assert isinstance(answer, cmd.Failed)
    assert "worker w is alive" in answer.message
    assert desk.states(run_id) == {(0, 1): A.DISPATCHED}


# -- a worker that stood still -----------------------------------------------------------------------------------------


STOOD_STILL = (
    ev.LinkDown("m@1"),
    ev.SessionChanged("lost", 50.0),
    CONNECTED,
)  # what such a worker is told: see worker.py


def test_what_waits_at_a_worker_that_stood_still_never_starts() -> None:
    bench = Bench("m", slots=1)
    for position in range(2):
        bench.hears("m", execute(position=position))
    fx = bench.step(*STOOD_STILL, ev.AttemptEnded(KEY, Outcome(A.SUCCEEDED)), after=60.0)
    assert not fx.starts
    assert not bench.engine.queue


def test_a_patient_task_ends_though_the_lease_is_back_if_its_time_was_over_before() -> None:
    for runs_on, kills in ((30.0, 1), (90.0, 0)):
        assert len(running(runs_on).step(*STOOD_STILL, after=60.0).kills) == kills
