"""Workflows as people write them in YAML: text -> `Workflow`, or everything that is wrong with it at once.

The YAML layout is the canonical JSON with less to write: tasks are a mapping of names, the settings of a task's
type stand beside the keys that all tasks have, durations may be words, and `defaults` holds what tasks share.
docs/workflows.md describes it key by key.
"""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Any

import msgspec

from dsfast.errors import NotFound, Problem, UsageError
from dsfast.formats.canonical import parse_body
from dsfast.formats.check import check, examine
from dsfast.formats.document import Document, read_document
from dsfast.formats.events import TEXT_BYTES_MAX, decoded
from dsfast.formats.findings import Finding, Findings, Path, field_text
from dsfast.formats.lines import find_lines
from dsfast.formats.task_keys import ON_FAILURE, PRIORITIES, TASK_KEYS, kind, read_choice, read_text
from dsfast.model import Task, Workflow
from dsfast.tasks.types import task_types

__all__ = ["check", "load_file", "load_workflow", "parse_body"]

TOP_KEYS = ("name", "description", "params", "priority", "on_failure", "defaults", "tasks")
VERBATIM: tuple[Path, ...] = (("defaults", "env"), ("tasks", "*", "env"), ("tasks", "*", "needs"))
SHELL_KEYS = frozenset({"script", "command"})  # a task that has one of them and no type is a shell task
_YAML_KEYS = {key.attribute: name for name, key in TASK_KEYS.items()}


def load_file(path: str | FilePath) -> Workflow:
    """The workflow in a file: YAML, or canonical JSON when its name ends in .json. Raises UsageError."""
    file = str(path)
    try:
        with open(path, "rb") as stream:
            content = stream.read(TEXT_BYTES_MAX + 1)
    except FileNotFoundError:
        raise NotFound(Problem("there is no such file", file)) from None
    except (OSError, ValueError) as error:
        raise UsageError(Problem(f"the file cannot be read: {getattr(error, 'strerror', error)}", file)) from None
    return parse_body(content, file) if file.endswith(".json") else load_workflow(content, file)


def load_workflow(text: str | bytes, file: str | None = None) -> Workflow:
    """The workflow in a YAML text. Raises UsageError with all that is wrong, each with its line and field."""
    text = decoded(text, file)
    document = read_document(text, file, VERBATIM)
    findings = Findings()
    reading = _Reading(findings)
    workflow = reading.workflow(document.value)
    if workflow is not None:
        examine(workflow, findings, TASK_KEYS)
    if workflow is None or findings.count or document.faults:
        raise UsageError(_problems(text, file, document, findings, reading.places))
    return workflow


def _problems(
    text: str, file: str | None, document: Document, findings: Findings, places: list[str | int]
) -> list[Problem]:
    """The findings with their lines, in the order of the text."""
    paths = {id(finding): _yaml_path(finding.path, places) for finding in findings.items}
    lines = find_lines(text, set(paths.values()))
    problems = [Problem(fault.message, file, fault.line, hint=fault.hint) for fault in document.faults]
    problems += [_problem(finding, paths[id(finding)], file, lines) for finding in findings.items]
    return [*sorted(problems, key=lambda problem: problem.line or 0), *findings.rest()]


def _problem(finding: Finding, path: Path, file: str | None, lines: dict[Path, int]) -> Problem:
    return Problem(finding.message, file, lines[path], field_text(path) or None, finding.hint)


def _yaml_path(path: Path, places: list[str | int]) -> Path:
    """A path of the model as it is written in YAML."""
    if path[:1] != ("tasks",) or len(path) < 2 or not isinstance(path[1], int):
        return path
    rest = path[2:]
    if rest[:1] == ("config",):
        rest = rest[1:]
    elif rest:
        rest = (_YAML_KEYS.get(str(rest[0]), rest[0]), *rest[1:])
    return ("tasks", places[path[1]], *rest)


