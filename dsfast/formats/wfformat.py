"""Execution traces in WfFormat (wfcommons.org) 1.0 to 1.5, as workflows that sleep as long as their tasks ran.

Such a trace holds the tasks of a real workflow, who waited for whom, and how long each took; commands and data
are not in it. Replayed, it puts on a scheduler the load of the real thing, at any speed.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from dsfast.errors import Problem, UsageError
from dsfast.formats.imported import Imported, checked, read_json, usable_name
from dsfast.formats.settings import mismatch
from dsfast.model import Task, Workflow


class _Task(msgspec.Struct, rename="camel"):
    """A task of the specification; before 1.5 it holds its run time as well."""

    name: str = ""
    id: str = ""
    parents: list[str] = []
    children: list[str] = []
    runtime_in_seconds: float | None = None
    runtime: float | None = None


class _Body(msgspec.Struct, rename="camel"):
    """Where the tasks stand: apart since 1.5, together before, and called jobs in 1.0 and 1.1."""

    specification: dict[str, Any] = {}
    execution: dict[str, Any] = {}
    tasks: list[_Task] = []
    jobs: list[_Task] = []


class _Trace(msgspec.Struct, rename="camel"):
    workflow: _Body
    name: str = ""
    description: str = ""
    schema_version: str = ""


def read_trace(text: str | bytes, file: str | None = None, time_scale: float = 1.0) -> Imported:
    """The trace as one workflow, every task a sleep of its run time by `time_scale`.

    Raises UsageError for what is not a trace, and for a time scale that is negative or not finite.
    """
    if not 0 <= time_scale < math.inf:
        raise UsageError(f"the time scale must be 0 or more and finite, not {time_scale}")
    trace, tasks, runs = _parsed(read_json(text, file), file)
    if not tasks:
        raise UsageError(Problem("the trace has no tasks", file))
    names = _names(tasks)
    needs = _needs(tasks, names, file)
    seconds = {key: _run_time(task, runs) for key, task in tasks.items()}
    workflow = Workflow(
        name=usable_name(trace.name, ()),
        description=f"Replays a WfFormat trace at {time_scale:g} of its time. {trace.description}".strip(),
        tasks=tuple(_sleep(names[key], needs[key], (seconds[key] or 0.0) * time_scale) for key in tasks),
    )
    unknown = [names[key] for key, time in seconds.items() if time is None]
    return Imported([checked(workflow, file)], _notes(unknown))


def _parsed(value: Any, file: str | None) -> tuple[_Trace, dict[str, _Task], dict[str, _Task]]:
    """The trace, its tasks by id, and the records of their execution by id."""
    try:
        trace = msgspec.convert(value, _Trace, strict=False)
        body = trace.workflow
        specified = msgspec.convert(body.specification.get("tasks", []), list[_Task], strict=False)
        executed = msgspec.convert(body.execution.get("tasks", []), list[_Task], strict=False)
    except msgspec.ValidationError as error:
        hint = "a WfFormat trace is an object with `workflow`, which holds the tasks"
        raise UsageError(Problem(f"this is not a WfFormat trace: {mismatch(str(error))}", file, hint=hint)) from None
    tasks: dict[str, _Task] = {}
    for task in specified or body.tasks or body.jobs:
        if tasks.setdefault(task.id or task.name, task) is not task:
            raise UsageError(Problem(f"two tasks of the trace have the id {task.id or task.name!r}", file))
    return trace, tasks, {task.id or task.name: task for task in executed}


def _names(tasks: dict[str, _Task]) -> dict[str, str]:
    """A name for every id: the task's own if all are different, else the id."""
    own = {task.name for task in tasks.values()}
    names: dict[str, str] = {}
    taken: set[str] = set()
    for key, task in tasks.items():
        names[key] = usable_name(task.name if len(own) == len(tasks) else key, taken)
        taken.add(names[key])
    return names


def _needs(tasks: dict[str, _Task], names: dict[str, str], file: str | None) -> dict[str, tuple[str, ...]]:
    """Parents of every task, also those that only list it as a child; both may be told by id or by name."""
    ids = {task.name: key for key, task in tasks.items()} | {key: key for key in tasks}
    needs: dict[str, dict[str, None]] = {key: {} for key in tasks}
    for key, task in tasks.items():
        edges = [(parent, key) for parent in task.parents] + [(key, child) for child in task.children]
        for parent, child in edges:
            if parent not in ids or child not in ids:
                stranger = child if parent in ids else parent
                raise UsageError(
                    Problem(f"the task {key!r} of the trace refers to {stranger!r}, which is not in it", file)
                )
            needs[ids[child]][names[ids[parent]]] = None
    return {key: tuple(parents) for key, parents in needs.items()}


def _run_time(task: _Task, runs: dict[str, _Task]) -> float | None:
    """Seconds the task ran, or None if the trace does not tell."""
    for record in (runs.get(task.id or task.name), task):
        if record is not None:
            seconds = record.runtime_in_seconds if record.runtime_in_seconds is not None else record.runtime
            if seconds is not None and 0 <= seconds < math.inf:
                return seconds
    return None


def _sleep(name: str, needs: tuple[str, ...], seconds: float) -> Task:
    config = msgspec.json.encode({"seconds": round(seconds, 6)})
    return Task(name=name, type="sleep", needs=needs, config=msgspec.Raw(config))


def _notes(unknown: list[str]) -> list[str]:
    notes = ["commands, files and machines of the trace are not carried over: every task sleeps for its run time"]
    if unknown:
        shown = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        notes.append(f"the trace has no run time for {len(unknown)} tasks, which end at once: {shown}")
    return notes
