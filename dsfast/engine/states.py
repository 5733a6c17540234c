"""The states of runs and attempts, and every step between them.

Theory of operation. A state moves forward only, along the two tables below and nowhere else: `next_state`
on a pair that is not in its table is a bug of ours and raises IllegalTransition, which stops the daemon
before anything half-decided leaves it. Final states have no way out. An attempt is one try bound to one
worker's life; what follows it (a retry, another worker) is a new attempt with the next number, except when
the worker gave it back unstarted (`RETURN`): then nothing of it ever ran and it may be bound anew.
A cancel is a state of its own (READY_STOP), durable before anything is killed, so that it survives a crash.

The diagrams in docs/states.md are drawn from these tables by `mermaid`; a test fails when they are stale.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from dsfast.model import AttemptState, RunState


class IllegalTransition(AssertionError):
    """A step that no table has: a bug in the engine."""


class Step(StrEnum):
    """What can happen to an attempt or a run."""

    DISPATCH = "dispatch"  # bound to a worker, durable before it is sent
    RETURN = "return"  # the worker gave it back, or never got it: nothing ran
    START = "start"  # the worker says that it runs
    SUCCEED = "succeed"
    FAIL = "fail"
    KILL = "kill"  # ended because we said so
    LOSE = "lose"  # its worker died or stopped: failover, no retry is used
    CANCEL = "cancel"  # a person wants the run to stop


A, R = AttemptState, RunState

ATTEMPT_STEPS: Mapping[tuple[AttemptState, Step], AttemptState] = {
    (A.SUBMITTED, Step.DISPATCH): A.DISPATCHED,
    (A.SUBMITTED, Step.KILL): A.KILLED,
    (A.DISPATCHED, Step.RETURN): A.SUBMITTED,
    (A.DISPATCHED, Step.START): A.RUNNING,
    (A.DISPATCHED, Step.SUCCEED): A.SUCCEEDED,
    (A.DISPATCHED, Step.FAIL): A.FAILED,
    (A.DISPATCHED, Step.KILL): A.KILLED,
    (A.DISPATCHED, Step.LOSE): A.FAILOVER,
    (A.RUNNING, Step.SUCCEED): A.SUCCEEDED,
    (A.RUNNING, Step.FAIL): A.FAILED,
    (A.RUNNING, Step.KILL): A.KILLED,
    (A.RUNNING, Step.LOSE): A.FAILOVER,
}

RUN_STEPS: Mapping[tuple[RunState, Step], RunState] = {
    (R.SUBMITTED, Step.DISPATCH): R.RUNNING,
    (R.SUBMITTED, Step.SUCCEED): R.SUCCEEDED,  # every task is disabled
    (R.SUBMITTED, Step.FAIL): R.FAILED,
    (R.SUBMITTED, Step.CANCEL): R.READY_STOP,
    (R.RUNNING, Step.SUCCEED): R.SUCCEEDED,
    (R.RUNNING, Step.FAIL): R.FAILED,
    (R.RUNNING, Step.CANCEL): R.READY_STOP,
    (R.READY_STOP, Step.KILL): R.STOPPED,
    (R.READY_STOP, Step.FAIL): R.FAILED,
    (R.READY_STOP, Step.SUCCEED): R.SUCCEEDED,
}

OUTCOME_STEPS: Mapping[AttemptState, Step] = {
    A.SUCCEEDED: Step.SUCCEED,
    A.FAILED: Step.FAIL,
    A.KILLED: Step.KILL,
    A.FAILOVER: Step.LOSE,
}

S = TypeVar("S", AttemptState, RunState)


def next_state(table: Mapping[tuple[S, Step], S], state: S, step: Step, story: object = "") -> S:
    """The state after this step. Raises IllegalTransition, with the story of whom it concerns, if there is none."""
    try:
        return table[state, step]
    except KeyError:
        raise IllegalTransition(f"{state.name} cannot {step.value}: {story}") from None


def mermaid(table: Mapping[tuple[S, Step], S]) -> str:
    """The table as a mermaid state diagram."""
    lines = ["stateDiagram-v2"]
    starts = [state for state, _ in table if state.value == 0]
    lines += [f"    [*] --> {starts[0].name}"] if starts else []
    lines += [f"    {state.name} --> {after.name}: {step.value}" for (state, step), after in table.items()]
    finals = {after for after in table.values() if after.final}
    lines += [f"    {state.name} --> [*]" for state in sorted(finals)]
    return "\n".join(lines) + "\n"
