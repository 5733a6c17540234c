"""For every task that has not ended: one word and one sentence."""

from __future__ import annotations

from typing import cast

from dsfast.engine import events as ev
from dsfast.engine.progress import progress
from dsfast.model import AttemptState, Retry
from dsfast.wire import commands as cmd
from tests.engine_kit import Desk, answers, flow, keys, task, worker

A = AttemptState


def explained(desk: Desk, run_id: int, limit: int = 1000) -> list[tuple[int, str, str]]:
    (answer,) = answers(desk.ask(cmd.Explain(run_id, limit)))
    return list(cast(cmd.Explained, answer).tasks)


def test_a_task_waits_for_its_needs_by_name() -> None:
    desk = Desk(worker("w"))
    run_id = desk.start(flow(*(task(f"t{n}") for n in range(5)), task("last", *(f"t{n}" for n in range(5)))))
    assert explained(desk, run_id)[5] == (5, "waiting", "waits for t0, t1, t2 and 2 more")


def test_a_task_says_where_it_is() -> None:
    desk = Desk(worker("w"))
    (key,) = keys(desk.submit(flow(task("t"))))
    assert explained(desk, key[0]) == [(0, "dispatched", "sent to worker w, which has not said yet that it runs")]
    desk.step(desk.started("w", key))
    assert explained(desk, key[0]) == [(0, "running", "runs on worker w")]
    desk.unlink("w")
    ((_, word, sentence),) = explained(desk, key[0])
    assert (word, "out of reach" in sentence) == ("running", True)


def test_a_task_being_killed_says_why() -> None:
    desk = Desk(worker("w"))
    (key,) = keys(desk.submit(flow(task("t"), task("u", "t"))))
    desk.ask(cmd.Cancel(key[0], "no longer needed"))
    assert explained(desk, key[0])[0] == (0, "killing", "being killed on worker w: no longer needed")


def test_a_group_without_workers_says_how_to_start_one() -> None:
    desk = Desk()
    run_id = desk.start(flow(task("t", group="gpu")))
    (_, word, sentence) = explained(desk, run_id)[0]
    assert word == "queued"
    assert "dsfast worker --group gpu" in sentence


def test_a_full_group_says_how_full() -> None:
    desk = Desk(worker("w", slots=1))
    run_id = desk.start(flow(task("a"), task("b")))
    assert explained(desk, run_id)[1] == (
        1,
        "queued",
        "worker group 'default': 1 attempts on 1 workers with 1 slots; 1 tasks queued",
    )


def test_a_group_whose_workers_are_out_of_reach_says_so() -> None:
    desk = Desk(worker("w"))
    desk.unlink("w")
    run_id = desk.start(flow(task("a")))
    assert "none of its 1 workers is reachable" in explained(desk, run_id)[0][2]


def test_delays_retries_and_refusals_say_when_they_end() -> None:
    desk = Desk(worker("w", slots=9))
    tasks = (task("delayed", delay=30.0), task("failing", retry=Retry(3, 10.0)), task("refused"))
    fx = desk.submit(flow(*tasks))
    run_id = keys(fx)[0][0]
    desk.ended("w", (run_id, 1, 1), A.FAILED)
    desk.hears("w", cmd.Refused(run_id, 2, 1, "no memory", retry_here=False))
    desk.step(after=0.5)
    assert explained(desk, run_id) == [
        (0, "delayed", "starts in 29.5 s (its delay)"),
        (1, "delayed", "retry 1 of 3 in 9.5 s"),
        (2, "delayed", "workers refused it (no memory); offered again in 0.5 s"),
    ]


def test_a_retry_that_is_refused_speaks_of_the_refusal() -> None:
    desk = Desk(worker("w"))
    (key,) = keys(desk.submit(flow(task("t", retry=Retry(3)))))
    (again,) = keys(desk.ended("w", key, A.FAILED))
    desk.hears("w", cmd.Refused(*again, "no memory", retry_here=False))
    assert explained(desk, key[0])[0][2] == "workers refused it (no memory); offered again in 1.0 s"


def test_a_stopping_run_has_tasks_that_will_not_start() -> None:
    desk = Desk(worker("w", slots=1))
    (key,) = keys(desk.submit(flow(task("a"), task("b"))))
    desk.ask(cmd.Cancel(key[0]))
    assert explained(desk, key[0])[1] == (1, "waiting", "its run is stopping")


def test_no_more_is_explained_than_asked_for() -> None:
    desk = Desk()
    run_id = desk.start(flow(*(task(f"t{number}") for number in range(20))))
    assert [at for at, _, _ in explained(desk, run_id, limit=3)] == [0, 1, 2]


def test_a_run_that_is_not_ours_is_not_explained() -> None:
    (answer,) = answers(Desk().ask(cmd.Explain(5)))
    assert cast(cmd.Failed, answer).code == "not_owner"


def test_progress_counts_what_is_done_and_under_way() -> None:
    desk = Desk(worker("w", slots=3))
    fx = desk.submit(flow(*(task(f"t{number}") for number in range(4)), task("later", delay=9.0)))
    run_id = keys(fx)[0][0]
    desk.ended("w", keys(fx)[0])
    desk.step(desk.started("w", keys(fx)[1]), ev.Tick())
    seen = progress(desk.core.runs[run_id])
    assert seen.total == 5
    assert seen.counts == {"succeeded": 1, "running": 1, "dispatched": 2, "delayed": 1, "remaining": 4}
    assert [(name, attempt) for name, attempt, _ in seen.running] == [("t1", 1)]
