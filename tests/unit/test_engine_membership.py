"""Links and members: what is asked when a link comes up, who is believed dead, and how runs change hands."""

from __future__ import annotations

import pytest

from dsfast.engine import events as ev
from dsfast.model import AttemptState, Member, RunState
from dsfast.wire import commands as cmd
from tests.engine_kit import Desk, dispatched, flow, keys, sent, task, worker

A, R = AttemptState, RunState
W = worker("w")


def master(name: str) -> Member:
    return Member("master", name, "1", name, 1)


# -- links ----------------------------------------------------------------------------------------------------------


def test_a_worker_whose_link_comes_up_is_asked_about_all_our_runs() -> None:
    desk = Desk(W)
    first, second = desk.start(flow(task("a"))), desk.start(flow(task("b", group="elsewhere")))
    desk.unlink("w")
    (adopt,) = sent(desk.link(W), cmd.Adopt, to="w")
    assert adopt.runs == ((first, 1), (second, 1))


def test_a_link_that_goes_down_changes_nothing_by_itself() -> None:
    desk = Desk(W)
    run_id = desk.start(flow(task("t")))
    assert not desk.unlink("w").batch
    assert desk.states(run_id) == {(0, 1): A.DISPATCHED}


def test_an_attempt_that_never_arrived_is_sent_again_under_its_number() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("t"))))
    desk.unlink("w")
    (adopt,) = sent(desk.link(W), cmd.Adopt)
    fx = desk.hears("w", cmd.Holding((key[0],), (), adopt.serial))
    assert keys(fx) == [key]


def test_an_attempt_that_is_held_stays_where_it_is() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("t"))))
    desk.unlink("w")
    (adopt,) = sent(desk.link(W), cmd.Adopt)
    assert not desk.hears("w", cmd.Holding((key[0],), (key,), adopt.serial)).sends


def test_an_answer_says_nothing_of_what_was_sent_after_the_question() -> None:
    """Simulation seed 279: the first question left on a new link, before the dispatch that its turn also made."""
    desk = Desk(W)
    desk.unlink("w")
    (first,) = sent(desk.link(W), cmd.Adopt)
    (key,) = keys(desk.submit(flow(task("t"))))
    desk.unlink("w")
    (second,) = sent(desk.link(W), cmd.Adopt)
    assert not desk.hears("w", cmd.Holding((key[0],), (), first.serial)).batch
    assert keys(desk.hears("w", cmd.Holding((key[0],), (), second.serial))) == [key]


def test_an_answer_says_nothing_of_what_was_given_back_and_sent_again() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("t"))))
    desk.unlink("w")
    (adopt,) = sent(desk.link(W), cmd.Adopt)
    desk.hears("w", cmd.Refused(*key, "no memory", True))
    assert keys(desk.step(after=1.0)) == [key]
    assert not desk.hears("w", cmd.Holding((key[0],), (), adopt.serial)).sends


def test_an_attempt_that_ran_and_is_no_longer_known_is_lost_without_a_retry() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("t"))))
    desk.step(desk.started("w", key))
    desk.unlink("w")
    (adopt,) = sent(desk.link(W), cmd.Adopt)
    fx = desk.hears("w", cmd.Holding((key[0],), (), adopt.serial))
    assert dispatched(fx) == [("w", "t", 2)]
    assert desk.states(key[0]) == {(0, 1): A.FAILOVER, (0, 2): A.DISPATCHED}


def test_kills_are_said_again_on_a_new_link() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("t"))))
    desk.unlink("w")
    assert not sent(desk.ask(cmd.Cancel(key[0])), cmd.Kill)
    (adopt,) = sent(desk.link(W), cmd.Adopt)
    (kill,) = sent(desk.hears("w", cmd.Holding((key[0],), (key,), adopt.serial)), cmd.Kill)
    assert (kill.run_id, kill.task, kill.attempt) == key


def test_a_stray_of_a_run_of_ours_is_killed() -> None:
    desk = Desk(W, worker("v"))
    fx = desk.submit(flow(task("t")))
    ((name, _, _),), (key,) = dispatched(fx), keys(fx)
    other = {"v": "w", "w": "v"}[name]
    fx = desk.hears(other, cmd.Holding((), (key,)))
    assert sent(fx, cmd.Kill, to=other) == [cmd.Kill(*key, 1, 0.0, "another attempt has taken its place")]