class _Reading:
    """Turns the values of one document into a workflow; what cannot be read is found and left out."""

    def __init__(self, findings: Findings) -> None:
        self.places: list[str | int] = []  # what stands for a task in the text: its name, or its position in a list
        self._findings = findings
        self._defaults: dict[str, Any] = {}

    def workflow(self, value: Any) -> Workflow | None:
        """The workflow, with stand-ins for what is wrong, or None if there is nothing to go on with."""
        if not isinstance(value, dict):
            found = "the file is empty" if value is None else f"the file holds {kind(value)}, not a mapping"
            self._findings.add((), found, "a workflow has at least `name` and `tasks`")
            return None
        self._check_keys(value)
        fields: dict[str, Any] = {key: self._text(value, key) for key in ("name", "description")}
        fields["params"] = self._mapping(value, "params")
        for key, choices in (("priority", PRIORITIES), ("on_failure", ON_FAILURE)):
            if value.get(key) is not None:
                fields[key] = read_choice(choices)(value[key], (key,), self._findings)
        self._defaults = self._read_defaults(self._mapping(value, "defaults"))
        tasks = self._tasks(value.get("tasks"))
        if tasks is None:
            return None
        return Workflow(tasks=tasks, **{"name": "unnamed"} | {key: v for key, v in fields.items() if v is not None})

    def _check_keys(self, value: dict[str, Any]) -> None:
        for key in sorted(value.keys() - set(TOP_KEYS)):
            shared = (
                f"what all tasks share goes under `defaults`: `defaults: {{{key}: …}}`" if key in TASK_KEYS else None
            )
            otherwise = f"there are {', '.join(TOP_KEYS)}"
            self._findings.add(
                (key,), f"a workflow has no `{key}`", shared or self._findings.near(key, TOP_KEYS, otherwise)
            )
        if value.get("name") is None:
            self._findings.add(("name",), "`name` is missing")

    def _text(self, value: dict[str, Any], key: str) -> str | None:
        return None if value.get(key) is None else read_text(value[key], (key,), self._findings)

    def _mapping(self, value: dict[str, Any], key: str) -> dict[str, Any]:
        found = value.get(key)
        if found is not None and not isinstance(found, dict):
            self._findings.add((key,), f"must be a mapping, not {kind(found)}")
        return found if isinstance(found, dict) else {}

    def _read_defaults(self, value: dict[str, Any]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for key, each in value.items():
            path = ("defaults", key)
            if key == "needs":
                self._findings.add(path, "each task has its own `needs`", "move it to the tasks")
            elif key not in TASK_KEYS:
                otherwise = "only keys that tasks of every type have: " + ", ".join(TASK_KEYS)
                self._findings.add(path, f"`{key}` cannot be a default", self._findings.near(key, TASK_KEYS, otherwise))
            elif each is not None and (read := TASK_KEYS[key].read(each, path, self._findings)) is not None:
                fields[TASK_KEYS[key].attribute] = read
        return fields

    def _tasks(self, value: Any) -> tuple[Task, ...] | None:
        if isinstance(value, dict):
            self.places = list(value)
            return tuple(self._task(name, task, position) for position, (name, task) in enumerate(value.items()))
        if isinstance(value, list):
            self.places = list(range(len(value)))
            return tuple(self._listed(task, position) for position, task in enumerate(value))
        if value is None:
            return ()
        self._findings.add(("tasks",), f"must be a mapping of names to tasks, or a list of tasks, not {kind(value)}")
        return None

    def _listed(self, value: Any, position: int) -> Task:
        if not isinstance(value, dict) or value.get("name") is None:
            self._findings.add(("tasks", position), "must be a task: a mapping with a `name`")
            return _stand_in(f"tasks[{position}]")
        name = read_text(value["name"], ("tasks", position, "name"), self._findings)
        rest = {key: each for key, each in value.items() if key != "name"}
        return self._task(name if name is not None else f"tasks[{position}]", rest, position)

    def _task(self, name: str, value: Any, position: int) -> Task:
        at: Path = ("tasks", position)
        if not isinstance(value, dict):
            hint = (
                "write `script: …` below the name" if isinstance(value, str) else "it has at least a script, or a type"
            )
            self._findings.add(at, f"must be a mapping, not {kind(value)}", hint)
            return _stand_in(name)
        fields = dict(self._defaults)
        config: dict[str, Any] = {}
        for key, each in value.items():
            known = TASK_KEYS.get(key)
            if known is None:
                config[key] = each
            elif each is not None and (read := known.read(each, (*at, key), self._findings)) is not None:
                fields[known.attribute] = {**self._defaults.get("env", {}), **read} if key == "env" else read
        if "type" not in fields:
            if value.get("type") is None and not config.keys() & SHELL_KEYS:
                self._miss_type(config, at)
                return _stand_in(name, fields.get("needs", ()))
            fields["type"] = "shell"
        return Task(name=name, config=msgspec.Raw(msgspec.json.encode(config)), **fields)

    def _miss_type(self, config: dict[str, Any], at: Path) -> None:
        near = next((f"did you mean `script` by `{key}`?" for key in config if near_script(key)), None)
        types = ", ".join(task_types())
        self._findings.add(at, "has neither a `script` nor a `type`", near or f"there are the types {types}")


def near_script(key: str) -> bool:
    """Whether the key is `script`, misspelt."""
    from difflib import SequenceMatcher

    return SequenceMatcher(None, key, "script").ratio() > 0.7


def _stand_in(name: str, needs: tuple[str, ...] = ()) -> Task:
    """A task in place of one that cannot be read, so that others may need it."""
    return Task(name=name, type="noop", needs=needs)
