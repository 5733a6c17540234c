"""Workflows exported by Apache DolphinScheduler (1.x to 3.3) as workflows of ours.

Nothing changes its meaning in silence. Scripts come to the same text as they did there, or a note says in what
they differ; a task of a type that there is not here fails with a sentence, so that whoever runs it learns of it;
and everything else that is not carried over is listed with the task it belongs to.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any

import msgspec

from dsfast.errors import Problem, UsageError
from dsfast.formats.dolphin_shape import Definition, Property, Source, SourceTask, embedded, number, properties, sources
from dsfast.formats.dolphin_task import TaskImport
from dsfast.formats.dolphin_text import TIME, references
from dsfast.formats.imported import Imported, checked, read_json, usable_name
from dsfast.model import Workflow

_NUMBERS = {"INTEGER": int, "LONG": int, "FLOAT": float, "DOUBLE": float}


def read_export(text: str | bytes, file: str | None = None) -> Imported:
    """Every workflow of an export, with a note for all that was not carried over. Raises UsageError."""
    found = sources(read_json(text, file), file)
    notes: list[str] = []
    names = _workflow_names(found, notes)
    codes: dict[Any, str] = {task.code: task.name for source in found for task in source.tasks}
    codes |= {source.definition.code: name for source, name in zip(found, names, strict=True)}
    workflows = []
    for source, name in zip(found, names, strict=True):
        if source.tasks:
            workflows.append(checked(_WorkflowImport(source, name, codes, notes).workflow(), file))
        else:
            notes.append(f"workflow {name!r}: left out, because it has no tasks")
    if not workflows:
        raise UsageError(Problem("the export holds no workflow that has tasks", file))
    return Imported(workflows, notes)


def _workflow_names(found: list[Source], notes: list[str]) -> list[str]:
    names: list[str] = []
    for source in found:
        names.append(usable_name(source.definition.name, names))
        if names[-1] != source.definition.name:
            notes.append(f"workflow {names[-1]!r}: was named {source.definition.name!r} there")
    return names


class _WorkflowImport:
    """The import of one workflow."""

    def __init__(self, source: Source, name: str, codes: dict[Any, str], notes: list[str]) -> None:
        self._source = source
        self._name = name
        self._codes = codes
        self._notes = notes
        self._names = self._task_names()

    def workflow(self) -> Workflow:
        definition = self._source.definition
        params, composed = self._params(definition)
        needs = self._needs()
        self._note_definition(definition)
        outputs = {self._names[task.code]: given for task in self._source.tasks if (given := _outputs(task))}
        codes = {**self._codes, **self._names}
        tasks = []
        for task in self._source.tasks:
            name = self._names[task.code]
            before = {other: outputs[other] for other in _ancestors(name, needs) if other in outputs} if outputs else {}
            note = partial(self._note, task=name)
            tasks.append(TaskImport(task, name, params, composed, before, codes, note).task(tuple(needs[name])))
        return Workflow(name=self._name, tasks=tuple(tasks), description=definition.description or "", params=params)

    def _note(self, sentence: str, task: str | None = None) -> None:
        where = f"workflow {self._name!r}" + (f", task {task!r}" if task else "")
        self._notes.append(f"{where}: {sentence}")

    def _task_names(self) -> dict[Any, str]:
        names: dict[Any, str] = {}
        taken: set[str] = set()
        for task in self._source.tasks:
            name = usable_name(task.name, taken)
            if name != task.name:
                self._note(f"was named {task.name!r} there", name)
            taken.add(name)
            names.setdefault(task.code, name)
            if names[task.code] != name:
                raise UsageError(f"two tasks of the workflow {self._name!r} have the code {task.code}")
        return names

    def _params(self, definition: Definition) -> tuple[dict[str, Any], dict[str, str]]:
        """The params by name, and those whose values hold `${name}` themselves."""
        params: dict[str, Any] = {}
        composed: dict[str, str] = {}
        for each in properties(definition.global_params):
            if str(each.direct or "IN").upper() != "IN" or not each.prop:
                self._note(f"not carried over: the global parameter {each.prop!r}, which goes {each.direct}")
                continue
            name = usable_name(each.prop, params)
            if name != each.prop:
                self._note(f"the param {name!r} was named {each.prop!r} there")
            params[name] = self._value(name, each)
            if isinstance(params[name], str) and references(params[name]):
                composed[name] = params[name]
        return params, composed

    def _value(self, name: str, each: Property) -> Any:
        text = each.value
        if isinstance(text, str) and TIME.search(text):
            self._note(
                f"the param {name!r} is a time that is not computed here, {text!r}: give its value with every run"
            )
        kind = str(each.type or "VARCHAR").upper()
        try:
            if kind in _NUMBERS and text not in (None, ""):
                return msgspec.convert(text, _NUMBERS[kind], strict=False)
            if kind == "BOOLEAN" and text not in (None, ""):
                return msgspec.convert(str(text).lower(), bool, strict=False)
        except msgspec.ValidationError:
            self._note(f"the param {name!r} is no {kind} but the text {text!r}")
        return "" if text is None else text

    def _needs(self) -> dict[str, dict[str, None]]:
        needs: dict[str, dict[str, None]] = {name: {} for name in self._names.values()}
        for relation in self._source.relations:
            before, after = relation.pre_task_code, relation.post_task_code
            if str(before) in ("0", ""):
                continue
            if before not in self._names or after not in self._names:
                self._note(f"not carried over: a relation from {before} to {after}, as there is no such task")
                continue
            needs[self._names[after]][self._names[before]] = None
            if str(relation.condition_type or "NONE").upper() not in ("NONE", "0"):
                self._note(
                    f"the condition {relation.condition_type} of a relation is not carried over", self._names[after]
                )
        return needs

    def _note_definition(self, definition: Definition) -> None:
        if self._source.schedule:
            shown = ", ".join(f"{key} {value}" for key, value in self._source.schedule.items() if value is not None)
            self._note(f"not carried over: its schedule, {shown}")
        if number(definition.timeout) > 0:
            self._note(f"not carried over: its timeout of {number(definition.timeout):g} minutes, which only alerts")
        if str(definition.execution_type or "PARALLEL").upper() != "PARALLEL":
            self._note(f"not carried over: its execution type {definition.execution_type}; here runs may overlap")
        if str(definition.release_state or "").upper() == "OFFLINE":
            self._note("it was offline there; here every workflow can be run")
        for what, value in (
            ("tenant", definition.tenant_code),
            ("tenant with the id", definition.tenant_id),
            ("warning group", definition.warning_group_id),
        ):
            if value not in (None, "", 0, -1, "default"):
                self._note(f"not carried over: its {what} {value}")
        if definition.locations not in (None, "", "[]", "{}"):
            self._note("not carried over: the places of its tasks in the editor")


def _outputs(task: SourceTask) -> list[str]:
    try:
        params = embedded(task.task_params)
    except msgspec.DecodeError:
        return []
    local = params.get("localParams") if isinstance(params, dict) else None
    return [each.prop for each in properties(local) if str(each.direct or "").upper() == "OUT" and each.prop]


def _ancestors(name: str, needs: dict[str, dict[str, None]]) -> dict[str, None]:
    """Every task that ends before this one starts, nearest first."""
    seen: dict[str, None] = {}
    waiting = deque(needs[name])
    while waiting:
        each = waiting.popleft()
        if each not in seen and each != name:
            seen[each] = None
            waiting += needs[each]
    return seen
