"""Dispatch: groups do not delay one another, refusals are met with patience, and nobody waits for ever."""

from __future__ import annotations

import pytest

from dsfast.engine import events as ev
from dsfast.engine.dispatch import BACKOFF_SECONDS, BACKOFF_SECONDS_MAX, DISPATCH_TRIES, RETRY_HERE_SECONDS
from dsfast.engine.effects import MasterEffects
from dsfast.model import AttemptState, Priority, Task
from dsfast.wire import commands as cmd
from tests.engine_kit import Desk, dispatched, flow, keys, sent, task, worker

A = AttemptState


def refuse(desk: Desk, name: str, key: cmd.Attempt, *, retry_here: bool = True) -> MasterEffects:
    return desk.hears(name, cmd.Refused(*key, "no memory", retry_here))


def many(count: int, **traits: object) -> tuple[Task, ...]:
    return tuple(task(f"t{number}", **traits) for number in range(count))


# -- groups and credit ----------------------------------------------------------------------------------------------


def test_tasks_go_out_while_there_is_credit_and_the_rest_follows_as_it_comes_back() -> None:
    desk = Desk(worker("w", slots=2))
    fx = desk.submit(flow(*many(4)))
    assert dispatched(fx) == [("w", "t0", 1), ("w", "t1", 1)]
    assert dispatched(desk.ended("w", keys(fx)[0])) == [("w", "t2", 1)]


def test_a_group_without_workers_delays_nobody() -> None:
    desk = Desk(worker("w"))
    desk.start(flow(*many(3, group="gpu", priority=Priority.HIGHEST)))
    assert dispatched(desk.submit(flow(task("easy", priority=Priority.LOWEST)))) == [("w", "easy", 1)]


def test_tasks_go_to_workers_of_their_group_only() -> None:
    desk = Desk(worker("cpu"), worker("gpu", groups=("gpu",)))
    fx = desk.submit(flow(*many(2, group="gpu"), task("plain")))
    assert sorted(dispatched(fx)) == [("cpu", "plain", 1), ("gpu", "t0", 1), ("gpu", "t1", 1)]


def test_tasks_that_waited_for_a_group_go_out_when_its_first_worker_comes() -> None:
    desk = Desk()
    desk.start(flow(*many(2, group="gpu")))
    assert len(dispatched(desk.link(worker("gpu", groups=("gpu",))))) == 2


def test_nothing_goes_to_a_worker_that_drains_or_has_no_link() -> None:
    desk = Desk(worker("w"), worker("v"))
    desk.hears("w", cmd.Draining())
    desk.unlink("v")
    assert dispatched(desk.submit(flow(task("t")))) == []


def test_free_slots_come_before_sending_ahead() -> None:
    desk = Desk()
    desk.link(worker("short", slots=1), credit=100)
    desk.link(worker("other", slots=1), credit=100)
    fx = desk.submit(flow(*many(2)))
    assert {name for name, _, _ in dispatched(fx)} == {"short", "other"}
    fx = desk.submit(flow(*many(10)))
    assert len(dispatched(fx)) == 10


def test_the_older_of_two_heads_is_served_first_by_a_worker_of_both_groups() -> None:
    """Otherwise a group whose queue never empties would starve the others on the workers they share."""
    desk = Desk(worker("w", slots=1, groups=("first", "second")))
    (busy,) = keys(desk.submit(flow(task("busy", group="first"))))
    desk.now += 1.0
    desk.start(flow(task("old", group="second")))
    desk.now += 1.0
    desk.start(flow(task("young", group="first")))
    assert dispatched(desk.ended("w", busy)) == [("w", "old", 1)]


def test_demand_is_told_when_tasks_begin_and_cease_to_wait() -> None:
    desk = Desk(worker("w", slots=1), worker("gpu", groups=("gpu",)))
    fx = desk.submit(flow(*many(2)))
    assert sent(fx, cmd.Demand, to="w") == [cmd.Demand(True)]
    assert sent(fx, cmd.Demand, to="gpu") == []
    fx = desk.ended("w", keys(fx)[0])
    assert sent(fx, cmd.Demand, to="w") == [cmd.Demand(False)]
    assert sent(desk.step(), cmd.Demand) == []


