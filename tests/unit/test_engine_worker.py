"""The worker engine, case by case: what it holds, whom it obeys, what it says and when it forgets."""

from __future__ import annotations

import pytest

from dsfast.engine import events as ev
from dsfast.engine.fence import RECHECK_SECONDS, UNSURE_SECONDS
from dsfast.engine.worker import TIMEOUT_GRACE_SECONDS
from dsfast.model import AttemptState, Member, Outcome
from dsfast.wire import commands as cmd
from tests.engine_kit import WALL, Bench, execute, positions, sent

A = AttemptState
KEY = (1, 0, 1)


def kill(key: cmd.Attempt = KEY, epoch: int = 1, grace: float = 3.0, reason: str = "cancelled") -> cmd.Kill:
    return cmd.Kill(*key, epoch, grace, reason)


def told(key: cmd.Attempt, state: AttemptState, **how: object) -> cmd.Result:
    return cmd.Result(*key, Outcome(state, **how))  # type: ignore[arg-type]


# -- starting -----------------------------------------------------------------------------------------------------


def test_attempts_start_in_the_order_they_came_while_there_are_slots() -> None:
    bench = Bench("m", slots=2)
    fx = bench.hears("m", execute(1, 0), execute(1, 1), execute(1, 2))
    assert positions(fx.starts) == [0, 1]
    assert positions(bench.ended((1, 0, 1)).starts) == [2]


def test_a_repeated_dispatch_starts_nothing_twice() -> None:
    bench = Bench("m")
    bench.hears("m", execute())
    assert not bench.hears("m", execute()).starts
    assert bench.engine.busy == 1


def test_a_repeated_dispatch_of_what_has_ended_is_answered_with_its_result() -> None:
    bench = Bench("m")
    bench.hears("m", execute())
    bench.ended(KEY, exit_code=0)
    fx = bench.hears("m", execute())
    assert [result.outcome.state for result in sent(fx, cmd.Result)] == [A.SUCCEEDED]
    assert not fx.starts


def test_a_start_is_said_once_on_a_link() -> None:
    bench = Bench("m")
    bench.hears("m", execute())
    assert sent(bench.started(KEY), cmd.Started) == [cmd.Started(*KEY, WALL + bench.now)]
    assert not bench.step(ev.Tick()).sends


def test_a_start_that_is_overtaken_by_its_end_is_not_said() -> None:
    bench = Bench("m")
    bench.hears("m", execute())
    fx = bench.step(ev.AttemptStarted(KEY, WALL), ev.AttemptEnded(KEY, Outcome(A.SUCCEEDED)))
    assert sent(fx, cmd.Started) == []
    assert sent(fx, cmd.Result) == [told(KEY, A.SUCCEEDED)]


def test_a_shortage_gives_the_attempt_back_and_its_slot_free() -> None:
    bench = Bench("m", slots=1)
    bench.hears("m", execute(1, 0), execute(1, 1))
    fx = bench.step(ev.AttemptRefused(KEY, "no memory"))
    assert sent(fx, cmd.Refused) == [cmd.Refused(*KEY, "no memory", retry_here=True)]
    assert positions(fx.starts) == [1]
    assert KEY not in bench.engine.held


def test_a_shortage_of_an_attempt_that_is_being_killed_ends_it() -> None:
    """It holds a slot, and its master waits for its end."""
    bench = Bench("m", slots=1)
    bench.hears("m", execute())
    bench.hears("m", kill())
    fx = bench.step(ev.AttemptRefused(KEY, "no memory"))
    assert sent(fx, cmd.Result) == [told(KEY, A.KILLED, reason="cancelled")]
    assert bench.engine.busy == 0


# -- ending -------------------------------------------------------------------------------------------------------


def test_a_result_is_kept_until_it_is_acknowledged() -> None:
    bench = Bench("m")
    bench.hears("m", execute())
    assert sent(bench.ended(KEY), cmd.Result, to="m")
    assert KEY in bench.engine.held
    bench.hears("m", cmd.ResultAck(*KEY))
    assert not bench.engine.held
    assert not bench.engine.bindings


def test_an_acknowledgement_of_what_still_runs_is_not_believed() -> None:
    bench = Bench("m")
    bench.hears("m", execute())
    bench.hears("m", cmd.ResultAck(*KEY))
    assert KEY in bench.engine.held


def test_an_end_that_nobody_waits_for_changes_nothing() -> None:
    bench = Bench("m")
    assert not bench.ended(KEY).sends


