"""The judge of chaos finds what is wrong in a history that was doctored, and nothing in one that was not."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from dsfast.chaos.journal import Note
from dsfast.chaos.judge import Evidence, judge
from dsfast.chaos.load import Promise
from dsfast.chaos.plan import KINDS, Cast, make_plan
from dsfast.chaos.witness import Sighting
from dsfast.model import AttemptState, RunState, Workflow
from tests.workflows import shell

A, R = AttemptState, RunState
RUN = 7
TASKS = (shell("nap-0", "true"), shell("nap-1", "true", needs=("nap-0",)))
PROMISE = Promise("key", RUN, Workflow(name="w", tasks=TASKS), 1.5)


def run(at: float, state: RunState, owner: str | None = "m1@a", epoch: int = 1) -> Note:
    return Note(0, at, "run", RUN, state, "", holder=owner, epoch=epoch, tag="key")


def attempt(at: float, task: int, number: int, state: AttemptState, worker: str = "w1@a") -> Note:
    code = {A.SUCCEEDED: 0, A.FAILED: 1}.get(state)
    return Note(0, at, "attempt", RUN, state, "", task, number, worker, 1, code)


def seen(at: float, what: str, task: int, number: int, code: int = 0) -> Sighting:
    return Sighting(what, (RUN, task, number), 1, at, at, code)


NOTES = [
    run(1, R.RUNNING),
    attempt(1, 0, 1, A.DISPATCHED),
    attempt(3, 0, 1, A.FAILOVER),
    attempt(3, 0, 2, A.DISPATCHED, "w2@b"),
    attempt(5, 0, 2, A.SUCCEEDED, "w2@b"),
    attempt(5, 1, 1, A.DISPATCHED, "w2@b"),
    run(5.5, R.RUNNING, "m2@b", 2),
    attempt(7, 1, 1, A.SUCCEEDED, "w2@b"),
    run(7, R.SUCCEEDED, None, 2),
]
SIGHTINGS = [
    seen(2, "start", 0, 1),
    seen(4, "start", 0, 2),
    seen(4.5, "end", 0, 2),
    seen(6, "start", 1, 1),
    seen(6.5, "end", 1, 1),
]
GOOD = Evidence([PROMISE], NOTES, SIGHTINGS)


def found(evidence: Evidence) -> list[tuple[str, str]]:
    return [(finding.kind, finding.sentence) for finding in judge(evidence).findings]


def test_a_history_as_it_should_be() -> None:
    struck = replace(GOOD, strikes=[(2.5, "worker-kill", ("w1",)), (5.2, "master-kill", ("m1",))])
    verdict = judge(struck)
    assert verdict.findings == []
    assert (verdict.runs, verdict.tasks, verdict.attempts, verdict.failovers) == (1, 2, 3, 1)
    assert verdict.worker_kill_seconds == [1.5]
    assert [round(seconds, 3) for seconds in verdict.master_kill_seconds] == [0.3]


def test_two_that_overlap_by_the_kernels_lock() -> None:
    doctored = replace(GOOD, sightings=[*SIGHTINGS, seen(4, "overlap", 0, 2)])
    assert found(doctored) == [("overlap", "7.0.2 started while another attempt of its task was alive")]


def test_an_attempt_that_started_twice() -> None:
    doctored = replace(GOOD, sightings=[*SIGHTINGS, seen(6.2, "start", 1, 1)])
    assert [kind for kind, _ in found(doctored)] == ["overlap"]


def test_a_run_that_was_promised_and_is_not_there() -> None:
    other = Promise("other", RUN + 1, PROMISE.workflow, 1.5)
    assert [kind for kind, _ in found(replace(GOOD, promises=[PROMISE, other]))] == ["lost"]


def test_a_run_that_does_not_end() -> None:
    assert found(replace(GOOD, notes=NOTES[:-1])) == [("lost", "the run never ended: it is RUNNING of m2@b")]


def test_one_submit_that_made_two_runs() -> None:
    second = msgspec.structs.replace(NOTES[-1], run_id=RUN + 1)
    assert found(replace(GOOD, notes=[*NOTES, second])) == [("broken", "one submit made 2 runs")]


def test_an_end_that_is_settled_twice() -> None:
    doctored = replace(GOOD, notes=[*NOTES, attempt(8, 1, 1, A.FAILED, "w2@b")])
    assert found(doctored) == [("broken", "7.1.1 had ended as SUCCEEDED and became FAILED")]
    doctored = replace(GOOD, notes=[*NOTES, run(8, R.FAILED, None, 2)])
    assert ("broken", "a run that has ended as SUCCEEDED became FAILED of None") in found(doctored)


def test_an_epoch_that_goes_back_or_has_two_owners() -> None:
    back = [*NOTES[:-2], run(5.6, R.RUNNING, "m1@a", 1), *NOTES[-2:]]
    assert found(replace(GOOD, notes=back)) == [("broken", "a write under epoch 1 was accepted after epoch 2")]
    two = [*NOTES[:-2], run(5.6, R.RUNNING, "m3@c", 2), *NOTES[-2:]]
    assert found(replace(GOOD, notes=two)) == [("broken", "m2@b and m3@c own the run in epoch 2")]


def test_a_task_that_starts_before_what_it_needs() -> None:
    early = [*SIGHTINGS[:3], seen(4.9, "start", 1, 1), *SIGHTINGS[4:]]
    assert found(replace(GOOD, sightings=early)) == [("broken", "7.1.1 starts before it is durable")]


def test_an_attempt_that_starts_after_it_was_given_up() -> None:
    """So did a worker that was paused and found an old order in its socket when it went on."""
    late = [seen(3.5, "start", 0, 1), *SIGHTINGS[1:]]
    assert found(replace(GOOD, sightings=late)) == [("broken", "7.0.1 starts though it is FAILOVER")]


def test_a_success_that_nobody_saw() -> None:
    unseen = [each for each in SIGHTINGS if each.key != (RUN, 1, 1)]
    assert found(replace(GOOD, sightings=unseen)) == [("broken", "7.1.1 became SUCCEEDED and never started")]


def test_an_outcome_that_its_tasks_did_not_earn() -> None:
    failed = [*NOTES[:-1], run(7, R.FAILED, None, 2)]
    assert found(replace(GOOD, notes=failed))[0] == ("broken", "the run ended FAILED, it earned SUCCEEDED")


def test_a_run_that_failed_for_no_reason_of_its_own() -> None:
    """Its rows agree with one another, but nothing in it can fail."""
    rows = [*NOTES[:-2], attempt(7, 1, 1, A.FAILED, "w2@b"), run(7, R.FAILED, None, 2)]
    witnessed = [*SIGHTINGS[:-1], seen(6.5, "end", 1, 1, 1)]
    assert found(replace(GOOD, notes=rows, sightings=witnessed)) == [
        ("broken", "the run failed, though none of its tasks does ()")
    ]


def test_what_is_left_behind() -> None:
    doctored = replace(GOOD, processes=[(1, "key")], left_over=["/left/dir"])
    assert [kind for kind, _ in found(doctored)] == ["left", "left"]


def test_a_seed_makes_one_plan() -> None:
    def plan(seed: int) -> list[str]:
        cast = Cast(["m1", "m2"], ["w1", "w2", "w3"])
        faults = make_plan(seed, list(KINDS), cast, every=(2, 10), seconds=600, lease=4)
        return [f"{fault.at} {fault} {fault.roll}" for fault in faults]

    assert plan(1) == plan(1)
    assert plan(1) != plan(2)


def test_a_target_has_one_fault_at_a_time() -> None:
    cast, until = Cast(["m1", "m2"], ["w1", "w2", "w3"]), dict[str, float]()
    for fault in make_plan(3, list(KINDS), cast, every=(0.5, 1), seconds=600, lease=4):
        for name in cast.masters if fault.targets == ("masters",) else fault.targets:
            assert until.get(name, 0.0) <= fault.at
            until[name] = fault.at + fault.seconds
    assert len(until) > len(cast.masters) + len(cast.workers)
