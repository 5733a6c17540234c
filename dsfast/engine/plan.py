"""A workflow compiled for running: names and needs become positions, equal settings become one object.

A plan is immutable and shared by all runs of the same definition. What a worker needs of a task is
encoded once, so dispatching is copying bytes; tasks that differ only in name share the same bytes.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from dsfast._core.dag import CycleError, Dag
from dsfast.errors import Problem, UsageError
from dsfast.model import (
    BACKOFF_MAX,
    DURATION_SECONDS_MAX,
    NAME_LENGTH_MAX,
    REPLACE,
    RETRIES_MAX,
    TASKS_MAX,
    OnDisconnect,
    OnFailure,
    Priority,
    Retry,
    Task,
    Workflow,
    parse_canonical,
)
from dsfast.templates import template_names
from dsfast.wire.spec import TaskSpec


class Traits(NamedTuple):
    """What the master itself must know of a task; tasks with equal traits share one object."""

    group: str
    priority: Priority
    retry: Retry
    delay: float
    enabled: bool
    on_disconnect: OnDisconnect


@dataclass(slots=True)
class Plan:
    """A compiled workflow; lists are indexed by the task's position."""

    name: str
    digest: str
    names: list[str]
    specs: list[bytes]
    traits: list[Traits]
    sources: array[int]
    targets: array[int]
    params: dict[str, Any]
    priority: Priority
    on_failure: OnFailure
    uses: dict[int, frozenset[str]] = field(default_factory=dict)  # task -> names of tasks whose outputs it reads
    positions: dict[str, int] = field(default_factory=dict)  # name -> position, of tasks whose outputs are read

    def __len__(self) -> int:
        return len(self.names)

    def dag(self) -> Dag:
        """Fresh readiness for one run."""
        return Dag(len(self.names), self.sources, self.targets)

    def merged_params(self, given: dict[str, Any]) -> dict[str, Any]:
        """Defaults overlaid with what the run was given. Raises UsageError for a name the workflow does not have."""
        unknown = sorted(set(given) - set(self.params))
        if unknown:
            hint = f"it has: {', '.join(sorted(self.params)) or 'none'}"
            message = f"workflow {self.name!r} has no parameter"
            raise UsageError([Problem(f"{message} {name!r}", hint=hint) for name in unknown])
        return {**self.params, **given}


def digest_of(body: bytes) -> str:
    """What a definition is known by."""
    return hashlib.sha256(body).hexdigest()


def compile_body(body: bytes, on_disconnect: OnDisconnect = REPLACE) -> Plan:
    """Compile canonical JSON. Raises UsageError when it is not a workflow."""
    try:
        return compile_plan(parse_canonical(body), digest_of(body), on_disconnect)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"not a workflow: {error}") from None


def compile_plan(workflow: Workflow, digest: str, on_disconnect: OnDisconnect = REPLACE) -> Plan:
    """Compile a workflow. Raises UsageError for an unknown need, a repeated name, a cycle or an impossible time.

    `on_disconnect` is for tasks that say nothing of their own. What reaches a master may have been checked by nobody,
    and must not be able to end it.
    """
    tasks = workflow.tasks
    _refuse_impossible(workflow)
    index = {task.name: position for position, task in enumerate(tasks)}
    if len(index) != len(tasks):
        raise UsageError(f"workflow {workflow.name!r} has two tasks of one name: {_repeated(tasks)!r}")
    sources, targets = _edges(tasks, index)
    plan = Plan(
        name=workflow.name,
        digest=digest,
        names=[task.name for task in tasks],
        specs=_specs(tasks, on_disconnect),
        traits=_traits(tasks, on_disconnect),
        sources=sources,
        targets=targets,
        params=workflow.params,
        priority=workflow.priority,
        on_failure=workflow.on_failure,
    )
    _find_uses(plan, tasks, index)
    _refuse_cycle(plan)
    return plan


def _refuse_impossible(workflow: Workflow) -> None:
    if len(workflow.tasks) > TASKS_MAX:
        raise UsageError(f"workflow {workflow.name!r} has {len(workflow.tasks):,} tasks; the most is {TASKS_MAX:,}")
    if max(len(workflow.name), *(len(task.name) for task in workflow.tasks), 0) > NAME_LENGTH_MAX:
        raise UsageError(f"a name in workflow {workflow.name[:20]!r} is longer than {NAME_LENGTH_MAX} characters")
    for task in workflow.tasks:
        retry, timeout = task.retry, DURATION_SECONDS_MAX if task.timeout is None else task.timeout
        times = [task.delay, retry.delay, retry.delay_max]
        if task.on_disconnect is not None:
            times += [task.on_disconnect.stop_after or 0.0, task.on_disconnect.replace_after]
        longest, shortest = max(times), min(times)
        if shortest < 0 or longest > DURATION_SECONDS_MAX or not 0 < timeout <= DURATION_SECONDS_MAX:
            raise UsageError(f"task {task.name!r}: a delay or timeout is negative, or longer than ten years")
        if not (0 <= retry.limit <= RETRIES_MAX and 1 <= retry.backoff <= BACKOFF_MAX):
            raise UsageError(
                f"task {task.name!r}: retry.limit is 0 to {RETRIES_MAX:,}, retry.backoff 1 to {BACKOFF_MAX:g}"
            )


def _repeated(tasks: Iterable[Task]) -> str:
    seen: set[str] = set()
    return next(task.name for task in tasks if task.name in seen or seen.add(task.name))  # type: ignore[func-returns-value]


def _edges(tasks: tuple[Task, ...], index: dict[str, int]) -> tuple[array[int], array[int]]:
    sources, targets = array("i"), array("i")
    for position, task in enumerate(tasks):
        for need in task.needs:
            if need not in index:
                raise UsageError(f"task {task.name!r} needs {need!r}, which is not in the workflow")
            if need == task.name:
                raise UsageError(f"task {need!r} needs itself")
            sources.append(index[need])
            targets.append(position)
    return sources, targets


def _specs(tasks: Iterable[Task], default: OnDisconnect) -> list[bytes]:
    shared: dict[bytes, bytes] = {}
    encode = msgspec.json.Encoder().encode
    specs = []
    for task in tasks:
        runs_on = (task.on_disconnect or default).runs_on
        spec = encode(TaskSpec(task.type, task.config, task.env, task.workdir, task.timeout, runs_on))
        specs.append(shared.setdefault(spec, spec))
    return specs


def _traits(tasks: Iterable[Task], default: OnDisconnect) -> list[Traits]:
    shared: dict[Traits, Traits] = {}
    traits = (
        Traits(task.group, task.priority, task.retry, task.delay, task.enabled, task.on_disconnect or default)
        for task in tasks
    )
    return [shared.setdefault(each, each) for each in traits]


def _find_uses(plan: Plan, tasks: tuple[Task, ...], index: dict[str, int]) -> None:
    for position, task in enumerate(tasks):
        if b"{{" not in plan.specs[position] and b"{%" not in plan.specs[position]:
            continue
        _, used = template_names("\n".join(_strings([msgspec.json.decode(task.config), task.env])))
        used &= index.keys()  # what only looks like a template, in a field that is none, may name anything
        if used:
            plan.uses[position] = used
            plan.positions.update((name, index[name]) for name in used)


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)


def _refuse_cycle(plan: Plan) -> None:
    try:
        plan.dag()
    except CycleError as error:
        names = [plan.names[node] for node in error.cycle]
        raise UsageError(f"the tasks need each other in a circle: {' -> '.join([*names, names[0]])}") from None