def test_a_result_without_a_link_is_said_when_the_master_asks() -> None:
    bench = Bench("m")
    bench.hears("m", execute())
    bench.unlink("m")
    assert not bench.ended(KEY).sends
    bench.link("m")
    fx = bench.hears("m", cmd.Adopt(((1, 1),), 9))
    assert [type(command) for _, _, command in fx.sends if not isinstance(command, cmd.Credit)] == [
        cmd.Result,
        cmd.Holding,
    ]
    assert sent(fx, cmd.Holding) == [cmd.Holding((1,), (KEY,), 9)]


# -- epochs: whom it obeys ------------------------------------------------------------------------------------------


def test_a_dispatch_under_an_outdated_epoch_starts_nothing_and_is_answered() -> None:
    bench = Bench("old", "new")
    bench.hears("new", execute(1, 0, epoch=2))
    fx = bench.hears("old", execute(1, 1, epoch=1))
    assert not fx.starts
    assert sent(fx, cmd.Deposed, to="old") == [cmd.Deposed(1, 2)]
    assert bench.engine.refused_commands == 1


def test_an_epoch_is_remembered_of_runs_of_which_nothing_is_held() -> None:
    """A dispatch of the former owner may still be on its way when the new one asks."""
    bench = Bench("old", "new")
    bench.hears("new", cmd.Adopt(((1, 2),)))
    assert not bench.hears("old", execute(1, 0, epoch=1)).starts


def test_an_epoch_is_remembered_from_a_kill_and_after_the_last_attempt_is_gone() -> None:
    bench = Bench("old", "new")
    bench.hears("new", kill(epoch=3))
    assert not bench.hears("old", execute(1, 0, epoch=2)).starts
    bench.hears("new", execute(1, 1, epoch=3))
    bench.ended((1, 1, 1))
    bench.hears("new", cmd.ResultAck(1, 1, 1))
    assert not bench.hears("old", execute(1, 0, epoch=2)).starts


def test_a_kill_under_an_outdated_epoch_kills_nothing() -> None:
    bench = Bench("old", "new")
    bench.hears("new", execute(epoch=2))
    fx = bench.hears("old", kill(epoch=1))
    assert not fx.kills
    assert sent(fx, cmd.KillAnswer) == []


def test_who_takes_a_run_over_is_told_what_is_held_of_it_and_the_former_owner_that_it_is_deposed() -> None:
    bench = Bench("old", "new")
    bench.hears("old", execute(1, 0), execute(1, 1), execute(2, 0))
    bench.started(KEY)
    bench.ended((1, 1, 1))
    fx = bench.hears("new", cmd.Adopt(((1, 2),), 4))
    assert sent(fx, cmd.Started, to="new") == [cmd.Started(*KEY, WALL + bench.now)]
    assert sent(fx, cmd.Result, to="new") == [told((1, 1, 1), A.SUCCEEDED, ended_at=WALL + bench.now)]
    assert sent(fx, cmd.Holding, to="new") == [cmd.Holding((1,), (KEY, (1, 1, 1)), 4)]
    assert sent(fx, cmd.Deposed, to="old") == [cmd.Deposed(1, 2)]


def test_after_a_takeover_ends_are_told_to_the_new_owner_only() -> None:
    bench = Bench("old", "new")
    bench.hears("old", execute())
    bench.hears("new", cmd.Adopt(((1, 2),)))
    fx = bench.ended(KEY)
    assert sent(fx, cmd.Result, to="new")
    assert not sent(fx, cmd.Result, to="old")


def test_a_run_that_is_not_admitted_is_not_in_the_answer() -> None:
    bench = Bench("old", "new")
    bench.hears("new", execute(epoch=2))
    fx = bench.hears("old", cmd.Adopt(((1, 1), (7, 1)), 3))
    assert sent(fx, cmd.Holding) == [cmd.Holding((7,), (), 3)]
    assert sent(fx, cmd.Deposed) == [cmd.Deposed(1, 2)]


def test_what_is_held_for_a_master_that_is_gone_is_shown_to_whoever_asks() -> None:
    bench = Bench("gone")
    bench.hears("gone", execute())
    bench.unlink("gone")
    bench.link("m")
    fx = bench.hears("m", cmd.Adopt((), 1))
    assert sent(fx, cmd.Holding) == [cmd.Holding((), (), 1), cmd.Holding((), (KEY,))]


def test_what_runs_for_another_linked_master_is_not_shown_but_what_that_one_leaves_unacknowledged_is() -> None:
    """Simulation seed 23593: that one had lost the run, and who had won it ended it without a link to us."""
    bench = Bench("owner", "m")
    bench.hears("owner", execute())
    assert sent(bench.hears("m", cmd.Adopt((), 1)), cmd.Holding) == [cmd.Holding((), (), 1)]
    bench.ended(KEY)
    assert sent(bench.hears("m", cmd.Adopt((), 2)), cmd.Holding) == [cmd.Holding((), (), 2), cmd.Holding((), (KEY,))]


