"""A task's settings against its type: unknown, missing and ill-typed ones, each by name, and the type's own rules."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import msgspec

from dsfast.errors import UsageError
from dsfast.formats.findings import Findings, Path
from dsfast.formats.nesting import nested_beyond
from dsfast.model import PARAMS_BYTES_MAX, Task
from dsfast.tasks.base import TaskType
from dsfast.tasks.types import task_type
from dsfast.templates import is_template

_MISMATCH = re.compile(r"Expected `(?P<want>[^`]+)`, got `(?P<got>[^`]+)`(?: - at `(?P<where>[^`]+)`)?")
_KINDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}


@dataclass(frozen=True, slots=True)
class Known:
    """A task type, and what its settings are called."""

    type: TaskType
    fields: dict[str, msgspec.structs.FieldInfo]
    required: frozenset[str]
    decoder: msgspec.json.Decoder[Any]


class Settings:
    """Checks the settings of the tasks of one workflow."""

    def __init__(self, findings: Findings, task_keys: Collection[str]) -> None:
        self._findings = findings
        self._task_keys = task_keys
        self._known: dict[str, Known | None] = {}
        self._refused: dict[str, tuple[str, str | None]] = {}
        self._good: set[tuple[str, bytes]] = set()  # a large workflow has few settings, many times

    def known(self, name: str) -> Known | None:
        """The task type of this name, or None if there is none."""
        if name not in self._known:
            self._known[name] = self._load(name)
        return self._known[name]

    def check(self, task: Task, at: Path) -> None:
        """Add what is wrong with the settings of the task at this path."""
        known = self.known(task.type)
        if known is None:
            message, hint = self._refused[task.type]
            self._findings.add((*at, "type"), message, hint)
            return
        same = (task.type, bytes(task.config))
        if same in self._good:
            return
        at, before = (*at, "config"), self._findings.count
        try:
            config = known.decoder.decode(task.config)
        except msgspec.DecodeError:
            self._explain(task, known, at)
        except RecursionError:
            self._findings.add(at, "the settings are nested too deep")
        else:
            self._check_rules(task, known, config, at)
        if self._findings.count == before:
            self._good.add(same)

    def _load(self, name: str) -> Known | None:
        try:
            found = task_type(name)
        except UsageError as error:
            self._refused[name] = (error.problems[0].message, error.problems[0].hint)
            return None
        return _known_of(found)

    def _check_rules(self, task: Task, known: Known, config: Any, at: Path) -> None:
        size = len(bytes(task.config))
        if size > PARAMS_BYTES_MAX:
            limit = f"at most {PARAMS_BYTES_MAX} are allowed, because they travel with every attempt"
            self._findings.add(at, f"the settings take {size} bytes; {limit}", "put them into a file")
        elif nested_beyond(msgspec.to_builtins(config)):
            self._findings.add(at, "the settings are nested too deep")
        else:
            for key, sentence in known.type.check(config):
                self._findings.add((*at, key), sentence)

    def _explain(self, task: Task, known: Known, at: Path) -> None:
        """Name every setting that is unknown, missing or of the wrong type; the decoder stops at the first."""
        values = msgspec.json.decode(task.config)
        if not isinstance(values, dict):
            self._findings.add(at, "the settings must be a mapping")
            return
        for key in sorted(values.keys() - known.fields.keys()):
            has = f"it has: {', '.join(known.fields)}" if known.fields else "it has no settings"
            hint = self._findings.near(key, [*known.fields, *self._task_keys], otherwise=has)
            self._findings.add((*at, key), f"a {task.type} task has no setting `{key}`", hint)
        for key in sorted(known.required - values.keys()):
            self._findings.add(at, f"a {task.type} task needs `{key}`")
        for key in (key for key in values if key in known.fields):
            self._check_value(key, values[key], known, at)

    def _check_value(self, key: str, value: Any, known: Known, at: Path) -> None:
        try:
            msgspec.convert(value, known.fields[key].type)
        except msgspec.ValidationError as error:
            templated = isinstance(value, str) and is_template(value)
            hint = f"`{key}` is not filled in from templates" if templated else None
            self._findings.add((*at, key), mismatch(str(error), value), hint)


_KNOWN: dict[str, Known] = {}  # by the type's name; made once, because msgspec takes longer for it than for a check


def _known_of(found: TaskType) -> Known:
    known = _KNOWN.get(found.name)
    if known is None or known.type is not found:
        known = _KNOWN[found.name] = _examined(found)
    return known


def _examined(found: TaskType) -> Known:
    fields = {each.encode_name: each for each in msgspec.structs.fields(found.Config)}
    strict = msgspec.defstruct("Strict", [], bases=(found.Config,), forbid_unknown_fields=True)
    required = frozenset(name for name, each in fields.items() if each.required)
    return Known(found, fields, required, msgspec.json.Decoder(strict))


def mismatch(message: str, value: Any = None) -> str:
    """A validation message of msgspec in the words of this program."""
    found = _MISMATCH.match(message)
    if not found:
        return message[:1].lower() + message[1:]
    want = " or ".join(_KINDS.get(kind, kind) for kind in found["want"].split(" | "))
    got = _KINDS.get(found["got"], found["got"])
    where = (found["where"] or "").removeprefix("$").removeprefix(".")
    shown = f" ({value!r})" if isinstance(value, str | int | float) and not where and len(repr(value)) <= 40 else ""
    return f"{f'{where} ' if where else ''}must be {want}, not {got}{shown}"
