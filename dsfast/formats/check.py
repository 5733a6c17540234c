"""What types alone cannot say about a workflow: names, needs, limits, settings and templates, checked in one go.

The checks see the model only, so a workflow is judged the same whether it came as YAML, as JSON from a client,
from Python or from an import.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection

import msgspec

from dsfast._core.dag import CycleError, Dag
from dsfast.errors import Problem
from dsfast.formats.findings import Findings, Path, field_text
from dsfast.formats.nesting import NESTING_MAX, nested_beyond
from dsfast.formats.outputs import check_reads
from dsfast.formats.settings import Settings
from dsfast.model import NAME_LENGTH_MAX, PARAMS_BYTES_MAX, TASKS_MAX, OnDisconnect, Retry, Task, Workflow
from dsfast.templates import is_template

DURATION_SECONDS_MAX = 10 * 366 * 86_400  # ten years: anything longer is milliseconds taken for seconds
RETRIES_MAX = 10_000  # an attempt's number; a task that fails this often will not succeed
BACKOFF_MAX = 100.0  # its 64th power is still a float
_NO_RETRY = Retry()
NAME_FORBIDDEN = frozenset("/\\{}\"'`")  # they end a path, a template or a quotation


def check(workflow: Workflow, file: str | None = None) -> list[Problem]:
    """Everything wrong with the workflow; nothing if it can run. Fields are those of the canonical JSON."""
    findings = Findings()
    examine(workflow, findings)
    problems = [
        Problem(each.message, file, field=field_text(_named(each.path, workflow)), hint=each.hint)
        for each in findings.items
    ]
    return [*problems, *findings.rest()]


def examine(workflow: Workflow, findings: Findings, task_keys: Collection[str] = ()) -> None:
    """Add everything wrong with the workflow; `task_keys` are what a misspelt setting may have been meant for."""
    _check_name(workflow.name, ("name",), findings)
    _check_params(workflow, findings)
    if not 1 <= len(workflow.tasks) <= TASKS_MAX:
        many = f"has {len(workflow.tasks)} tasks; at most {TASKS_MAX} fit into one workflow"
        findings.add(("tasks",), many if workflow.tasks else "has no tasks", "add at least one task")
        return
    settings = Settings(findings, task_keys)
    bad_groups = {group for group in {task.group for task in workflow.tasks} if name_fault(group)}
    for position, task in enumerate(workflow.tasks):
        at = ("tasks", position)
        if task.group in bad_groups:
            _check_name(task.group, (*at, "group"), findings)
        _check_task(task, at, findings)
        settings.check(task, at)
    dag = _check_needs(workflow, findings)
    check_reads(workflow, dag, settings, findings)


def name_fault(name: str) -> str | None:
    """What is wrong with the name of a workflow, task or param, as the end of a sentence."""
    if not name:
        return "is empty"
    if len(name) > NAME_LENGTH_MAX:
        return f"{name[:20]!r}… is {len(name)} characters long; at most {NAME_LENGTH_MAX} are allowed"
    if name != name.strip():
        return f"{name!r} begins or ends with a space"
    if name in (".", ".."):
        return f"{name!r} means a directory"
    if name.isprintable() and NAME_FORBIDDEN.isdisjoint(name):
        return None
    bad = next(letter for letter in name if letter in NAME_FORBIDDEN or not letter.isprintable())
    return f"{name!r} holds the character {bad!r}, which names may not have"


def _check_name(name: str, path: Path, findings: Findings) -> None:
    if fault := name_fault(name):
        findings.add(path, f"the name {fault}")


def _check_params(workflow: Workflow, findings: Findings) -> None:
    for name in workflow.params:
        _check_name(name, ("params", name), findings)
    if nested_beyond(workflow.params):
        findings.add(("params",), f"the values are nested more than {NESTING_MAX} deep")
        return
    sizes = {name: _json_size(value, name, findings) for name, value in workflow.params.items()}
    if (total := sum(sizes.values())) > PARAMS_BYTES_MAX:
        largest = max(sizes, key=lambda name: sizes[name])
        findings.add(
            ("params", largest),
            f"the params take {_megabytes(total)} as JSON, this one {_megabytes(sizes[largest])} of it; at most "
            f"{_megabytes(PARAMS_BYTES_MAX)} are allowed, because they travel with every attempt",
            "put the data into a file or a table and pass its name",
        )


def _json_size(value: object, name: str, findings: Findings) -> int:
    """How long the value is as JSON; a value that comes back from JSON as another one is a finding."""
    try:
        encoded = msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError) as error:
        findings.add(("params", name), f"cannot be written as JSON: {error}")
        return 0
    if msgspec.json.decode(encoded) != value:
        findings.add(("params", name), "is not a JSON value: it would arrive as another one")
    return len(encoded)


def _check_task(task: Task, at: Path, findings: Findings) -> None:
    _check_name(task.name, (*at, "name"), findings)
    if task.retry != _NO_RETRY:
        _check_retry(task.retry, (*at, "retry"), findings)
    if task.timeout is not None and not 0 < task.timeout <= DURATION_SECONDS_MAX:
        findings.add((*at, "timeout"), f"must be more than 0 and at most ten years, not {task.timeout:g} s")
    _check_duration(task.delay, (*at, "delay"), findings)
    if task.on_disconnect is not None:
        _check_on_disconnect(task.on_disconnect, (*at, "on_disconnect"), findings)
    if task.workdir is not None:
        _check_workdir(task.workdir, (*at, "workdir"), findings)
    for name, value in task.env.items():
        if not name or "=" in name or "\0" in name:
            findings.add((*at, "env", name), f"{name!r} cannot be the name of an environment variable")
        elif "\0" in value:
            findings.add((*at, "env", name), "holds a NUL character, which the environment cannot")


def _check_retry(retry: Retry, at: Path, findings: Findings) -> None:
    if not 0 <= retry.limit <= RETRIES_MAX:
        findings.add((*at, "limit"), f"must be 0 to {RETRIES_MAX}, not {retry.limit}")
    if not 1 <= retry.backoff <= BACKOFF_MAX:
        findings.add((*at, "backoff"), f"must be 1 to {BACKOFF_MAX:g}, not {retry.backoff:g}")
    _check_duration(retry.delay, (*at, "delay"), findings)
    _check_duration(retry.delay_max, (*at, "delay_max"), findings)


def _check_on_disconnect(policy: OnDisconnect, at: Path, findings: Findings) -> None:
    if policy.stop_after is not None:
        _check_duration(policy.stop_after, (*at, "stop_after"), findings)
    _check_duration(policy.replace_after, (*at, "replace_after"), findings)
    if policy.replace_after and not policy.replace:
        findings.add((*at, "replace_after"), "has no meaning where `replace` is false: the task is never replaced")


def _check_duration(seconds: float, path: Path, findings: Findings) -> None:
    if not 0 <= seconds <= DURATION_SECONDS_MAX or math.isnan(seconds):
        findings.add(path, f"must be 0 or more and at most ten years, not {seconds:g} s")


def _check_workdir(workdir: str, path: Path, findings: Findings) -> None:
    if not workdir or "\0" in workdir:
        findings.add(path, "must name a directory")
    elif is_template(workdir):
        findings.add(path, "is not filled in from templates", "change the directory in the script: cd {{ params.dir }}")


def _check_needs(workflow: Workflow, findings: Findings) -> Dag | None:
    """The graph of the tasks, or None when there is none to speak of."""
    index: dict[str, int] = {}
    for position, task in enumerate(workflow.tasks):
        if index.setdefault(task.name, position) != position:
            findings.add(("tasks", position, "name"), f"another task is named {task.name!r}, too: names are unique")
    sources, targets = array("i"), array("i")
    for position, task in enumerate(workflow.tasks):
        seen: set[str] = set()
        for at, need in enumerate(task.needs):
            path: Path = ("tasks", position, "needs", at)
            if need not in index:
                findings.add(path, f"there is no task {need!r}", findings.near(need, index))
            elif index[need] == position:
                findings.add(path, "the task needs itself")
            elif need in seen:
                findings.add(path, f"{need!r} is needed twice")
            else:
                sources.append(index[need])
                targets.append(position)
            seen.add(need)
    try:
        return Dag(len(workflow.tasks), sources, targets)
    except CycleError as error:
        names = [workflow.tasks[node].name for node in (*error.cycle, error.cycle[0])]
        circle = names if len(names) <= 20 else [*names[:10], f"… {len(names) - 19} more …", *names[-9:]]
        findings.add(
            ("tasks", error.cycle[0], "needs"),
            f"the tasks wait for each other in a circle: {' -> '.join(circle)}",
            "one of these needs has to go",
        )
        return None


def _megabytes(size: int) -> str:
    return f"{size / (1 << 20):.1f} MB"


def _named(path: Path, workflow: Workflow) -> Path:
    if len(path) > 1 and isinstance(path[1], int) and (name := workflow.tasks[path[1]].name):
        return (path[0], name, *path[2:])
    return path