# -- kills ----------------------------------------------------------------------------------------------------------


def test_killing_a_queued_attempt_ends_it_at_once() -> None:
    bench = Bench("m", slots=1)
    bench.hears("m", execute(1, 0), execute(1, 1))
    fx = bench.hears("m", kill((1, 1, 1)))
    assert sent(fx, cmd.KillAnswer) == [cmd.KillAnswer(1, 1, 1, True)]
    assert sent(fx, cmd.Result) == [told((1, 1, 1), A.KILLED, reason="cancelled")]
    assert not fx.kills


def test_killing_a_running_attempt_ends_it_when_its_processes_are_gone() -> None:
    bench = Bench("m")
    bench.hears("m", execute())
    bench.started(KEY)
    fx = bench.hears("m", kill())
    assert [(order.key, order.grace, order.reason) for order in fx.kills] == [(KEY, 3.0, "cancelled")]
    assert not sent(fx, cmd.Result)
    fx = bench.ended(KEY, A.KILLED, exit_code=-15)
    assert [result.outcome.state for result in sent(fx, cmd.Result)] == [A.KILLED]


def test_killing_what_has_ended_says_the_result_again() -> None:
    bench = Bench("m")
    bench.hears("m", execute())
    bench.ended(KEY)
    fx = bench.hears("m", kill())
    assert sent(fx, cmd.KillAnswer) == [cmd.KillAnswer(*KEY, True)]
    assert [result.outcome.state for result in sent(fx, cmd.Result)] == [A.SUCCEEDED]


def test_killing_what_is_not_held_is_answered_so() -> None:
    assert sent(Bench("m").hears("m", kill()), cmd.KillAnswer) == [cmd.KillAnswer(*KEY, False)]


def test_a_kill_may_be_repeated_with_less_grace_and_the_first_reason_stays() -> None:
    bench = Bench("m")
    bench.hears("m", execute())
    bench.hears("m", kill(reason="first"))
    fx = bench.hears("m", kill(grace=0.0, reason="second"))
    assert [(order.grace, order.reason) for order in fx.kills] == [(0.0, "first")]
    fx = bench.ended(KEY, A.KILLED)
    assert sent(fx, cmd.Result)[0].outcome.reason == "first"


def test_an_attempt_that_finishes_while_it_is_killed_has_finished() -> None:
    bench = Bench("m")
    bench.hears("m", execute())
    bench.hears("m", kill())
    assert sent(bench.ended(KEY), cmd.Result)[0].outcome.state is A.SUCCEEDED


# -- timeouts -------------------------------------------------------------------------------------------------------


def test_an_attempt_that_uses_up_its_time_fails() -> None:
    bench = Bench("m")
    bench.hears("m", execute())
    assert bench.started(KEY, timeout=2.0).wake_at == pytest.approx(bench.now + 2.0)
    assert not bench.step(after=1.9).kills
    fx = bench.step(after=0.11)
    assert [(order.key, order.grace) for order in fx.kills] == [(KEY, TIMEOUT_GRACE_SECONDS)]
    outcome = sent(bench.ended(KEY, A.KILLED, exit_code=-15), cmd.Result)[0].outcome
    assert (outcome.state, outcome.reason, outcome.exit_code) == (A.FAILED, "timed out after 2 s", -15)


def test_a_timeout_is_forgotten_with_the_attempt() -> None:
    bench = Bench("m")
    bench.hears("m", execute())
    bench.started(KEY, timeout=2.0)
    assert bench.ended(KEY).wake_at is None
    assert not bench.step(after=3.0).kills


def test_a_timeout_does_not_change_the_reason_of_a_kill() -> None:
    bench = Bench("m")
    bench.hears("m", execute())
    bench.started(KEY, timeout=2.0)
    bench.hears("m", kill(grace=60.0))
    assert not bench.step(after=3.0).kills
    assert sent(bench.ended(KEY, A.KILLED), cmd.Result)[0].outcome.state is A.KILLED


# -- drain and stop -------------------------------------------------------------------------------------------------


def test_a_draining_worker_gives_back_what_has_not_started_and_takes_nothing() -> None:
    bench = Bench("m", slots=1)
    bench.hears("m", execute(1, 0), execute(1, 1))
    fx = bench.step(ev.Drain())
    assert [type(command) for _, _, command in fx.sends] == [cmd.Draining, cmd.Refused]
    fx = bench.hears("m", execute(1, 2))
    assert [(c.task, c.retry_here) for c in sent(fx, cmd.Refused)] == [(2, False)]
    assert not fx.idle