def test_a_stray_of_an_unknown_run_is_looked_up_and_forgotten_only_once_the_run_has_ended() -> None:
    desk = Desk(W)
    fx = desk.hears("w", cmd.Holding((), ((77, 0, 1),)))
    assert (fx.lookups, fx.sends) == ([("w@1", (77, 0, 1))], [])
    assert not desk.step(ev.RunsEnded(fx.lookups, {})).sends
    fx = desk.step(ev.RunsEnded(fx.lookups, {77: 3}))
    assert [type(command) for _, _, command in fx.sends] == [cmd.ResultAck, cmd.Kill]
    assert sent(fx, cmd.Kill)[0].epoch == 3


def test_a_stray_is_looked_up_once_more_in_case_its_dead_master_was_committing() -> None:
    desk = Desk(W)
    fx = desk.hears("w", cmd.Holding((), ((77, 0, 1),)))
    desk.step(ev.RunsEnded(fx.lookups, {}))
    again = desk.step(after=desk.core.settings.absent_seconds)
    assert again.lookups == fx.lookups
    fx = desk.step(ev.RunsEnded(again.lookups, {77: 3}))
    assert [type(command) for _, _, command in fx.sends] == [cmd.ResultAck, cmd.Kill]
    assert fx.wake_at is None


def test_a_result_of_a_run_that_is_not_ours_is_looked_up_before_it_is_acknowledged() -> None:
    desk = Desk(W)
    fx = desk.ended("w", (77, 0, 1))
    assert (fx.lookups, fx.sends) == ([("w@1", (77, 0, 1))], [])
    assert desk.core.refused_results == 1


# -- workers that are gone ------------------------------------------------------------------------------------------


def test_the_attempts_of_a_dead_worker_go_elsewhere_and_use_no_retry() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("t"))))
    desk.link(worker("v"))
    fx = desk.step(ev.PeerDead("w@1"))
    assert dispatched(fx) == [("v", "t", 2)]
    assert desk.states(key[0]) == {(0, 1): A.FAILOVER, (0, 2): A.DISPATCHED}
    assert "w@1" not in desk.core.dispatcher.workers


def test_a_worker_without_link_and_lease_is_gone_after_a_while_in_either_order() -> None:
    for order in ("link first", "lease first"):
        desk = Desk(W)
        (key,) = keys(desk.submit(flow(task("t"))))
        if order == "link first":
            desk.unlink("w")
            desk.step(after=100.0)
            desk.leave("w")
        else:
            desk.leave("w")
            desk.step(after=100.0)
            desk.unlink("w")
        desk.step(after=9.9)
        assert desk.states(key[0]) == {(0, 1): A.DISPATCHED}, order
        desk.step(after=0.2)
        assert desk.states(key[0]) == {(0, 1): A.FAILOVER}, order


@pytest.mark.parametrize("sign", ["link", "lease"])
def test_a_worker_that_is_seen_again_in_time_is_not_gone(sign: str) -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("t"))))
    desk.unlink("w")
    desk.leave("w")
    desk.step(after=9.0)
    if sign == "link":
        desk.step(ev.LinkUp(W))
    else:
        desk.join(W)
    assert desk.step(after=100.0).wake_at is None
    assert desk.states(key[0]) == {(0, 1): A.DISPATCHED}


def test_a_worker_that_is_linked_again_is_not_dead_whatever_was_said() -> None:
    desk = Desk(W)
    desk.step(ev.PeerDead("w@1"))
    desk.link(W)
    (key,) = keys(desk.submit(flow(task("t"))))
    successor = Desk(W, name="n", store=desk.store)
    successor.join(W, ev.PeerDead("w@1"))
    successor.link(W)
    successor.claim()
    assert successor.states(key[0]) == {(0, 1): A.DISPATCHED}


# -- runs that change hands -----------------------------------------------------------------------------------------


def test_who_takes_over_asks_all_workers_and_adopts_what_lives() -> None:
    desk = Desk(W, worker("v"))
    (key,) = keys(desk.submit(flow(task("t"))))
    successor = Desk(W, worker("v"), name="n", store=desk.store)
    fx = successor.claim()
    assert [adopt.runs for adopt in sent(fx, cmd.Adopt)] == [((key[0], 2),), ((key[0], 2),)]
    holder = desk.rows(key[0])[0, 1].worker
    for name in ("v", "w"):
        (adopt,) = sent(fx, cmd.Adopt, to=name)
        held = (key,) if holder == f"{name}@1" else ()
        successor.hears(name, cmd.Holding((key[0],), held, adopt.serial))
    assert successor.states(key[0]) == {(0, 1): A.DISPATCHED}
    successor.ended(str(holder)[0], key)
    assert successor.state(key[0]) is R.SUCCEEDED


