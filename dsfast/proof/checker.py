"""The promises of a cluster as rules over its history. It knows the states' tables and nothing of how engines decide.

Theory of operation. Events are taken one by one, in the order of time; what would be broken by the next is told at
that event, with the run and the task it concerns. So a simulation stops where it went wrong. What can only be said
at rest (everything accepted has ended, in the state that its tasks earned) is said by `finish`. Where the witnesses
of a real cluster can be killed before they say that a task has ended (`sees_ends` False), what is not seen is
assumed to have ended, and the kernel's word (`overlap`) says the rest. What a worker runs while it is stopped itself
is out of everybody's reach (`unfenced`): it may meet its replacement, and that is all that is forgiven.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from dsfast.engine.states import ATTEMPT_STEPS, RUN_STEPS, Step
from dsfast.model import AttemptState, RunState
from dsfast.proof.history import Event, TaskPlan
from dsfast.proof.verdict import Last, earned

A, R = AttemptState, RunState
S = TypeVar("S", AttemptState, RunState)
NO_EXCUSE: Mapping[int, str] = {}


class Broken(AssertionError):
    """A promise was broken: which, and the run and the task concerned if there are such."""

    def __init__(self, promise: str, run: int | None = None, task: int | None = None) -> None:
        super().__init__(promise)
        self.run = run
        self.task = task


def hold(kept: bool, promise: str, run: int | None = None, task: int | None = None) -> None:
    """Raise Broken unless the promise is kept."""
    if not kept:
        raise Broken(promise, run, task)


def reachable(table: Mapping[tuple[S, Step], S]) -> dict[S, set[S]]:
    """The states that a durable row may change to: those that one or more steps lead to, and its own."""
    states = {state for state, _ in table} | set(table.values())
    after = {state: {state} for state in states}
    for _ in states:
        for (state, _step), following in table.items():
            for found in after.values():
                if state in found:
                    found.add(following)
    return after


ATTEMPT_AFTER = reachable(ATTEMPT_STEPS)
RUN_AFTER = reachable(RUN_STEPS)


@dataclass(slots=True)
class Attempt:
    """One try of a task. `ran_on` is None until it starts; `value` is what its process came to."""

    run: int
    task: int
    number: int
    state: AttemptState | None = None
    worker: str | None = None
    ran_on: str | None = None
    started: bool = False
    ended: bool = False
    unfenced: bool = False  # nobody could end it when it was replaced
    value: str | None = None

    @property
    def runs(self) -> bool:
        """Whether it runs, and somebody answers for its not meeting another."""
        return self.started and not self.ended and not self.unfenced

    def hold(self, kept: bool, promise: str) -> None:
        """Raise Broken, naming this attempt, unless the promise is kept."""
        if not kept:
            raise Broken(f"{self.run}.{self.task}.{self.number} {promise}", self.run, self.task)


@dataclass(slots=True)
class Run:
    """One run: its row as it is durable now, and its tasks' attempts by number."""

    id: int
    plan: tuple[TaskPlan, ...] | None = None
    stops: bool = False  # with the first failure
    state: RunState | None = None
    owner: str | None = None
    epoch: int = 0
    unwanted: bool = False  # somebody asked for it to stop
    cancelled: bool = False  # and that was durable while it went on
    attempts: dict[int, dict[int, Attempt]] = field(default_factory=dict)

    def of(self, task: int) -> Iterable[Attempt]:
        return self.attempts.get(task, {}).values()

    def failures(self, task: int) -> int:
        return sum(attempt.state is A.FAILED for attempt in self.of(task))

    def task_plan(self, task: int) -> TaskPlan | None:
        return self.plan[task] if self.plan is not None else None