def test_a_draining_worker_is_done_when_the_last_result_is_acknowledged() -> None:
    bench = Bench("m")
    bench.hears("m", execute())
    bench.step(ev.Drain())
    assert not bench.ended(KEY).idle
    assert bench.hears("m", cmd.ResultAck(*KEY)).idle


def test_masters_that_link_to_a_draining_worker_are_told() -> None:
    bench = Bench()
    bench.step(ev.Drain())
    assert sent(bench.link("m"), cmd.Draining) == [cmd.Draining()]


def test_a_stop_loses_what_runs_and_uses_up_no_retry() -> None:
    bench = Bench("m", slots=1)
    bench.hears("m", execute(1, 0), execute(1, 1))
    fx = bench.step(ev.Stop(grace=1.5))
    assert [(order.key, order.grace) for order in fx.kills] == [(KEY, 1.5)]
    assert [refused.task for refused in sent(fx, cmd.Refused)] == [1]
    outcome = sent(bench.ended(KEY, A.KILLED), cmd.Result)[0].outcome
    assert (outcome.state, outcome.reason) == (A.FAILOVER, "its worker is stopping")


def test_a_stop_does_not_change_what_a_kill_was_for() -> None:
    bench = Bench("m")
    bench.hears("m", execute())
    bench.hears("m", kill())
    bench.step(ev.Stop(grace=0.0))
    assert sent(bench.ended(KEY, A.KILLED), cmd.Result)[0].outcome.state is A.KILLED


def test_a_stopped_worker_without_work_is_idle() -> None:
    assert Bench("m").step(ev.Stop()).idle


# -- the fence: neither registry nor link ------------------------------------------------------------------------------


def lost() -> ev.SessionChanged:
    return ev.SessionChanged("lost")


def test_a_worker_without_lease_and_link_ends_what_it_runs_before_it_is_replaced() -> None:
    for order in ("link first", "lease first"):
        bench = Bench("m", slots=1)
        bench.hears("m", execute(1, 0), execute(1, 1))
        if order == "link first":
            assert not bench.unlink("m").kills
            fx = bench.step(lost())
        else:
            assert not bench.step(lost()).kills
            fx = bench.unlink("m")
        assert [(kill.key, kill.grace) for kill in fx.kills] == [(KEY, 0.0)], order
        assert not bench.ended(KEY, A.KILLED).starts
        fx = bench.step(ev.LinkUp(Member("master", "m", "1")), ev.Received("m@1", 0, cmd.Adopt(((1, 1),), 1)))
        assert [result.outcome.state for result in sent(fx, cmd.Result)] == [A.FAILOVER, A.FAILOVER]


def test_a_worker_without_lease_goes_on_for_masters_that_are_linked() -> None:
    bench = Bench("near", "far")
    bench.hears("near", execute(1, 0))
    bench.hears("far", execute(2, 0))
    bench.step(lost())
    assert [kill.key for kill in bench.unlink("far").kills] == [(2, 0, 1)]


def test_a_worker_without_lease_has_its_masters_make_sure_of_what_it_runs() -> None:
    bench = Bench("m", "idle")
    bench.hears("m", execute(1, 0), execute(2, 0))
    fx = bench.step(lost())
    assert sent(fx, cmd.Recheck, to="m") == [cmd.Recheck((1, 2), bench.now)]
    assert sent(fx, cmd.Recheck, to="idle") == []
    assert sent(bench.step(after=RECHECK_SECONDS), cmd.Recheck) == [cmd.Recheck((1, 2), bench.now)]
    assert [kill.key for kill in bench.hears("m", cmd.Disown(1)).kills] == [KEY]
    assert bench.step(ev.SessionChanged("connected")).wake_at is None
    assert not bench.hears("m", cmd.Disown(2)).kills


def shown(*masters: str) -> ev.Members:
    """What the registry shows."""
    return ev.Members(tuple(Member("master", name, "1", name, 1) for name in masters))


def test_what_no_master_can_make_sure_of_is_ended_if_another_master_is_out_of_reach() -> None:
    """That one may have taken it over: the owner and this worker may be cut off together from store and registry."""
    bench = Bench("m", "n")
    bench.step(shown("m", "n"))
    bench.hears("m", execute())
    bench.unlink("n")
    assert not bench.step(lost()).kills
    assert not bench.step(after=UNSURE_SECONDS - 0.1).kills
    assert [kill.key for kill in bench.step(after=0.1).kills] == [KEY]