def test_who_takes_over_waits_for_a_worker_that_nobody_sees_and_then_replaces_it() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("t"))))
    successor = desk.successor(worker("v"))
    assert dispatched(successor.step(after=9.0)) == []
    assert dispatched(successor.step(after=1.1)) == [("v", "t", 2)]
    assert successor.states(key[0])[0, 1] is A.FAILOVER


def test_a_worker_that_the_registry_shows_is_waited_for_until_it_leaves() -> None:
    """Its link may never come up: the one who took over must not wait for a link that goes down."""
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("t"))))
    successor = Desk(worker("v"), name="n", store=desk.store)
    successor.join(W)
    successor.claim()
    assert dispatched(successor.step(after=100.0)) == []
    assert dispatched(successor.leave("w")) == []
    assert dispatched(successor.step(after=10.1)) == [("v", "t", 2)]
    assert successor.states(key[0])[0, 1] is A.FAILOVER


def test_a_worker_that_joins_after_the_takeover_is_waited_for_until_it_leaves() -> None:
    desk = Desk(W)
    desk.start(flow(task("t")))
    successor = Desk(worker("v"), name="n", store=desk.store)
    successor.claim()
    successor.join(W)
    assert dispatched(successor.step(after=100.0)) == []
    assert dispatched(successor.leave("w")) == []
    assert dispatched(successor.step(after=10.1)) == [("v", "t", 2)]


def test_a_worker_known_to_be_dead_is_replaced_at_once_by_who_takes_over() -> None:
    desk = Desk(W)
    desk.start(flow(task("t")))
    successor = Desk(worker("v"), name="n", store=desk.store)
    successor.join(W, ev.PeerDead("w@1"))
    assert dispatched(successor.claim()) == [("v", "t", 2)]


def test_masters_share_the_runs_of_one_that_died_and_look_once_more_later() -> None:
    desk = Desk(name="b")
    fx = desk.step(ev.Members((master("a"), master("b"), master("c"))))
    assert fx.claim is not None
    assert (fx.claim.rank, fx.claim.count) == (1, 3)
    fx = desk.step(ev.PeerDead("c@1"))
    assert fx.claim is not None
    assert (fx.claim.alive, fx.claim.rank, fx.claim.count) == (frozenset({"a@1", "b@1"}), 1, 2)
    assert [fx.claim.share(run) for run in (10, 11)] == [False, True]
    later = desk.step(after=desk.core.settings.absent_seconds)
    assert later.claim is not None
    assert later.claim.count == 1
    assert later.wake_at is None


def linked_to(*others: str) -> Desk:
    """Master b, to whom these have links."""
    desk = Desk(name="b")
    desk.step(ev.Members((desk.me, *map(master, others))), *(ev.LinkUp(master(name)) for name in others))
    desk.step(after=desk.core.settings.absent_seconds)
    return desk


def test_a_master_with_a_healthy_link_has_time_to_return_to_the_registry() -> None:
    """After an outage of the registry everybody is back in it within a moment, one after the other."""
    desk = linked_to("a", "c")
    assert desk.step(ev.Members((desk.me,))).claim is None
    assert desk.step(ev.Members((desk.me, master("a"))), after=9.9).claim is None
    claim = desk.step(after=0.2).claim
    assert claim is not None
    assert claim.alive == {"a@1", "b@1"}
    assert desk.step(ev.Members((desk.me, master("a"), master("c")))).claim is not None


def test_a_master_that_the_registry_shows_no_longer_and_whose_link_ends_leaves_its_runs_at_once() -> None:
    desk = linked_to("a")
    assert desk.step(ev.LinkDown("a@1")).claim is None
    assert desk.step(ev.LinkUp(master("a"))).claim is None
    assert desk.step(ev.Members((desk.me,))).claim is None
    claim = desk.step(ev.LinkDown("a@1")).claim
    assert claim is not None
    assert claim.alive == {"b@1"}


def test_a_dead_master_has_no_time_to_return() -> None:
    desk = linked_to("a")
    assert desk.step(ev.Members((desk.me,))).claim is None
    assert desk.step(ev.PeerDead("a@1")).claim is not None