# -- refusals -------------------------------------------------------------------------------------------------------


def test_a_refused_task_is_tried_three_times_on_one_worker_then_on_the_next() -> None:
    desk = Desk(worker("v"), worker("w"))
    fx = desk.submit(flow(task("t")))
    ((first, _, _),), (key,) = dispatched(fx), keys(fx)
    other = {"v": "w", "w": "v"}[first]
    for _ in range(DISPATCH_TRIES - 1):
        assert dispatched(refuse(desk, first, key)) == []
        assert dispatched(desk.step(after=RETRY_HERE_SECONDS)) == [(first, "t", 1)]
    assert dispatched(refuse(desk, first, key)) == [(other, "t", 1)]


def test_a_task_that_a_whole_group_refuses_waits_longer_and_longer() -> None:
    desk = Desk(worker("w"))
    (key,) = keys(desk.submit(flow(task("t"))))
    for wait in (1, 2, 4, 8, 16, 32, BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_MAX):
        assert dispatched(refuse(desk, "w", key, retry_here=False)) == []
        assert dispatched(desk.step(after=wait * BACKOFF_SECONDS - 0.01)) == []
        assert dispatched(desk.step(after=0.02)) == [("w", "t", 1)]


def test_a_worker_that_refuses_for_good_is_not_tried_again_first() -> None:
    desk = Desk(worker("v"), worker("w"))
    fx = desk.submit(flow(task("t")))
    ((first, _, _),), (key,) = dispatched(fx), keys(fx)
    ((second, _, _),) = dispatched(refuse(desk, first, key, retry_here=False))
    assert {first, second} == {"v", "w"}


def test_tasks_behind_a_refused_one_go_on() -> None:
    desk = Desk(worker("w", slots=1))
    (key,) = keys(desk.submit(flow(*many(3))))
    assert dispatched(refuse(desk, "w", key)) == [("w", "t1", 1)]


def test_a_refused_attempt_keeps_its_number_and_becomes_no_row_of_its_own() -> None:
    desk = Desk(worker("w"))
    fx = desk.submit(flow(task("t")))
    (key,) = keys(fx)
    refuse(desk, "w", key)
    desk.step(after=RETRY_HERE_SECONDS)
    assert [(row.state, row.reason) for row in desk.rows(key[0]).values()] == [(A.DISPATCHED, "")]
    desk.ended("w", key)
    assert desk.states(key[0]) == {(0, 1): A.SUCCEEDED}


def test_a_task_is_not_stuck_when_the_only_worker_that_did_not_refuse_it_goes() -> None:
    """It was refused three times by v, waits for room at w, and w dies."""
    desk = Desk(worker("v", slots=1))
    (key,) = keys(desk.submit(flow(task("t"))))
    desk.link(worker("w", slots=1), credit=0)
    for _ in range(DISPATCH_TRIES):
        refuse(desk, "v", key)
        desk.step(after=RETRY_HERE_SECONDS)
    assert desk.core.dispatcher.group("default").queue.waiting(key[0]) == 1
    assert dispatched(desk.step(ev.PeerDead("w@1"))) == [("v", "t", 1)]


def test_what_was_refused_is_forgotten_when_the_task_has_ended() -> None:
    desk = Desk(worker("w"))
    (key,) = keys(desk.submit(flow(task("t"), task("u", "t"))))
    refuse(desk, "w", key)
    desk.step(after=RETRY_HERE_SECONDS)
    assert desk.core.dispatcher.refusals
    desk.ended("w", key)
    assert not desk.core.dispatcher.refusals


def test_what_was_refused_is_forgotten_with_the_run() -> None:
    desk = Desk(worker("w"))
    (key,) = keys(desk.submit(flow(task("t"))))
    refuse(desk, "w", key)
    desk.ask(cmd.Cancel(key[0]))
    assert not desk.core.dispatcher.refusals
    assert desk.step(after=100.0).wake_at is None


@pytest.mark.parametrize("name", ["w", "stranger"])
def test_a_refusal_of_what_is_not_there_changes_nothing(name: str) -> None:
    desk = Desk(worker("w"))
    assert not refuse(desk, name, (1, 2, 3)).batch
