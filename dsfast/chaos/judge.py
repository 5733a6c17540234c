"""Whether every promise was kept, by what client, database and tasks have said.

Notes of the database are complete and, for each row, in order. Sightings of tasks are compared with them by the
clock of this one machine; that attempts of a task never overlap is proven by the kernel's lock and needs no clock.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

from dsfast.chaos.journal import Note
from dsfast.chaos.load import Promise
from dsfast.chaos.vitals import Vitals
from dsfast.chaos.witness import Attempt, Sighting
from dsfast.engine.states import ATTEMPT_STEPS, RUN_STEPS, Step
from dsfast.ids import run_text
from dsfast.model import AttemptState, RunState, Workflow

A, R = AttemptState, RunState
S = TypeVar("S", AttemptState, RunState)
FINDING_KINDS = ("overlap", "lost", "broken", "left", "grown")
TIMED_OUT = "timed out"
FAILOVER_SECONDS_MAX = 60.0  # after a kill, to be put down to it
WORKER_KILLS = frozenset({"worker-kill", "worker-restart", "guardian-kill", "worker-both"})
MASTER_KILLS = frozenset({"master-kill", "master-restart"})
Strike = tuple[float, str, tuple[str, ...]]  # when, what, to whom


@dataclass(slots=True)
class Evidence:
    """All that was seen."""

    promises: Sequence[Promise]
    notes: Sequence[Note]
    sightings: Sequence[Sighting]
    strikes: Sequence[Strike] = ()
    unfinished: Sequence[int] = ()
    processes: Sequence[tuple[int, str]] = ()
    left_over: Sequence[str] = ()
    vitals: Vitals | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A promise that was broken: its kind (lost, overlap, broken, left, grown), a sentence, and whom it concerns."""

    kind: str
    sentence: str
    run: int | None = None
    task: int | None = None

    @property
    def where(self) -> str:
        """The run and task, for people."""
        run = "" if self.run is None else f"run {run_text(self.run)}"
        return run + ("" if self.task is None else f" task {self.task}") + (": " if run else "")


@dataclass(slots=True)
class Verdict:
    """What came of it."""

    seed: int = 0
    findings: list[Finding] = field(default_factory=list)
    runs: int = 0
    tasks: int = 0
    attempts: int = 0
    failovers: int = 0
    started: int = 0
    states: Counter[str] = field(default_factory=Counter)
    worker_kill_seconds: list[float] = field(default_factory=list)
    master_kill_seconds: list[float] = field(default_factory=list)
    growth: dict[str, tuple[float, int, int]] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    respawned: Counter[str] = field(default_factory=Counter)
    story: str = ""  # of the first finding
    folder: str = ""  # where everything that was seen is kept

    def count(self, kind: str) -> int:
        """How many findings are of this kind."""
        return sum(finding.kind == kind for finding in self.findings)


def judge(seen: Evidence) -> Verdict:
    """Judge what was seen."""
    rows = _Rows(seen.notes)
    verdict = Verdict(runs=len(seen.promises), attempts=len(rows.attempts))
    for finding in (
        *_changes(rows),
        *_promises(seen, rows),
        *_sightings(seen, rows),
        *_needs(seen, rows),
        *_remains(seen),
    ):
        verdict.findings.append(finding)
    verdict.tasks = len({key[:2] for key in rows.attempts})
    verdict.failovers = sum(notes[-1].state == A.FAILOVER for notes in rows.attempts.values())
    verdict.started = sum(sighting.what == "start" for sighting in seen.sightings)
    verdict.states = Counter(R(notes[-1].state).name.lower() for notes in rows.runs.values())
    verdict.worker_kill_seconds = sorted(_replaced_after(seen, rows))
    verdict.master_kill_seconds = sorted(_claimed_after(seen, rows))
    verdict.growth = seen.vitals.largest() if seen.vitals is not None else {}
    return verdict


