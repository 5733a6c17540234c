"""Which task types there are: the built-in ones, and those that other packages offer by entry point.

A module is imported when its type is first asked for, and the entry points are only read for a name that is
not built in, so that checking a workflow of shell tasks costs one small import.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

from dsfast.errors import Problem, UsageError
from dsfast.tasks.base import TaskType

ENTRY_POINTS = "dsfast.tasks"
_BUILT_IN = {
    "noop": "dsfast.tasks.noop:NoopTask",
    "python": "dsfast.tasks.python:PythonTask",
    "shell": "dsfast.tasks.shell:ShellTask",
    "sleep": "dsfast.tasks.sleep:SleepTask",
}
_STARTERS = ("dsfast.tasks.command", "dsfast.tasks.pool")  # what the types import when their first attempt starts
_PARTS = ("name", "Config", "templated", "quote", "light", "check", "start", "close")
_loaded: dict[str, TaskType] = {}


def task_type(name: str) -> TaskType:
    """The one instance of this type. Raises UsageError when there is none or when it cannot be loaded."""
    known = _loaded.get(name)
    if known is None:
        known = _loaded[name] = _load(name)
    return known


def task_types() -> dict[str, TaskType]:
    """Every type by name, plug-ins included. Raises UsageError when one of them cannot be loaded."""
    return {name: task_type(name) for name in sorted({*_BUILT_IN, *_plug_ins()})}


def load_built_in() -> None:
    """Import all that the built-in types start attempts with: 20 ms that a worker's first task need not wait for."""
    for name in _BUILT_IN:
        task_type(name)
    for module in _STARTERS:
        import_module(module)


def _load(name: str) -> TaskType:
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        return cast(TaskType, getattr(import_module(module), attribute)())
    plug_ins = _plug_ins()
    if name not in plug_ins:
        raise _unknown(name, sorted({*_BUILT_IN, *plug_ins}))
    return _checked(name, plug_ins[name])


def _plug_ins() -> dict[str, Any]:
    from importlib.metadata import entry_points  # 15 ms that most commands never need

    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def _unknown(name: str, known: list[str]) -> UsageError:
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
    return UsageError(Problem(f"there is no task type {name!r}", hint=hint))


def _checked(name: str, entry: Any) -> TaskType:
    source = f"the task type {name!r} of the plug-in {entry.value!r}"
    try:
        loaded = entry.load()
        made = loaded() if isinstance(loaded, type) else loaded
    except Exception as error:  # whatever a plug-in's import raises is the plug-in's fault, said in one sentence
        raise UsageError(Problem(f"{source} cannot be loaded: {type(error).__name__}: {error}")) from error
    missing = [part for part in _PARTS if not hasattr(made, part)]
    if missing:
        raise UsageError(Problem(f"{source} is not a task type: it has no {', '.join(missing)}"))
    return cast(TaskType, made)
