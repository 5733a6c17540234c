"""What people see of a run follows from its rows alone, and its JSON has a fixed shape."""

from __future__ import annotations

import msgspec
import pytest

from dsfast.ids import run_text
from dsfast.model import AttemptState, Member, Priority, Retry, RunState, Task, Workflow
from dsfast.rows import AttemptRow, RunRow
from dsfast.views import (
    ATTEMPT_WORDS,
    RUN_WORDS,
    TASK_WORDS,
    TaskView,
    attempt_view,
    count_latest,
    count_tasks,
    member_view,
    run_view,
    task_views,
    timestamp,
)

RUN_ID = 0x0123_4567_89AB_CDEF
A = AttemptState


def make_run(state: RunState = RunState.RUNNING, tasks: int = 3) -> RunRow:
    return RunRow(
        id=RUN_ID,
        workflow="etl",
        digest="d",
        state=state,
        owner=None,
        epoch=1,
        priority=Priority.HIGH,
        params=b'{"day": "2026-11-20"}',
        created_at=1000.0,
        started_at=1001.5,
        ended_at=1004.0 if state.final else None,
        tasks=tasks,
    )


def chain(*, retries: int = 0) -> Workflow:
    return Workflow(
        name="etl",
        tasks=(
            Task(name="load", type="shell", needs=("clean",)),
            Task(name="extract", type="shell", retry=Retry(limit=retries)),
            Task(name="clean", type="python", needs=("extract",)),
        ),
    )


def attempt(task: int, number: int, state: AttemptState, reason: str = "") -> AttemptRow:
    return AttemptRow(run_id=RUN_ID, task=task, attempt=number, state=state, worker="w@1", reason=reason)


def states(views: list[TaskView]) -> list[str]:
    return [view.state for view in views]


def test_the_json_of_a_run_has_its_fixed_shape() -> None:
    rows = [AttemptRow(RUN_ID, 1, 1, A.SUCCEEDED, "w@1", 1001.0, 1001.5, 1003.0, 0, "", b'{"rows": 3}')]
    tasks = task_views(make_run(), chain(), rows, now=1010.0)
    seen = msgspec.json.decode(
        msgspec.json.encode(run_view(make_run(), now=1010.0, counts=count_tasks(tasks), tasks=tasks))
    )
    extract = seen["tasks"][1]
    del seen["tasks"]
    assert seen == {
        "id": run_text(RUN_ID),
        "workflow": "etl",
        "state": "running",
        "priority": "high",
        "params": {"day": "2026-11-20"},
        "created_at": "1970-01-01T00:16:40.000Z",
        "started_at": "1970-01-01T00:16:41.500Z",
        "ended_at": None,
        "duration_seconds": 8.5,
        "reason": "",
        "tasks_total": 3,
        "counts": {"waiting": 2, "succeeded": 1},
    }
    assert extract == {
        "name": "extract",
        "type": "shell",
        "state": "succeeded",
        "attempt": 1,
        "attempts": 1,
        "worker": "w@1",
        "exit_code": 0,
        "started_at": "1970-01-01T00:16:41.500Z",
        "ended_at": "1970-01-01T00:16:43.000Z",
        "duration_seconds": 1.5,
        "outputs": {"rows": 3},
        "reason": "",
    }


def test_a_view_survives_its_own_json() -> None:
    tasks = task_views(make_run(), chain(), [attempt(1, 1, A.RUNNING)], now=1010.0)
    assert msgspec.json.decode(msgspec.json.encode(tasks), type=list[TaskView]) == tasks


def test_every_state_has_one_word() -> None:
    assert set(RUN_WORDS) == set(RunState)
    assert set(ATTEMPT_WORDS) == set(AttemptState)
    assert len(set(RUN_WORDS.values())) == len(RUN_WORDS)
    assert len(set(TASK_WORDS)) == len(TASK_WORDS) == 12


def test_a_task_shows_its_latest_attempt() -> None:
    rows = [attempt(1, 1, A.FAILOVER), attempt(1, 2, A.RUNNING)]
    view = task_views(make_run(), chain(), rows, now=0.0)[1]
    assert (view.state, view.attempt, view.attempts) == ("running", 2, 2)