class _Rows:
    """The notes of every row, in order."""

    def __init__(self, notes: Sequence[Note]) -> None:
        self.runs: dict[int, list[Note]] = defaultdict(list)
        self.attempts: dict[Attempt, list[Note]] = defaultdict(list)
        for note in notes:
            if note.what == "run":
                self.runs[note.run_id].append(note)
            else:
                assert note.task is not None
                assert note.attempt is not None
                self.attempts[note.run_id, note.task, note.attempt].append(note)


# -- the database --------------------------------------------------------------------------------------------------


def _changes(rows: _Rows) -> Iterator[Finding]:
    for run, notes in rows.runs.items():
        owners: dict[int, str] = {}
        for old, new in zip([None, *notes], notes, strict=False):
            for sentence in _run_change(old, new, owners):
                yield Finding("broken", sentence, run)
    for key, notes in rows.attempts.items():
        for old, new in pairwise(notes):
            for sentence in _attempt_change(key, old, new):
                yield Finding("broken", sentence, *key[:2])


def _run_change(old: Note | None, new: Note, owners: dict[int, str]) -> Iterator[str]:
    if new.holder is not None and new.epoch is not None:
        owner = owners.setdefault(new.epoch, new.holder)
        if owner != new.holder:
            yield f"{owner} and {new.holder} own the run in epoch {new.epoch}"
    if old is None:
        return
    before, after = R(old.state), R(new.state)
    if before.final:
        yield f"a run that had ended ({before.name}) was written again: {after.name}"
    elif before is not after and after not in _RUN_AFTER[before]:
        yield f"a run went from {before.name} to {after.name}"
    if (new.epoch or 0) < (old.epoch or 0):
        yield f"the epoch went back from {old.epoch} to {new.epoch}"


def _attempt_change(key: Attempt, old: Note, new: Note) -> Iterator[str]:
    before, after = A(old.state), A(new.state)
    if before.final:
        yield f"attempt {key[2]} had ended ({before.name}) and was written again: {after.name}"
    elif before is not after and after not in _ATTEMPT_AFTER[before]:
        yield f"attempt {key[2]} went from {before.name} to {after.name}"


# -- the client ----------------------------------------------------------------------------------------------------


def _promises(seen: Evidence, rows: _Rows) -> Iterator[Finding]:
    by_tag: dict[str, set[int]] = defaultdict(set)
    for run, notes in rows.runs.items():
        by_tag[notes[0].tag or ""].add(run)
    for run in seen.unfinished:
        yield Finding("lost", "the run does not end, though everything is healed", run)
    for promise in seen.promises:
        runs = by_tag[promise.key]
        if promise.run not in rows.runs:
            yield Finding("lost", f"run {run_text(promise.run)} was promised and is not there", promise.run)
        elif runs != {promise.run}:
            yield Finding("broken", f"one submit made {len(runs)} runs", promise.run)
        else:
            yield from _outcome(promise, R(rows.runs[promise.run][-1].state), rows.runs[promise.run][-1].reason)


def _outcome(promise: Promise, state: RunState, reason: str) -> Iterator[Finding]:
    if not state.final:
        return  # said already
    if state is R.STOPPED and not promise.cancelled:
        yield Finding("broken", f"the run was cancelled, and nobody asked for it ({reason})", promise.run)
    if state is R.FAILED and not promise.must_fail:
        yield Finding("broken", f"the run failed, though none of its tasks does ({reason})", promise.run)
    if state is R.SUCCEEDED and promise.must_fail:
        yield Finding("broken", "the run succeeded, though one of its tasks cannot", promise.run)


# -- the tasks -----------------------------------------------------------------------------------------------------