class Checker:
    """Takes a history and raises Broken at the first event that breaks a promise."""

    def __init__(self, *, sees_ends: bool = True) -> None:
        self.runs: dict[int, Run] = {}
        self.taken = 0  # events
        self._sees_ends = sees_ends
        self._keys: dict[str, int] = {}
        self._owners: dict[tuple[int, int], str] = {}
        self._rules = {
            "plan": self._plan, "accepted": self._accept, "cancel": self._cancel, "run": self._change_run,
            "attempt": self._change_attempt, "starts": self._start, "ends": self._end, "overlap": self._overlap,
            "unfenced": self._unfence,
        }  # fmt: skip

    def take(self, event: Event) -> None:
        """Judge one event. Raises Broken."""
        self.taken += 1
        self._rules[event.kind](event)

    # -- what people are told and ask for ---------------------------------------------------------------------

    def _plan(self, event: Event) -> None:
        run = self._run(event.run)
        run.plan, run.stops = event.tasks, event.stops

    def _accept(self, event: Event) -> None:
        self._one_run_for(event)
        hold(self._run(event.run).state is not None, "a run was accepted before it was durable", event.run)

    def _one_run_for(self, event: Event) -> None:
        if event.key is not None:
            known = self._keys.setdefault(event.key, event.run)
            hold(known == event.run, f"one key, two runs: {event.key!r} is {known} and {event.run}", event.run)

    def _cancel(self, event: Event) -> None:
        self._run(event.run).unwanted = True

    # -- rows of runs ----------------------------------------------------------------------------------------------

    def _change_run(self, event: Event) -> None:
        run, state = self._run(event.run), R[event.state]
        self._one_run_for(event)
        if run.state is not None and run.state.final:
            same = (state, event.owner, event.epoch) == (run.state, run.owner, run.epoch)
            hold(same, f"a run that has ended as {run.state.name} became {state.name} of {event.owner}", run.id)
            return
        before = run.state or R.SUBMITTED
        hold(state in RUN_AFTER[before], f"a run goes from {before.name} to {state.name}: there is no such way", run.id)
        self._check_owner(run, event, state)
        wanted = state not in (R.READY_STOP, R.STOPPED) or run.unwanted
        hold(wanted, f"the run became {state.name}, and nobody asked for that", run.id)
        run.state, run.owner, run.epoch = state, event.owner, event.epoch or 0
        run.cancelled = run.cancelled or state in (R.READY_STOP, R.STOPPED)

    def _check_owner(self, run: Run, event: Event, state: RunState) -> None:
        epoch = event.epoch or 0
        hold(epoch >= run.epoch, f"a write under epoch {epoch} was accepted after epoch {run.epoch}", run.id)
        hold((event.owner is None) == state.final, f"a run that is {state.name} is owned by {event.owner}", run.id)
        if event.owner is not None:
            owner = self._owners.setdefault((run.id, epoch), event.owner)
            hold(owner == event.owner, f"{owner} and {event.owner} own the run in epoch {epoch}", run.id)

    # -- rows of attempts --------------------------------------------------------------------------------------------

    def _change_attempt(self, event: Event) -> None:
        run, attempt, state = self._run(event.run), self._attempt(event), A[event.state]
        if event.epoch is not None:
            attempt.hold(event.epoch == run.epoch, f"was written under epoch {event.epoch}, it is {run.epoch} by now")
        if attempt.state is None:
            self._check_number(run, attempt)
        elif attempt.state.final:
            same = (state, event.worker) == (attempt.state, attempt.worker)
            attempt.hold(same, f"had ended as {attempt.state.name} and became {state.name}")
            return
        before = attempt.state or A.SUBMITTED
        attempt.hold(state in ATTEMPT_AFTER[before], f"goes from {before.name} to {state.name}: there is no such way")
        over = run.state is not None and run.state.final
        attempt.hold(state.final or not over, f"became {state.name} in a run that has ended")
        if state is A.SUBMITTED:
            attempt.hold(not attempt.started, "was given back though it has started")
        if state.final:
            self._check_end(run, attempt, event, state)
        attempt.state, attempt.worker = state, event.worker

    def _check_number(self, run: Run, attempt: Attempt) -> None:
        """Numbers have no gaps; each follows a failure that may be retried, or a loss, which uses up no retry."""
        plan = run.task_plan(attempt.task)
        earlier = [each for each in run.of(attempt.task) if each.state is not None]
        attempt.hold(len(earlier) == attempt.number - 1, f"comes after {len(earlier)} attempts")
        ended = all(each.state in (A.FAILED, A.FAILOVER) for each in earlier)
        attempt.hold(ended, f"follows {[each.state.name for each in earlier if each.state]}")
        if plan is not None:
            failures = run.failures(attempt.task)
            attempt.hold(failures <= plan.retries, f"is retry {failures} of {plan.retries}")
            attempt.hold(plan.enabled, "is one of a disabled task")

    def _check_end(self, run: Run, attempt: Attempt, event: Event, state: AttemptState) -> None:
        attempt.hold(not (attempt.runs and self._sees_ends), f"became {state.name} while its process runs")
        if state is A.SUCCEEDED or (state is A.FAILED and event.value is not None):
            attempt.hold(attempt.started, f"became {state.name} and never started")
            self._check_value(attempt, event, state)
        if state is A.KILLED:
            attempt.hold(run.unwanted or run.stops, "was killed though nobody asked for that")

    def _check_value(self, attempt: Attempt, event: Event, state: AttemptState) -> None:
        here = not event.worker or not attempt.ran_on or event.worker == attempt.ran_on
        attempt.hold(here, f"became {state.name} on {event.worker}, it ran on {attempt.ran_on}")
        if attempt.ended or self._sees_ends:
            same = event.value == attempt.value
            attempt.hold(same, f"became {state.name} with {event.value!r}, its process ended with {attempt.value!r}")

    # -- processes --------------------------------------------------------------------------------------------------

    def _start(self, event: Event) -> None:
        run, attempt = self._run(event.run), self._attempt(event)
        attempt.hold(not attempt.started, f"starts twice, first on {attempt.ran_on}")
        beside = [each.number for each in run.of(attempt.task) if each.runs and self._sees_ends]
        attempt.hold(not beside, f"starts beside attempt {beside} of its task")
        attempt.hold(attempt.state is not None, "starts before it is durable")
        assert attempt.state is not None
        attempt.hold(attempt.state in (A.DISPATCHED, A.RUNNING), f"starts though it is {attempt.state.name}")
        here = not event.worker or event.worker == attempt.worker
        attempt.hold(here, f"starts on {event.worker}, it is bound to {attempt.worker}")
        self._check_needs(run, attempt)
        attempt.started, attempt.ran_on = True, event.worker

    def _check_needs(self, run: Run, attempt: Attempt) -> None:
        """Everything upstream has durably succeeded; disabled tasks are seen through."""
        for need in needs(run.plan or (), attempt.task):
            done = any(each.state is A.SUCCEEDED for each in run.of(need))
            attempt.hold(done, f"starts before task {need} has durably succeeded")

    def _end(self, event: Event) -> None:
        attempt = self._attempt(event)
        attempt.hold(attempt.started, "ends and never started")
        attempt.hold(not attempt.ended, "ends twice")
        attempt.ended, attempt.value = True, event.value

    def _overlap(self, event: Event) -> None:
        others = self._run(event.run).of(event.task or 0)
        excused = any(each.unfenced for each in others)
        self._attempt(event).hold(excused, "started while another attempt of its task was alive")

    def _unfence(self, event: Event) -> None:
        self._attempt(event).unfenced = True

    # -- at rest ------------------------------------------------------------------------------------------------------

    def finish(self, excused: Mapping[int, str] = NO_EXCUSE) -> None:
        """Judge what is left when everything is repaired and at rest; runs in `excused` may be unfinished, or wrong."""
        for run in self.runs.values():
            if run.id not in excused:
                self._finish_run(run)

    def _finish_run(self, run: Run) -> None:
        if run.state is None:
            return  # asked for, and never accepted
        hold(run.state.final, f"the run never ended: it is {run.state.name} of {run.owner}", run.id)
        last: dict[int, Last] = {}
        for task, attempts in run.attempts.items():
            for attempt in attempts.values():
                self._finish_attempt(attempt)
            state = attempts[max(attempts)].state
            if state is not None:
                last[task] = Last(state, run.failures(task))
        if run.plan is not None:
            expected = earned(run.plan, last, cancelled=run.cancelled)
            hold(run.state is expected, f"the run ended {run.state.name}, it earned {expected.name}", run.id)

    def _finish_attempt(self, attempt: Attempt) -> None:
        attempt.hold(attempt.state is not None and attempt.state.final, f"never ended: {attempt.state}")
        attempt.hold(attempt.ended or not (attempt.started and self._sees_ends), "runs still")

    # -- state ---------------------------------------------------------------------------------------------------------

    def _run(self, run_id: int) -> Run:
        if run_id not in self.runs:
            self.runs[run_id] = Run(run_id)
        return self.runs[run_id]

    def _attempt(self, event: Event) -> Attempt:
        task, number = event.task or 0, event.attempt or 0
        attempts = self._run(event.run).attempts.setdefault(task, {})
        if number not in attempts:
            attempts[number] = Attempt(event.run, task, number)
        return attempts[number]


def needs(plan: tuple[TaskPlan, ...], task: int) -> Iterator[int]:
    """The enabled tasks that this one waits for, directly or through disabled ones."""
    waiting, seen = list(plan[task].needs if plan else ()), set()
    while waiting:
        need = waiting.pop()
        if need in seen:
            continue
        seen.add(need)
        if plan[need].enabled:
            yield need
        else:
            waiting.extend(plan[need].needs)