def test_what_needs_a_failed_task_is_skipped_while_the_run_still_runs() -> None:
    views = task_views(make_run(), chain(), [attempt(1, 1, A.FAILED, "exit code 1")], now=0.0)
    assert states(views) == ["skipped", "failed", "skipped"]
    assert views[1].reason == "exit code 1"


def test_a_failed_task_with_tries_left_waits_and_so_does_what_needs_it() -> None:
    views = task_views(make_run(), chain(retries=1), [attempt(1, 1, A.FAILED, "exit code 1")], now=0.0)
    assert states(views) == ["waiting", "delayed", "waiting"]
    views = task_views(make_run(), chain(retries=1), [attempt(1, 1, A.FAILED), attempt(1, 2, A.FAILED)], now=0.0)
    assert states(views) == ["skipped", "failed", "skipped"]


def test_a_failover_uses_up_no_try() -> None:
    views = task_views(make_run(), chain(), [attempt(1, 1, A.FAILOVER, "worker lost")], now=0.0)
    assert states(views) == ["waiting", "failover", "waiting"]


def test_the_masters_explanation_wins_for_what_has_not_ended() -> None:
    explained = {0: ("queued", "no free slot in group default"), 1: ("delayed", "retry in 3 s")}
    rows = [attempt(1, 1, A.FAILED)]
    views = task_views(make_run(), chain(retries=1), rows, now=0.0, explained=explained)
    assert [(view.state, view.reason) for view in views[:2]] == list(explained.values())
    late = {1: ("running", "runs on worker w")}  # asked for before the row was read
    assert (
        states(task_views(make_run(), chain(), [attempt(1, 1, A.SUCCEEDED)], now=0.0, explained=late))[1] == "succeeded"
    )
    ended = task_views(make_run(RunState.STOPPED), chain(), rows, now=0.0, explained=explained)
    assert states(ended) == ["skipped", "failed", "skipped"]


def test_disabled_tasks_say_so_and_hand_a_loss_on() -> None:
    workflow = Workflow(
        name="w",
        tasks=(
            Task(name="a", type="noop"),
            Task(name="b", type="noop", needs=("a",), enabled=False),
            Task(name="c", type="noop", needs=("b",)),
        ),
    )
    assert states(task_views(make_run(), workflow, [], now=0.0)) == ["waiting", "disabled", "waiting"]
    failed = task_views(make_run(), workflow, [attempt(0, 1, A.FAILED)], now=0.0)
    assert states(failed) == ["failed", "disabled", "skipped"]


def test_tasks_without_an_attempt_in_an_ended_run_were_skipped() -> None:
    views = task_views(make_run(RunState.STOPPED), chain(), [], now=0.0)
    assert states(views) == ["skipped"] * 3


@pytest.mark.parametrize("state", [RunState.RUNNING, RunState.STOPPED])
def test_counts_for_lists_agree_with_counts_of_tasks(state: RunState) -> None:
    run = make_run(state)
    rows = [attempt(1, 1, A.SUCCEEDED), attempt(2, 1, A.KILLED if state.final else A.RUNNING)]
    latest = {rows[0].state.value: 1, rows[1].state.value: 1}
    tasks = count_tasks(task_views(run, chain(), rows, now=0.0))
    assert {k: v for k, v in count_latest(run, latest).items() if k != "skipped"} == {
        k: v for k, v in tasks.items() if k != "skipped"
    }
    assert sum(count_latest(run, latest).values()) == run.tasks == sum(tasks.values())


def test_an_attempt_and_a_member() -> None:
    assert attempt_view(attempt(1, 3, A.KILLED, "cancelled"), 0.0).state == "killed"
    member = Member(role="worker", name="w", boot="b", host="h", port=7481, groups=("gpu",), slots=4, started_at=1.0)
    view = member_view(member, load=2)
    assert (view.id, view.address, view.groups, view.load) == ("w@b", "h:7481", ["gpu"], 2)


def test_times_have_milliseconds_and_a_zone() -> None:
    assert timestamp(1763596800.0004) == "2025-11-20T00:00:00.000Z"
    assert timestamp(None) is None