def test_a_master_that_others_do_not_see_does_not_look_for_what_is_left() -> None:
    """It does not see who has come since, and would take the runs of the living."""
    desk = Desk(W)
    desk.step(ev.Members((desk.me, master("a"))))
    desk.step(ev.SessionChanged("lost"))
    assert desk.step(after=desk.core.settings.absent_seconds).claim is None
    desk.step(ev.SessionChanged("connected"))
    assert desk.step(after=desk.core.settings.absent_seconds).claim is not None


def test_nothing_is_claimed_when_only_workers_come_and_go() -> None:
    desk = Desk(name="b")
    assert desk.join(W).claim is None
    assert desk.leave("w").claim is None


def test_a_run_that_is_lost_is_forgotten_at_once() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("t"), task("later", delay=50.0))))
    desk.step(ev.RunsLost({key[0]: 1}))
    assert not desk.core.runs
    assert not desk.core.dispatcher.workers["w@1"].live
    assert desk.core.deadlines.at(("open", key[0], 1)) is None


def test_a_result_that_was_settled_but_not_written_is_not_acknowledged_when_it_comes_again() -> None:
    """The loss comes first in its turn: in memory the attempt has ended, in the store it has not."""
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("t"), task("u", "t"))))
    desk.store.claim("n@1", (), lambda run: True)
    desk.ended("w", key)
    assert desk.committed.lost == {key[0]}
    fx = desk.step(ev.RunsLost({key[0]: 1}), desk.end("w", key))
    assert (fx.sends, fx.lookups) == ([], [("w@1", key)])


def test_a_loss_of_what_was_taken_back_since_is_old_news() -> None:
    """Simulation seed 2871."""
    desk = Desk(W)
    run_id = desk.start(flow(task("t")))
    successor = desk.successor(W)
    successor.step(ev.RunsLost({run_id: 1}))
    assert run_id in successor.core.runs


def test_a_run_that_is_claimed_twice_is_continued_from_what_was_read_last() -> None:
    """Simulation seed 38159: it was lost and taken back before the first claim had been taken in."""
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("t"), task("u", group="elsewhere"))))
    successor = Desk(W, name="n", store=desk.store)
    first = desk.store.claim("n@1", (), lambda run: True)
    desk.store.claim("m@1", (), lambda run: True)
    second = desk.store.claim("n@1", (), lambda run: True)
    fx = successor.step(ev.Claimed(first), desk.end("w", key), ev.Claimed(second))
    assert fx.batch.attempts == {}
    assert sent(fx, cmd.ResultAck) == []
    assert successor.core.runs[key[0]].row.epoch == 4
    assert successor.core.dispatcher.group("elsewhere").queue.waiting(key[0]) == 1
    successor.ended("w", key)
    assert successor.states(key[0]) == {(0, 1): A.SUCCEEDED}


def test_a_run_that_cannot_be_continued_fails_and_not_the_masters_one_after_the_other() -> None:
    """A version that refuses what a former one took must not end on it."""
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("t"), task("u", "t"))))
    other = desk.start(flow(task("fine"), name="fine"))
    desk.store.definitions[desk.store.runs[key[0]].digest] = b'{"name":"flow","tasks":[{"name":"t"}]}'
    successor = Desk(W, name="n", store=desk.store)
    fx = successor.claim()
    assert fx.ended == [key[0]]
    row = successor.store.runs[key[0]]
    assert (row.state, row.owner) == (R.FAILED, None)
    assert "this version cannot continue it: not a workflow" in row.reason
    assert successor.states(key[0]) == {(0, 1): A.FAILOVER}
    assert list(successor.core.runs) == [other]
    fx = successor.hears("w", cmd.Holding((), (key,)))
    assert [kill.reason for kill in sent(successor.step(ev.RunsEnded(fx.lookups, {key[0]: 2})), cmd.Kill)]


def test_who_lost_runs_looks_later_whether_their_owner_lives() -> None:
    desk = Desk(W)
    run_id = desk.start(flow(task("t")))
    desk.step(ev.RunsLost({run_id: 1}))
    assert desk.step(after=desk.core.settings.absent_seconds).claim is not None