def test_an_owner_that_makes_sure_keeps_its_tasks_running() -> None:
    bench = Bench("m")
    bench.step(shown("m", "n"))
    bench.hears("m", execute(1, 0), execute(2, 0))
    (question,) = sent(bench.step(lost()), cmd.Recheck)
    for _ in range(10):
        assert [kill.key for kill in bench.hears("m", cmd.Owned(1, question.asked_at)).kills if kill.key == KEY] == []
        (question,) = sent(bench.step(after=RECHECK_SECONDS), cmd.Recheck)
    assert bench.engine.held[KEY].phase.value == "running"
    assert bench.engine.held[2, 0, 1].phase.value == "killing"


def test_an_answer_counts_from_when_it_was_asked_for() -> None:
    """It may have waited for a store, or with a master that stood still: by now another may own the run."""
    bench = Bench("m")
    bench.step(shown("m", "n"))
    bench.hears("m", execute())
    (question,) = sent(bench.step(lost()), cmd.Recheck)
    bench.hears("m", cmd.Owned(1, question.asked_at))
    bench.step(after=2.0)
    bench.hears("m", cmd.Owned(1, question.asked_at), cmd.Owned(1, bench.now + 100))
    assert [kill.key for kill in bench.step(after=RECHECK_SECONDS).kills] == [KEY]


def test_as_long_as_all_masters_are_linked_nothing_ends_though_nobody_can_make_sure() -> None:
    """Whoever takes a run over would say so: registry and store are down for all, for as long as it takes."""
    bench = Bench("m", "n")
    bench.step(shown("m", "n"))
    bench.hears("m", execute())
    bench.step(lost())
    for _ in range(100):
        assert not bench.step(after=RECHECK_SECONDS).kills
    bench.unlink("n")
    assert [kill.key for kill in bench.step(after=3.0).kills] == [KEY]


def test_a_run_that_is_disowned_runs_on_for_its_time_unless_it_is_adopted() -> None:
    bench = Bench("m", "n")
    bench.hears("m", execute())
    bench.step(ev.AttemptStarted(KEY, 1.0, None, 30.0))
    bench.step(lost())
    assert not bench.hears("m", cmd.Disown(1)).kills
    assert not bench.step(after=20.0).kills
    bench.hears("n", cmd.Adopt(((1, 2),), 1))
    assert not bench.step(after=20.0).kills


def test_only_the_master_that_a_run_is_bound_to_can_disown_it() -> None:
    bench = Bench("m", "other")
    bench.hears("m", execute())
    bench.step(lost())
    assert not bench.hears("other", cmd.Disown(1)).kills


def test_a_hiccup_of_the_registry_ends_nothing() -> None:
    bench = Bench("m")
    bench.hears("m", execute())
    bench.unlink("m")
    assert not bench.step(ev.SessionChanged("suspended")).kills
    assert not bench.step(ev.SessionChanged("connected")).kills


def test_a_worker_that_is_listed_again_outlives_its_links() -> None:
    bench = Bench("m")
    bench.hears("m", execute())
    bench.step(lost())
    bench.step(ev.SessionChanged("connected"))
    assert not bench.unlink("m").kills


# -- credit ---------------------------------------------------------------------------------------------------------


def test_a_master_that_links_is_granted_credit() -> None:
    assert sent(Bench(slots=3).link("m"), cmd.Credit) == [cmd.Credit(3)]


def test_short_attempts_raise_the_credit_long_ones_do_not() -> None:
    bench = Bench("m", slots=2)
    bench.hears("m", execute(1, 0))
    long = bench.step(ev.AttemptEnded((1, 0, 1), Outcome(A.SUCCEEDED)), after=30.0)
    assert not sent(long, cmd.Credit)
    for number in range(1, 60):
        bench.hears("m", execute(1, number))
        bench.ended((1, number, 1))
    assert bench.engine.masters["m@1"].limit > 100


def test_demand_moves_credit_between_masters() -> None:
    bench = Bench("idle", "busy", slots=8)
    fx = bench.hears("busy", cmd.Demand(True))
    assert sent(fx, cmd.Credit, to="busy") == [cmd.Credit(8)]
    fx = bench.hears("busy", cmd.Demand(False))
    assert sent(fx, cmd.Credit, to="busy") == [cmd.Credit(4)]


def test_commands_that_are_not_for_workers_are_ignored() -> None:
    assert not Bench("m").hears("m", cmd.Draining()).sends


def test_a_link_to_a_client_is_no_masters_link() -> None:
    bench = Bench()
    assert not bench.step(ev.LinkUp(bench.me)).sends
    assert not bench.engine.masters
