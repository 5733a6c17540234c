"""Workflows as canonical JSON, from programs: parsed, checked, and put into the one spelling that is hashed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from dsfast.errors import Problem, UsageError
from dsfast.formats.check import check
from dsfast.formats.findings import Findings, Path, field_text
from dsfast.formats.settings import mismatch
from dsfast.model import Task, Workflow

_WHERE = " - at `$"
_STEP = re.compile(r"\.([^.\[\]`]+)|\[(\d+)\]")


def parse_body(body: bytes, file: str | None = None) -> Workflow:
    """The workflow behind its canonical JSON. Raises UsageError with all that is wrong."""
    try:
        workflow = _normal(msgspec.json.decode(body, type=Workflow))
    except msgspec.ValidationError as error:
        raise UsageError(_mismatches(body, str(error), file)) from None
    except msgspec.DecodeError as error:
        raise UsageError(Problem(f"this is not JSON: {error}", file, hint=_yaml_hint(body))) from None
    except UnicodeDecodeError:
        raise UsageError(Problem("this is not JSON: it is not UTF-8 text", file)) from None
    except RecursionError:
        raise UsageError(Problem("the JSON is nested too deep", file)) from None
    problems = check(workflow, file)
    if problems:
        raise UsageError(problems)
    return workflow


def _normal(workflow: Workflow) -> Workflow:
    """The same with settings spelt one way: no spaces, no key twice. Settings that are not a mapping stay."""
    spelt: dict[bytes, msgspec.Raw] = {}
    tasks = tuple(msgspec.structs.replace(task, config=_spelt(bytes(task.config), spelt)) for task in workflow.tasks)
    return msgspec.structs.replace(workflow, tasks=tasks)


def _spelt(config: bytes, known: dict[bytes, msgspec.Raw]) -> msgspec.Raw:
    found = known.get(config)
    if found is None:
        found = known[config] = msgspec.Raw(msgspec.json.encode(msgspec.json.decode(config)))
    return found


def _mismatches(body: bytes, first: str, file: str | None) -> list[Problem]:
    """Every value of a wrong type; msgspec stops at the first."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return [Problem(f"this is not JSON: {mismatch(first)}", file)]
    findings = Findings()
    if isinstance(value, dict):
        _check_fields(value, Workflow, (), findings, skip="tasks")
        tasks = value.get("tasks")
        if isinstance(tasks, list):
            for position, task in enumerate(tasks):
                name = task.get("name") if isinstance(task, dict) else None
                _check_whole(task, Task, ("tasks", name if isinstance(name, str) and name else position), findings)
        elif "tasks" in value:
            hint = (
                "YAML has another layout: give the file a name that ends in .yaml" if isinstance(tasks, dict) else None
            )
            findings.add(("tasks",), "must be a list", hint)
    problems = [Problem(each.message, file, None, field_text(each.path), each.hint) for each in findings.items]
    return [*problems, *findings.rest()] or [Problem(mismatch(first), file)]


def _check_fields(value: dict[str, Any], kind: type[msgspec.Struct], at: Path, findings: Findings, skip: str) -> None:
    fields = {each.encode_name: each for each in msgspec.structs.fields(kind)}
    for key in sorted(value.keys() - fields.keys()):
        there_are = f"there are {', '.join(fields)}"
        findings.add((*at, key), f"there is no `{key}`", findings.near(key, fields, there_are))
    for key, field in fields.items():
        if key not in value and field.required:
            findings.add((*at, key), f"`{key}` is missing")
        elif key in value and key != skip:
            _check_whole(value[key], field.type, (*at, key), findings)


def _check_whole(value: Any, kind: Any, at: Path, findings: Findings) -> None:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        if isinstance(value, dict) and kind is Task:
            _check_fields(value, kind, at, findings, skip="config")
        else:
            message, _, where = str(error).partition(_WHERE)
            findings.add((*at, *_inner_path(where)), mismatch(message, value))


def _inner_path(where: str) -> Iterator[str | int]:
    """The parts of a place such as `.retry.limit` or `[2]`, as msgspec writes it."""
    for key, position in _STEP.findall(where):
        yield key or int(position)


def _yaml_hint(body: bytes) -> str | None:
    return "a YAML file needs a name that ends in .yaml" if body.lstrip()[:5] == b"name:" else None