def _sightings(seen: Evidence, rows: _Rows) -> Iterator[Finding]:
    started: Counter[Attempt] = Counter()
    ended: dict[Attempt, Sighting] = {}
    for sighting in seen.sightings:
        if sighting.what == "overlap":
            yield Finding("overlap", f"attempt {sighting.key[2]} started beside an earlier one", *sighting.key[:2])
        elif sighting.what == "start":
            started[sighting.key] += 1
        else:
            ended[sighting.key] = sighting
    for key, times in started.items():
        if times > 1:
            yield Finding("overlap", f"attempt {key[2]} started {times} times", *key[:2])
        if key not in rows.attempts:
            yield Finding("broken", f"attempt {key[2]} ran without a row", *key[:2])
    for key, notes in rows.attempts.items():
        last = notes[-1]
        if last.state == A.SUCCEEDED and (key not in ended or ended[key].code != 0):
            yield Finding("broken", f"attempt {key[2]} succeeded, though it never said so", *key[:2])
        elif last.state == A.FAILED and not last.reason.startswith(TIMED_OUT) and key not in started:
            yield Finding("broken", f"attempt {key[2]} failed, though it never ran ({last.reason})", *key[:2])


def _needs(seen: Evidence, rows: _Rows) -> Iterator[Finding]:
    """No task starts before all that it needs has durably succeeded."""
    workflows = {promise.run: promise.workflow for promise in seen.promises}
    succeeded = {
        key[:2]: note.at for key, notes in rows.attempts.items() for note in notes if note.state == A.SUCCEEDED
    }
    for sighting in seen.sightings:
        run, task, number = sighting.key
        if sighting.what == "start" and run in workflows:
            for need in _needed(workflows[run], task):
                at = succeeded.get((run, need))
                if at is None or at > sighting.at:
                    yield Finding("broken", f"attempt {number} started before task {need} had succeeded", run, task)


def _needed(workflow: Workflow, task: int) -> Iterator[int]:
    names = {each.name: at for at, each in enumerate(workflow.tasks)}
    return (names[need] for need in workflow.tasks[task].needs)


# -- what is left --------------------------------------------------------------------------------------------------


def _remains(seen: Evidence) -> Iterator[Finding]:
    for pid, key in seen.processes:
        yield Finding("left", f"process {pid} of attempt {key} is alive")
    for path in seen.left_over:
        yield Finding("left", f"{path} was left behind")
    for sentence in seen.vitals.grown() if seen.vitals is not None else ():
        yield Finding("grown", sentence)


# -- how long it took ----------------------------------------------------------------------------------------------


def _replaced_after(seen: Evidence, rows: _Rows) -> Iterator[float]:
    """From a worker's kill to the start of the next attempt of each task that ran on it."""
    starts = {sighting.key: sighting.at for sighting in seen.sightings if sighting.what == "start"}
    lost = [(key, notes[-1]) for key, notes in rows.attempts.items() if notes[-1].state == A.FAILOVER]
    for at, kind, targets in seen.strikes:
        if kind in WORKER_KILLS:
            for (run, task, number), note in lost:
                struck = (note.holder or "").startswith(f"{targets[0]}@")
                again = starts.get((run, task, number + 1))
                if struck and again is not None and 0 <= note.at - at <= FAILOVER_SECONDS_MAX:
                    yield again - at


def _claimed_after(seen: Evidence, rows: _Rows) -> Iterator[float]:
    """From a master's kill to the claim of each of its runs by another."""
    for at, kind, targets in seen.strikes:
        if kind in MASTER_KILLS:
            for notes in rows.runs.values():
                for old, new in pairwise(notes):
                    theirs = (old.holder or "").startswith(f"{targets[0]}@") and new.holder != old.holder
                    if theirs and new.holder is not None and 0 <= new.at - at <= FAILOVER_SECONDS_MAX:
                        yield new.at - at


def _after(table: Mapping[tuple[S, Step], S], states: Iterable[S]) -> dict[S, set[S]]:
    """The states that one or more steps lead to: several steps of a turn are one change of the row."""
    after: dict[S, set[S]] = {state: set() for state in states}
    for _ in after:
        for (state, _step), following in table.items():
            for origin, found in after.items():
                if state is origin or state in found:
                    found.add(following)
    return after


_RUN_AFTER = _after(RUN_STEPS, R)
_ATTEMPT_AFTER = _after(ATTEMPT_STEPS, A)
