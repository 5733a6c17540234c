"""The checker itself, on histories written by hand: a good one passes, and each broken promise is told by its name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dsfast.model import AttemptState, OnFailure, Retry, RunState, Task, Workflow
from dsfast.proof.checker import Broken, Checker
from dsfast.proof.history import Event, TaskPlan, merge, plan, read, write
from dsfast.proof.verdict import Last, earned

PLAN = (TaskPlan(retries=1), TaskPlan((0,), enabled=False), TaskPlan((1,)))  # 0, then 2 behind a disabled one
ME, OTHER = "m0@1", "m1@1"
HERE, THERE = "w0@1", "w1@1"


def planned(stops: bool = False) -> Event:
    return Event(at=0, kind="plan", run=7, tasks=PLAN, stops=stops)


def run(state: str, owner: str | None = ME, epoch: int = 1, key: str | None = None, number: int = 7) -> Event:
    return Event(at=0, kind="run", run=number, state=state, owner=owner, epoch=epoch, key=key)


def row(task: int, attempt: int, state: str, worker: str | None = HERE, **more: object) -> Event:
    return Event(at=0, kind="attempt", run=7, task=task, attempt=attempt, state=state, worker=worker, **more)  # type: ignore[arg-type]


def starts(task: int, attempt: int, worker: str = HERE) -> Event:
    return Event(at=0, kind="starts", run=7, task=task, attempt=attempt, worker=worker)


def ends(task: int, attempt: int, value: str | None = "0") -> Event:
    return Event(at=0, kind="ends", run=7, task=task, attempt=attempt, value=value)


def says(kind: str, key: str | None = None, number: int = 7) -> Event:
    return Event(at=0, kind=kind, run=number, key=key)  # type: ignore[arg-type]


def done(task: int, attempt: int = 1) -> list[Event]:
    """A try that goes well."""
    return [
        row(task, attempt, "DISPATCHED"),
        starts(task, attempt),
        ends(task, attempt),
        row(task, attempt, "SUCCEEDED", value="0"),
    ]


def failed(task: int, attempt: int = 1) -> list[Event]:
    return [
        row(task, attempt, "DISPATCHED"),
        starts(task, attempt),
        ends(task, attempt, "1"),
        row(task, attempt, "FAILED", value="1"),
    ]


BEGUN = [planned(), run("SUBMITTED", key="k"), says("accepted", "k"), run("RUNNING", key="k")]
OVER = [run("SUCCEEDED", None, key="k")]
OUT = [row(0, 1, "DISPATCHED"), starts(0, 1)]  # the first task runs

GOOD = {
    "all goes well": [*BEGUN, *done(0), *done(2), *OVER],
    "a retry": [*BEGUN, *failed(0), *done(0, 2), *done(2), *OVER],
    "a failover uses up no retry": [
        *BEGUN, *OUT, ends(0, 1, None), row(0, 1, "FAILOVER"), *failed(0, 2), *done(0, 3), *done(2), *OVER,
    ],
    "another owner goes on": [*BEGUN, *OUT, run("RUNNING", OTHER, 2), ends(0, 1),
                              row(0, 1, "SUCCEEDED", value="0", epoch=2), *done(2), run("SUCCEEDED", None, 2)],
    "given back unstarted": [*BEGUN, row(0, 1, "DISPATCHED"), row(0, 1, "SUBMITTED", None),
                             row(0, 1, "DISPATCHED", THERE), starts(0, 1, THERE), ends(0, 1),
                             row(0, 1, "SUCCEEDED", THERE, value="0"), *done(2), *OVER],
    "cancelled": [*BEGUN, *OUT, says("cancel"), run("READY_STOP"), ends(0, 1, None), row(0, 1, "KILLED"),
                  run("STOPPED", None)],
    "cancelled too late": [*BEGUN, *done(0), *done(2), says("cancel"), run("READY_STOP"), *OVER],
    "a failure for good": [*BEGUN, *failed(0), *failed(0, 2), run("FAILED", None)],
    "lost too often": [*BEGUN, *failed(0), row(0, 2, "DISPATCHED"), row(0, 2, "FAILED"), run("FAILED", None)],
    "a write is repeated": [*BEGUN, *done(0), row(0, 1, "SUCCEEDED", value="0"), *done(2), *OVER, *OVER],
}  # fmt: skip

BROKEN = {
    "was accepted before it was durable": [says("accepted", "k", 9)],
    "one key, two runs": [*BEGUN, run("SUBMITTED", key="k", number=8)],
    "a run that has ended": [*BEGUN, *done(0), *done(2), *OVER, run("RUNNING")],
    "there is no such way": [*BEGUN, says("cancel"), run("READY_STOP"), run("RUNNING")],
    "nobody asked for that": [*BEGUN, run("READY_STOP")],
    "after epoch 2": [*BEGUN, run("RUNNING", OTHER, 2), run("RUNNING", ME, 1)],
    "own the run in epoch 1": [*BEGUN, run("RUNNING", OTHER, 1)],
    "is owned by None": [*BEGUN, run("RUNNING", None)],
    "was written under epoch 1": [*BEGUN, run("RUNNING", OTHER, 2), row(0, 1, "DISPATCHED", epoch=1)],
    "comes after 0 attempts": [*BEGUN, row(0, 2, "DISPATCHED")],
    "follows ['DISPATCHED']": [*BEGUN, row(0, 1, "DISPATCHED"), row(0, 2, "DISPATCHED", THERE)],
    "is retry 2 of 1": [*BEGUN, *failed(0), *failed(0, 2), row(0, 3, "DISPATCHED")],
    "is one of a disabled task": [*BEGUN, *done(0), row(1, 1, "DISPATCHED")],
    "had ended as SUCCEEDED": [*BEGUN, *done(0), row(0, 1, "FAILED", value="1")],
    "goes from RUNNING to SUBMITTED": [*BEGUN, row(0, 1, "DISPATCHED"), row(0, 1, "RUNNING"), row(0, 1, "SUBMITTED")],
    "in a run that has ended": [*BEGUN, *failed(0), run("FAILED", None), row(0, 2, "DISPATCHED")],
    "given back though it has started": [*BEGUN, *OUT, row(0, 1, "SUBMITTED", None)],
    "became FAILOVER while its process runs": [*BEGUN, *OUT, row(0, 1, "FAILOVER")],
    "never started": [*BEGUN, row(0, 1, "DISPATCHED"), row(0, 1, "SUCCEEDED", value="0")],
    "its process ended with '1'": [*BEGUN, *OUT, ends(0, 1, "1"), row(0, 1, "SUCCEEDED", value="0")],
    "it ran on w0@1": [*BEGUN, *OUT, ends(0, 1), row(0, 1, "SUCCEEDED", THERE, value="0")],
    "was killed though nobody asked": [*BEGUN, *OUT, ends(0, 1, None), row(0, 1, "KILLED")],
    "starts twice": [*BEGUN, *OUT, ends(0, 1), starts(0, 1)],
    "starts beside attempt [1]": [*BEGUN, *OUT, starts(0, 2)],
    "starts before it is durable": [*BEGUN, starts(0, 1)],
    "starts though it is FAILOVER": [*BEGUN, row(0, 1, "DISPATCHED"), row(0, 1, "FAILOVER"), starts(0, 1)],
    "it is bound to w0@1": [*BEGUN, row(0, 1, "DISPATCHED"), starts(0, 1, THERE)],
    "before task 0 has durably succeeded": [*BEGUN, row(2, 1, "DISPATCHED"), starts(2, 1)],
    "ends and never started": [*BEGUN, ends(0, 1)],
    "ends twice": [*BEGUN, *OUT, ends(0, 1), ends(0, 1)],
    "another attempt of its task was alive": [*BEGUN, *OUT, Event(at=0, kind="overlap", run=7, task=0, attempt=2)],
    "the run never ended": [*BEGUN, *done(0)],
    "never ended: ": [*BEGUN, *OUT, run("FAILED", None)],
    "the run ended FAILED, it earned SUCCEEDED": [*BEGUN, *done(0), *done(2), run("FAILED", None)],
    "the run ended SUCCEEDED, it earned FAILED": [*BEGUN, *failed(0), *failed(0, 2), run("SUCCEEDED", None)],
}  # fmt: skip


def judge(events: list[Event], *, sees_ends: bool = True) -> None:
    checker = Checker(sees_ends=sees_ends)
    for event in events:
        checker.take(event)
    checker.finish()


@pytest.mark.parametrize("tale", GOOD)
def test_a_kept_promise_is_none_broken(tale: str) -> None:
    judge(GOOD[tale])


@pytest.mark.parametrize("promise", BROKEN)
def test_a_broken_promise_is_told(promise: str) -> None:
    with pytest.raises(Broken) as told:
        judge(BROKEN[promise])
    assert promise in str(told.value)
    assert told.value.run in (7, 8, 9)


def test_what_a_task_did_is_told_with_the_task() -> None:
    with pytest.raises(Broken) as told:
        judge([*BEGUN, *done(0), row(2, 1, "DISPATCHED"), starts(2, 1, THERE)])
    assert (told.value.run, told.value.task) == (7, 2)


def test_a_run_may_be_excused_at_the_end() -> None:
    checker = Checker()
    for event in [*BEGUN, *done(0)]:
        checker.take(event)
    checker.finish({7: "quarantined"})


def test_witnesses_that_can_be_killed_are_believed_about_what_they_saw() -> None:
    unseen = [*BEGUN, *OUT, row(0, 1, "FAILOVER"), *done(0, 2), *done(2), *OVER]
    judge(unseen, sees_ends=False)
    with pytest.raises(Broken, match="while its process runs"):
        judge(unseen)
    with pytest.raises(Broken, match="its process ended with '1'"):
        judge(BROKEN["its process ended with '1'"], sees_ends=False)


def test_a_workflow_that_stops_with_the_first_failure_kills_the_rest() -> None:
    plan = (TaskPlan(), TaskPlan())
    begun = [Event(at=0, kind="plan", run=7, tasks=plan, stops=True), run("RUNNING")]
    judge([*begun, *failed(0), *OUT[:0], row(1, 1, "DISPATCHED"), row(1, 1, "KILLED"), run("FAILED", None)])


def test_the_plan_of_a_workflow() -> None:
    first = Task(name="a", type="noop", retry=Retry(limit=2), timeout=3.0)
    second = Task(name="b", type="noop", needs=("a",), enabled=False)
    made = plan(Workflow(name="w", tasks=(first, second), on_failure=OnFailure.STOP), run=7, at=1.5)
    assert made.tasks == (TaskPlan(retries=2, timeout=3.0), TaskPlan((0,), enabled=False))
    assert (made.run, made.at, made.stops) == (7, 1.5, True)


def test_what_a_run_earned() -> None:
    ok, bad = Last(AttemptState.SUCCEEDED, 0), Last(AttemptState.FAILED, 2)
    killed = Last(AttemptState.KILLED, 0)
    assert earned(PLAN, {0: ok, 2: ok}, cancelled=True) is RunState.SUCCEEDED
    assert earned(PLAN, {0: ok}, cancelled=True) is RunState.STOPPED
    assert earned(PLAN, {0: ok, 2: killed}, cancelled=True) is RunState.STOPPED
    assert earned(PLAN, {0: bad}, cancelled=True) is RunState.FAILED
    assert earned((), {}, cancelled=False) is RunState.SUCCEEDED


def test_a_history_is_lines_and_back() -> None:
    history = GOOD["a retry"]
    assert list(read(write(history))) == history
    assert b'"kind":"cancel"' in b"".join(write([says("cancel")]))
    assert all(line.count(b"\n") == 1 for line in write(history))


def test_histories_are_merged_by_time() -> None:
    mine = [Event(at=1, kind="cancel", run=1), Event(at=3, kind="cancel", run=3)]
    assert [event.run for event in merge(mine, [Event(at=2, kind="cancel", run=2)])] == [1, 2, 3]


@pytest.mark.parametrize(("tale", "code"), [(GOOD["a retry"], 0), (BROKEN["starts twice"], 1)])
def test_a_file_is_judged_from_the_command_line(tale: list[Event], code: int, tmp_path: Path) -> None:
    (tmp_path / "history").write_bytes(b"".join(write(tale)))
    command = [sys.executable, "-m", "dsfast.proof", str(tmp_path / "history")]
    judged = subprocess.run(command, capture_output=True, text=True, check=False)
    assert judged.returncode == code, judged.stderr
    assert ("every promise was kept" in judged.stdout) is (code == 0)
