"""Whether every promise was kept, by what client, database and tasks have said.

Notes of the database are complete and, for each row, in order. What tasks and client said is put between them by the
clock of this one machine, into a history that `dsfast.proof` judges, run by run; that attempts of a task never overlap
is proven by the kernel's lock and needs no clock. To that comes what only this load can know (which runs must fail),
and what is left behind.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from dsfast.chaos.journal import Note
from dsfast.chaos.load import Promise
from dsfast.chaos.vitals import Vitals
from dsfast.chaos.witness import Sighting
from dsfast.ids import run_text
from dsfast.model import AttemptState, RunState
from dsfast.proof.checker import Broken, Checker
from dsfast.proof.history import Event, Kind, merge, plan

A, R = AttemptState, RunState
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
    processes: Sequence[tuple[int, str]] = ()
    left_over: Sequence[str] = ()
    vitals: Vitals | None = None

    def history(self) -> Iterator[Event]:
        """What the three witnesses said, as one history."""
        notes = sorted(self.notes, key=lambda note: note.at)
        first = {note.run_id: note.at for note in reversed(notes)}
        plans = [plan(each.workflow, each.run, first.get(each.run, 0.0), "client") for each in self.promises]
        return merge(
            sorted(plans, key=lambda event: event.at),
            map(_note_event, notes),
            map(_sighting_event, sorted(self.sightings, key=lambda sighting: sighting.at)),
            sorted(_client_events(self.promises), key=lambda event: event.at),
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """A promise that was broken: its kind (of FINDING_KINDS), a sentence, and whom it concerns."""

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
    last = _last_notes(seen.notes)
    attempts = {key: note for key, note in last.items() if note.what == "attempt"}
    runs = {note.run_id: note for note in last.values() if note.what == "run"}
    verdict = Verdict(runs=len(seen.promises), attempts=len(attempts))
    verdict.findings = [*_rules(seen), *_outcomes(seen, runs), *_remains(seen)]
    verdict.tasks = len({key[:2] for key in attempts})
    verdict.failovers = sum(note.state == A.FAILOVER for note in attempts.values())
    verdict.started = sum(sighting.what == "start" for sighting in seen.sightings)
    verdict.states = Counter(R(note.state).name.lower() for note in runs.values())
    verdict.worker_kill_seconds = sorted(_replaced_after(seen, attempts.values()))
    verdict.master_kill_seconds = sorted(_claimed_after(seen))
    verdict.growth = seen.vitals.largest() if seen.vitals is not None else {}
    return verdict


def _last_notes(notes: Sequence[Note]) -> dict[tuple[int, int | None, int | None], Note]:
    return {(note.run_id, note.task, note.attempt): note for note in notes}


# -- the history ---------------------------------------------------------------------------------------------------


def _note_event(note: Note) -> Event:
    if note.what == "run":
        state = R(note.state).name
        return Event(
            at=note.at, kind="run", node="store", run=note.run_id, state=state, owner=note.holder, epoch=note.epoch,
            key=note.tag, detail=note.reason,
        )  # fmt: skip
    told = note.exit_code is not None and not note.reason.startswith(TIMED_OUT)
    return Event(
        at=note.at, kind="attempt", node="store", run=note.run_id, task=note.task, attempt=note.attempt,
        state=A(note.state).name, worker=note.holder, value=str(note.exit_code) if told else None, detail=note.reason,
    )  # fmt: skip


def _sighting_event(seen: Sighting) -> Event:
    run, task, attempt = seen.key
    if seen.what == "end":
        return Event(at=seen.at, kind="ends", node="task", run=run, task=task, attempt=attempt, value=str(seen.code))
    kind: Kind = "starts" if seen.what == "start" else "overlap"
    return Event(at=seen.at, kind=kind, node="task", run=run, task=task, attempt=attempt, detail=f"pid {seen.pid}")


def _client_events(promises: Sequence[Promise]) -> Iterator[Event]:
    for each in promises:
        yield Event(at=each.accepted_at, kind="accepted", node="client", run=each.run, key=each.key)
        if each.cancelled_at is not None:
            yield Event(at=each.cancelled_at, kind="cancel", node="client", run=each.run)


def _rules(seen: Evidence) -> Iterator[Finding]:
    """The first promise of each run that was broken."""
    checkers: dict[int, Checker] = {}
    over: set[int] = set()
    for event in seen.history():
        if event.run not in over:
            try:
                checkers.setdefault(event.run, Checker(sees_ends=False)).take(event)
            except Broken as broken:
                over.add(event.run)
                yield Finding(_kind_of(event, checkers[event.run]), str(broken), event.run, broken.task)
    for run, checker in checkers.items():
        if run not in over:
            try:
                checker.finish()
            except Broken as broken:
                state = checker.runs[run].state
                ended = state is not None and state.final
                yield Finding("broken" if ended else "lost", str(broken), run, broken.task)


def _kind_of(event: Event, checker: Checker) -> str:
    """Under which heading it counts."""
    if event.kind == "accepted" and checker.runs[event.run].state is None:
        return "lost"
    attempt = checker.runs[event.run].attempts.get(event.task or 0, {}).get(event.attempt or 0)
    twice = event.kind == "starts" and attempt is not None and attempt.started
    return "overlap" if twice or event.kind == "overlap" else "broken"


def _outcomes(seen: Evidence, runs: dict[int, Note]) -> Iterator[Finding]:
    """What this load knows: each submit is one run, and one fails only by a task that cannot succeed."""
    made: dict[str, set[int]] = defaultdict(set)
    for run, note in runs.items():
        made[note.tag or ""].add(run)
    for promise in seen.promises:
        others = made[promise.key] - {promise.run}
        if others:
            yield Finding("broken", f"one submit made {len(others) + 1} runs", promise.run)
        last = runs.get(promise.run)
        if last is not None and last.state == R.FAILED and not promise.must_fail:
            yield Finding("broken", f"the run failed, though none of its tasks does ({last.reason})", promise.run)
        if last is not None and last.state == R.SUCCEEDED and promise.must_fail:
            yield Finding("broken", "the run succeeded, though one of its tasks cannot", promise.run)


def _remains(seen: Evidence) -> Iterator[Finding]:
    for pid, key in seen.processes:
        yield Finding("left", f"process {pid} of attempt {key} is alive")
    for path in seen.left_over:
        yield Finding("left", f"{path} was left behind")
    for sentence in seen.vitals.grown() if seen.vitals is not None else ():
        yield Finding("grown", sentence)


# -- how long it took ----------------------------------------------------------------------------------------------


def _replaced_after(seen: Evidence, attempts: Iterable[Note]) -> Iterator[float]:
    """From a worker's kill to the start of the next attempt of each task that ran on it."""
    bound = {(note.run_id, note.task, note.attempt): note.at for note in reversed(seen.notes)}
    starts = {sighting.key: sighting.at for sighting in seen.sightings if sighting.what == "start"}
    lost = [note for note in attempts if note.state == A.FAILOVER]
    for at, kind, targets in seen.strikes:
        if kind in WORKER_KILLS:
            for note in lost:
                struck = (note.holder or "").startswith(f"{targets[0]}@")
                again = starts.get((note.run_id, note.task or 0, (note.attempt or 0) + 1))
                then = bound[note.run_id, note.task, note.attempt] <= at <= note.at <= at + FAILOVER_SECONDS_MAX
                if struck and again is not None and then:
                    yield again - at


def _claimed_after(seen: Evidence) -> Iterator[float]:
    """From a master's kill to the claim of each of its runs by another."""
    rows: dict[int, list[Note]] = defaultdict(list)
    for note in seen.notes:
        if note.what == "run":
            rows[note.run_id].append(note)
    for at, kind, targets in seen.strikes:
        if kind in MASTER_KILLS:
            for old, new in (pair for notes in rows.values() for pair in pairwise(notes)):
                theirs = (old.holder or "").startswith(f"{targets[0]}@") and new.holder != old.holder
                then = old.at <= at <= new.at <= at + FAILOVER_SECONDS_MAX
                if theirs and new.holder is not None and then:
                    yield new.at - at