def test_a_master_that_is_told_it_is_deposed_finds_out_by_writing() -> None:
    desk = Desk(W)
    run_id = desk.start(flow(task("t")))
    assert not desk.hears("w", cmd.Deposed(run_id, 1)).batch
    assert not desk.hears("w", cmd.Deposed(99, 9)).batch
    desk.store.claim("n@1", (), lambda run: True)
    desk.hears("w", cmd.Deposed(run_id, 2))
    assert desk.committed.lost == {run_id}


def test_a_worker_without_a_lease_is_told_which_runs_are_not_ours() -> None:
    desk = Desk(W)
    run_id = desk.start(flow(task("t")))
    fx = desk.hears("w", cmd.Recheck((run_id, 77)))
    assert sent(fx, cmd.Disown) == [cmd.Disown(77)]
    assert list(fx.batch.runs) == [run_id]
    desk.store.claim("n@1", (), lambda run: True)
    desk.hears("w", cmd.Recheck((run_id,)))
    assert desk.committed.lost == {run_id}
    assert sent(desk.step(ev.RunsLost({run_id: 1}), desk.said("w", cmd.Recheck((run_id,)))), cmd.Disown)


def test_an_absent_worker_has_all_its_time_from_the_takeover() -> None:
    """Simulation seed 110795: until then it was sure of the former owner, who could not know better."""
    desk = Desk(W)
    desk.start(flow(task("t")))
    successor = Desk(W, worker("v"), name="n", store=desk.store)
    successor.unlink("w")
    successor.leave("w")
    successor.step(after=9.0)
    successor.claim()
    assert dispatched(successor.step(after=9.0)) == []
    assert dispatched(successor.step(after=1.1)) == [("v", "t", 2)]


def test_without_a_registry_session_new_runs_are_refused_and_old_ones_go_on() -> None:
    desk = Desk(W)
    (key,) = keys(desk.submit(flow(task("a"), task("b", "a"))))
    desk.step(ev.SessionChanged("lost"))
    (answer,) = sent(desk.submit(flow(task("c"))), cmd.Failed)
    assert answer.code == "unavailable"
    assert dispatched(desk.ended("w", key)) == [("w", "b", 1)]
    desk.step(ev.SessionChanged("connected"))
    assert sent(desk.submit(flow(task("c"))), cmd.Submitted)


# -- tasks that take their workers down ---------------------------------------------------------------------------


def lose(desk: Desk, number: int) -> None:
    """The worker of this life dies with what it runs."""
    desk.step(ev.PeerDead(f"w{number}@1"))


def test_a_task_that_is_lost_too_often_has_failed() -> None:
    desk = Desk(*(worker(f"w{number}") for number in range(4)), failovers_max=2)
    run_id = desk.start(flow(task("t")))
    for _ in range(3):
        lose(desk, int(next(iter(desk.core.runs[run_id].live.values())).row.worker[1:2]))  # type: ignore[index]
    assert desk.state(run_id) is R.FAILED
    assert list(desk.states(run_id).values()) == [A.FAILOVER, A.FAILOVER, A.FAILED]
    assert desk.rows(run_id)[0, 3].reason == "its worker died; it counts as a failure after 2 losses"


def test_losses_are_counted_across_masters() -> None:
    desk = Desk(worker("w0"), failovers_max=1)
    run_id = desk.start(flow(task("t")))
    lose(desk, 0)
    successor = desk.successor(worker("w1"))
    successor.core.settings = desk.core.settings
    lose(successor, 1)
    assert successor.state(run_id) is R.FAILED


# -- runs that end their masters -----------------------------------------------------------------------------------


def test_a_quarantined_run_has_failed_and_the_others_go_on() -> None:
    desk = Desk(W)
    poison, healthy = desk.start(flow(task("bad", "worse"), task("worse"))), desk.start(flow(task("good")))
    other = Desk(W, name="n", store=desk.store)
    claimed = other.store.claim(other.me.id, {other.me.id}, lambda run: True)
    other.step(ev.Claimed(claimed, {poison: "KeyError: 7"}))
    assert other.state(poison) is R.FAILED
    assert other.store.runs[poison].reason == "quarantined: masters have ended over it, the last one with: KeyError: 7"
    assert other.core.runs.keys() == {healthy}


def test_a_run_over_which_a_step_fails_is_known_by_name() -> None:
    desk = Desk()
    desk.start(flow(task("fine", group="elsewhere")))
    poison = desk.start(flow(task("bad")))
    desk.core.runs[poison].row.params = b"{"
    with pytest.raises(ValueError, match="truncated"):
        desk.link(W)
    assert desk.engine.concerning == poison
