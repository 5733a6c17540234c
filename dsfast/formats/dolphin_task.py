"""One task of a DolphinScheduler export as a task of ours."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any

import msgspec

from dsfast.formats.check import RETRIES_MAX
from dsfast.formats.dolphin_shape import SourceTask, embedded, number, properties
from dsfast.formats.dolphin_text import (
    BUILT_IN,
    TIME,
    Segment,
    as_template,
    output_expression,
    param_expression,
    references,
    segments,
)
from dsfast.formats.imported import usable_name
from dsfast.model import Priority, Retry, Task
from dsfast.tasks.templates import shell_quote

SCRIPT_TYPES = ("SHELL", "PYTHON")
MINUTE = 60.0
CODE_KEYS = frozenset(
    {"depTaskCode", "successNode", "failedNode", "nextNode"}
    | {"processDefinitionCode", "workflowDefinitionCode", "definitionCode"}
)
_CARRIED = frozenset({"localParams", "rawScript", "resourceList"})
_EMPTY: tuple[Any, ...] = (None, "", [], {}, 0)


class TaskImport:
    """The import of one task; `note` takes a sentence about what is not carried over."""

    def __init__(
        self,
        source: SourceTask,
        name: str,
        params: dict[str, Any],
        composed: dict[str, str],  # params whose text holds `${name}`
        outputs: dict[str, list[str]],  # of the tasks before this one, nearest first
        codes: dict[Any, str],  # names of the tasks and workflows in the export
        note: Callable[[str], None],
    ) -> None:
        self._source = source
        self._name = name
        self._params = params
        self._composed = composed
        self._outputs = outputs
        self._codes = codes
        self._note = note
        self._is_shell = source.task_type.upper() == "SHELL"
        self._settings = self._read_settings()
        self._local = properties(self._settings.get("localParams"))
        self._fixed = self._fixed_values()

    def task(self, needs: tuple[str, ...]) -> Task:
        kind, config = self._work()
        task = Task(
            name=self._name,
            type=kind,
            needs=needs,
            config=msgspec.Raw(msgspec.json.encode(config)),
            retry=self._retry(),
            timeout=self._timeout(),
            delay=max(number(self._source.delay_time), 0) * MINUTE,
            priority=self._priority(),
            group=usable_name(self._source.worker_group or "default", ()),
            enabled=str(self._source.flag).upper() not in ("NO", "0"),
        )
        self._note_rest()
        return task

    # -- what it does

    def _read_settings(self) -> dict[str, Any]:
        try:
            settings = embedded(self._source.task_params) or {}
        except msgspec.DecodeError:
            settings = {}
        if not isinstance(settings, dict):
            settings = {}
        if not settings:
            self._note("its taskParams are empty or cannot be read")
        return settings

    def _work(self) -> tuple[str, dict[str, Any]]:
        kind = self._source.task_type.upper()
        script = self._settings.get("rawScript")
        if kind not in SCRIPT_TYPES or not isinstance(script, str) or not script.strip():
            return "shell", {"script": self._failing_script(kind)}
        script = self._commented(script.replace("\r\n", "\n"))
        self._note_reads(script)
        pieces = segments(script, self._meaning)
        if kind == "SHELL":
            return "shell", {"script": as_template(pieces), "shell": "bash"}
        if any(piece.is_read for piece in pieces):
            return "python", {"source": "exec(script)", "args": {"script": as_template(pieces)}}
        return "python", {"source": "".join(piece.value for piece in pieces)}

    def _fixed_values(self) -> dict[str, str]:
        """Local parameters that have a value: their text is put into the script now, as it was there at run time."""
        fixed = {}
        script = str(self._settings.get("rawScript") or "")
        for each in self._local:
            if str(each.direct or "IN").upper() != "IN" or each.value in (None, ""):
                continue
            fixed[each.prop] = _shown(each.value)
            shown = f"its local parameter {each.prop!r}, {fixed[each.prop]!r}"
            used = f"${{{each.prop}}}" in script
            self._note(
                f"{shown}, is written into its script" if used else f"not carried over: {shown}, which nothing uses"
            )
        return fixed

    def _meaning(self, name: str) -> Segment | None:
        """What `${name}` stands for: a local parameter, else an output of a task before this one, else a param."""
        if name in self._fixed:
            return Segment(self._fixed[name])
        givers = [task for task, outputs in self._outputs.items() if name in outputs]
        if givers:
            return Segment(output_expression(givers[0], name) + (" | raw" if self._is_shell else ""), is_read=True)
        if name in self._composed:
            return Segment(self._composed[name])
        if name in self._params:
            return Segment(param_expression(name) + (" | raw" if self._needs_raw(name) else ""), is_read=True)
        return None

    def _needs_raw(self, name: str) -> bool:
        """Whether quoting the value, as shell scripts do here, would make a difference to what happened there."""
        text = _shown(self._params[name])
        return self._is_shell and not TIME.fullmatch(text) and shell_quote(text) != text

    def _note_reads(self, script: str) -> None:
        known = [name for name in references(script) if self._meaning(name)]
        for name in known:
            givers = [task for task, outputs in self._outputs.items() if name in outputs]
            if name not in self._fixed and len(givers) > 1:
                self._note(f"{name!r} is handed on by {', '.join(map(repr, givers))}: that of {givers[0]!r} is used")
            elif name not in self._fixed and not givers and name in self._composed:
                self._note(
                    f"the param {name!r} refers to others: its text {self._composed[name]!r} is put into the script"
                )
            elif name not in self._fixed and not givers and self._needs_raw(name):
                self._note(f"the param {name!r} is filled in as it is, without quoting, as it was there")
        texts = "\n".join([script, *(self._fixed.get(name, self._composed.get(name, "")) for name in known)])
        for name in dict.fromkeys(BUILT_IN.findall(texts)):
            self._note(f"${{{name}}} has no value here")
        for time in dict.fromkeys(TIME.findall(texts)):
            self._note(f"the time {time} is not computed here")

    def _commented(self, script: str) -> str:
        """The script below the task's description."""
        lines = (self._source.description or "").strip().splitlines()
        return "".join(f"# {line}\n" for line in lines) + script

    def _failing_script(self, kind: str) -> str:
        """A script that says what the task was, and fails."""
        lacks = "which has no script" if kind in SCRIPT_TYPES else "which dsfast does not have"
        self._note(f"is a {kind} task, {lacks}: it fails until you have written what it should do")
        settings = msgspec.json.format(msgspec.json.encode(self._renamed(self._settings)), indent=2).decode()
        said = f"{self._name} was a {kind} task of DolphinScheduler, {lacks}: write what it should do"
        lines = [f"This was a {kind} task of DolphinScheduler. Its settings were:", "", *settings.split("\n")]
        comment = "".join(f"# {line}".rstrip() + "\n" for line in lines)
        return as_template([Segment(self._commented(f"{comment}echo {shlex.quote(said)} >&2\nexit 1\n"))])

    def _renamed(self, value: Any, key: str = "") -> Any:
        """The settings with names in place of the codes of tasks and workflows."""
        if isinstance(value, dict):
            return {each: self._renamed(inner, each) for each, inner in value.items()}
        if isinstance(value, list):
            return [self._renamed(inner, key) for inner in value]
        if key in CODE_KEYS and isinstance(value, int | str) and value not in (0, -1, "0", "-1", ""):
            name = self._codes.get(value) or self._codes.get(_as_number(value))
            if name is None and isinstance(value, int):
                self._note(f"its {key} {value} is not in the export")
            return value if name is None else name
        return value

    # -- when and where it does it

    def _retry(self) -> Retry:
        limit = int(min(max(number(self._source.fail_retry_times), 0), RETRIES_MAX))
        delay = max(number(self._source.fail_retry_interval), 0) * MINUTE
        return Retry(limit=limit, delay=delay, delay_max=max(delay, Retry().delay_max)) if limit else Retry()

    def _timeout(self) -> float | None:
        minutes = number(self._source.timeout)
        if str(self._source.timeout_flag).upper() not in ("OPEN", "1") or minutes <= 0:
            return None
        if "FAILED" in (self._source.timeout_notify_strategy or "").upper():
            return minutes * MINUTE
        self._note(f"not carried over: its timeout of {minutes:g} minutes, which only warns")
        return None

    def _priority(self) -> Priority:
        value = self._source.task_priority
        text = str(value if value is not None else "MEDIUM").upper()
        words = {**Priority.__members__, **{str(each.value): each for each in Priority}}
        return words.get(text, Priority.MEDIUM)

    def _note_rest(self) -> None:
        source = self._source
        resources = [_resource_name(each) for each in self._settings.get("resourceList") or []]
        for what, value, nothing in (
            ("its environment with the code", source.environment_code, ("-1",)),
            ("its task group with the id", source.task_group_id, ("-1",)),
            ("its CPU quota of", source.cpu_quota, ("-1",)),
            ("its memory limit of", source.memory_max, ("-1",)),
            ("its result cache", source.is_cache, ("NO",)),
            ("its execution type", source.task_execute_type, ("BATCH",)),
            ("its resource files", ", ".join(resources), ()),
        ):
            if value not in _EMPTY and str(value) not in nothing:
                self._note(f"not carried over: {what} {value}")
        if source.task_type.upper() in SCRIPT_TYPES:
            for key, value in self._settings.items():
                if key not in _CARRIED and not _is_empty(value):
                    self._note(f"not carried over: its setting {key}, {_shown(value)}")


def _as_number(value: int | str) -> int | str:
    return int(value) if isinstance(value, str) and re.fullmatch(r"\d{1,19}", value) else value


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _resource_name(resource: Any) -> str:
    if not isinstance(resource, dict):
        return _shown(resource)
    return _shown(resource.get("resourceName") or resource.get("res") or resource.get("id"))


def _is_empty(value: Any) -> bool:
    """Whether a setting says nothing: editors write many that were never filled in."""
    if isinstance(value, dict):
        return value.get("enable") is False or all(_is_empty(each) for each in value.values())
    if isinstance(value, list):
        return all(_is_empty(each) for each in value)
    return value in _EMPTY
