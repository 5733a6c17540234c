"""How a run must end, from how its tasks ended: the documented rules, written down a second time.

Engines decide by readiness, step by step; here the whole is looked at once. The two agree or one of them is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from dsfast.model import AttemptState, RunState
from dsfast.proof.history import TaskPlan

A, R = AttemptState, RunState


class Last(NamedTuple):
    """The last attempt of a task, and how many of all have failed."""

    state: AttemptState
    failures: int


def earned(plan: tuple[TaskPlan, ...], last: Mapping[int, Last], *, cancelled: bool) -> RunState:
    """The state of a run in which nothing goes on any more. Needs come before who needs them."""
    lost = {task for task, end in last.items() if _lost(end, plan[task].retries)}
    hopeless = set(lost)
    for task, each in enumerate(plan):
        if not hopeless.isdisjoint(each.needs):
            hopeless.add(task)
    decided = hopeless | {task for task, end in last.items() if end.state is A.SUCCEEDED}
    for task, each in enumerate(plan):
        if not each.enabled and decided.issuperset(each.needs):
            decided.add(task)
    held_back = len(decided) < len(plan)
    killed = any(last[task].state is A.KILLED for task in lost)
    if cancelled and (killed or held_back):
        return R.STOPPED
    return R.FAILED if lost else R.SUCCEEDED


def _lost(end: Last, retries: int) -> bool:
    return end.state is A.KILLED or (end.state is A.FAILED and end.failures > retries)
