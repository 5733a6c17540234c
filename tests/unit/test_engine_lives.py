"""A worker's former life: its results still count, and nobody is taken for dead before they were heard."""

from __future__ import annotations

import msgspec
import pytest

from dsfast.engine import events as ev
from dsfast.engine.effects import MasterEffects
from dsfast.model import AttemptState, Member, Outcome, RunState
from dsfast.wire import commands as cmd
from tests.engine_kit import WALL, Bench, Desk, dispatched, execute, flow, keys, sent, task, worker

A = AttemptState
DONE = Outcome(A.SUCCEEDED, 0, ended_at=WALL)
FORMER = worker("w")
HEIR = msgspec.structs.replace(FORMER, boot="2")


def result(run_id: int, life: str = FORMER.id) -> cmd.Result:
    return cmd.Result(run_id, 0, 1, DONE, life)


def heir_says(desk: Desk, *commands: cmd.Command) -> MasterEffects:
    return desk.step(*(ev.Received(HEIR.id, 0, command) for command in commands))


def taken_over() -> tuple[Desk, int]:
    """A master that has just taken over a run with an attempt bound to a former life; its heir is in the registry."""
    first = Desk(FORMER)
    run_id = first.start(flow(task("t"), task("u", "t")))
    desk = Desk(name="n", store=first.store)
    desk.now = first.now
    desk.join(HEIR)
    desk.claim()
    return desk, run_id


def answer(desk: Desk, run_id: int) -> cmd.Holding:
    """The heir's answer to the last Adopt: it holds nothing."""
    return cmd.Holding((run_id,), (), desk.core.adopts)


# -- the worker's side ------------------------------------------------------------------------------------------------


def test_a_worker_reports_what_its_former_life_has_left_and_forgets_it_when_acknowledged() -> None:
    bench = Bench()
    bench.engine.recall([(3, result(1, "w@0"))])
    bench.link("m")
    fx = bench.hears("m", cmd.Adopt(((1, 4),), 9))
    assert sent(fx, cmd.Result) == [result(1, "w@0")]
    assert sent(fx, cmd.Holding) == [cmd.Holding((1,), ((1, 0, 1),), 9)]
    fx = bench.hears("m", cmd.ResultAck(1, 0, 1))
    assert fx.forgotten == [(1, 0, 1)]
    assert not bench.engine.held


def test_a_worker_shows_what_its_former_life_has_left_to_masters_that_do_not_own_it() -> None:
    bench = Bench()
    bench.engine.recall([(3, result(1, "w@0"))])
    bench.link("m")
    fx = bench.hears("m", cmd.Adopt((), 9))
    assert cmd.Holding((), ((1, 0, 1),)) in sent(fx, cmd.Holding)


def test_a_master_with_a_lower_epoch_than_the_results_is_deposed() -> None:
    bench = Bench()
    bench.engine.recall([(3, result(1, "w@0"))])
    bench.link("m")
    fx = bench.hears("m", cmd.Adopt(((1, 2),), 9))
    assert sent(fx, cmd.Deposed) == [cmd.Deposed(1, 3)]
    assert sent(fx, cmd.Result) == []


def test_a_result_is_kept_under_its_life_and_epoch() -> None:
    bench = Bench("m")
    bench.hears("m", execute())
    fx = bench.ended((1, 0, 1))
    assert [(epoch, kept.life) for epoch, kept in fx.kept] == [(1, bench.me.id)]
    assert [said.life for said in sent(fx, cmd.Result)] == [""]


# -- the master's side ------------------------------------------------------------------------------------------------


def test_the_result_of_a_former_life_settles_the_attempt_bound_to_it() -> None:
    desk, run_id = taken_over()
    desk.step(ev.LinkUp(HEIR), ev.Received(HEIR.id, 0, cmd.Credit(4)))
    fx = heir_says(desk, result(run_id), answer(desk, run_id))
    assert sent(fx, cmd.ResultAck) == [cmd.ResultAck(run_id, 0, 1)]
    assert dispatched(fx) == [("w", "u", 1)]
    assert desk.core.refused_results == 0


@pytest.mark.parametrize("life", ["x@1", "", "@1", "w"])
def test_nobody_speaks_for_the_lives_of_others(life: str) -> None:
    desk, run_id = taken_over()
    desk.step(ev.LinkUp(HEIR), ev.Received(HEIR.id, 0, cmd.Credit(4)))
    heir_says(desk, result(run_id, life))
    assert desk.core.refused_results == 1
    assert desk.states(run_id) == {(0, 1): A.DISPATCHED}


def test_the_death_of_a_former_life_waits_for_what_its_heir_has_to_say() -> None:
    desk, run_id = taken_over()
    fx = desk.step(ev.PeerDead(FORMER.id))
    assert desk.states(run_id) == {(0, 1): A.DISPATCHED}
    desk.step(ev.LinkUp(HEIR), ev.Received(HEIR.id, 0, cmd.Credit(4)))
    fx = heir_says(desk, result(run_id), answer(desk, run_id))
    assert dispatched(fx) == [("w", "u", 1)]


def test_what_the_heir_does_not_report_has_died_with_the_former_life() -> None:
    desk, run_id = taken_over()
    desk.step(ev.PeerDead(FORMER.id))
    desk.step(ev.LinkUp(HEIR), ev.Received(HEIR.id, 0, cmd.Credit(4)))
    fx = heir_says(desk, answer(desk, run_id))
    assert dispatched(fx) == [("w", "t", 2)]
    assert desk.states(run_id)[0, 1] is A.FAILOVER


def test_an_heir_that_has_spoken_already_is_not_waited_for() -> None:
    desk, run_id = taken_over()
    desk.step(ev.LinkUp(HEIR), ev.Received(HEIR.id, 0, cmd.Credit(4)))
    heir_says(desk, answer(desk, run_id))
    fx = desk.step(ev.PeerDead(FORMER.id))
    assert dispatched(fx) == [("w", "t", 2)]


def test_an_heir_that_never_speaks_is_not_waited_for_without_end() -> None:
    desk, _ = taken_over()
    desk.step(ev.PeerDead(FORMER.id))
    desk.link(worker("x"))
    fx = desk.step(after=desk.core.settings.absent_seconds)
    assert dispatched(fx) == [("x", "t", 2)]


def test_without_an_heir_the_dead_are_buried_at_once() -> None:
    desk = Desk(FORMER)
    run_id = desk.start(flow(task("t")))
    desk.link(worker("x"))
    fx = desk.step(ev.LinkDown(FORMER.id), ev.PeerDead(FORMER.id))
    assert dispatched(fx) == [("x", "t", 2)]
    assert keys(fx) == [(run_id, 0, 2)]


def test_a_late_result_of_a_former_life_changes_nothing_and_is_counted() -> None:
    desk = Desk(FORMER)
    run_id = desk.start(flow(task("t")))
    desk.step(ev.LinkDown(FORMER.id), ev.PeerDead(FORMER.id))
    desk.link(Member("worker", "x", "1", "x", 2, ("default",), 4, 100))
    desk.step(ev.LinkUp(HEIR))
    fx = heir_says(desk, result(run_id))
    assert sent(fx, cmd.ResultAck) == [cmd.ResultAck(run_id, 0, 1)]
    assert desk.core.refused_results == 1
    assert desk.states(run_id) == {(0, 1): A.FAILOVER, (0, 2): A.DISPATCHED}
    assert desk.state(run_id) is RunState.RUNNING
