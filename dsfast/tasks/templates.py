"""Fills in `{{ }}` and `{% %}` with a run's params and the outputs of tasks: plain data, no code of ours within reach.

Filters and loops are those of Jinja (minijinja, which is imported when the first template is met). Comments
are written {{# like this #}}, because {# occurs in shell scripts: ${#array[@]}.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

import msgspec

from dsfast.errors import Problem, UsageError
from dsfast.tasks.base import TaskType
from dsfast.templates import is_template

FUEL = 1_000_000  # template instructions of one attempt's field: 0.1 s of one core
FILLED_BYTES_MAX = 16 << 20  # of one field; a script of this size is a program that belongs into a file
_ALONE = re.compile(r"\s*\{\{(?!#)((?:(?!\{\{|\}\}|\{%).)*)\}\}\s*", re.DOTALL)
_SPECIAL = re.compile(r"[^\w@%+=:,./-]")
_Config = TypeVar("_Config", bound=msgspec.Struct)
Quote = Callable[[str], str]


def shell_quote(text: str) -> str:
    """The text as one word of a shell script, wherever in the script it stands.

    Special characters get a backslash each. Single quotes round the whole would do between words, but not inside
    double quotes, where a value of $(reboot) would be run.
    """
    return _SPECIAL.sub(_escape, text) if text else "''"


def fill(
    task_type: TaskType, config: _Config, env: Mapping[str, str], context: Mapping[str, Any]
) -> tuple[_Config, dict[str, str]]:
    """The settings and the environment with every template filled in.

    The type's `quote` is applied to what is filled into a string, but not inside lists and mappings, whose items
    no shell reads. In a mapping, a value that is one `{{ }}` alone keeps its type. Raises UsageError, with a
    sentence for every template that cannot be filled in.
    """
    problems: list[Problem] = []
    changed = {}
    for name in task_type.templated:
        before = getattr(config, name)
        after = _Filling(context, type(task_type).quote, problems).field(before, name)
        if after != before:
            changed[name] = after
    filled = {name: _Filling(context, None, problems).text(value, f"env.{name}") for name, value in env.items()}
    if problems:
        raise UsageError(problems)
    return (msgspec.structs.replace(config, **changed) if changed else config), filled


def is_plain(task_type: TaskType, config: msgspec.Struct, env: Mapping[str, str]) -> bool:
    """Whether there is nothing to fill in, for whatever attempt."""
    return not is_template(msgspec.json.encode([env, *(getattr(config, name) for name in task_type.templated)]))


class _Filling:
    """Fills in one field and notes what is wrong with it."""

    def __init__(self, context: Mapping[str, Any], quote: Quote | None, problems: list[Problem]) -> None:
        self._context = context
        self._quote = quote
        self._problems = problems

    def field(self, value: Any, name: str) -> Any:
        if isinstance(value, str):
            return self.text(value, name)
        self._quote = None
        return self._item(value, name, typed=False)

    def text(self, value: str, name: str) -> str:
        if not is_template(value):
            return value
        return str(self._attempt(name, lambda: _environment(self._quote).render_str(value, name, **self._context)))

    def _item(self, value: Any, name: str, typed: bool) -> Any:
        if isinstance(value, str):
            alone = _ALONE.fullmatch(value) if typed else None
            return self._value(alone[1], name) if alone else self.text(value, name)
        if isinstance(value, dict):
            return {key: self._item(each, f"{name}.{key}", True) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return type(value)([self._item(each, f"{name}[{at}]", typed) for at, each in enumerate(value)])
        return value

    def _value(self, expression: str, name: str) -> Any:
        return self._attempt(name, lambda: _environment(None).eval_expr(expression, **self._context))

    def _attempt(self, name: str, work: Callable[[], Any]) -> Any:
        from minijinja import TemplateError

        try:
            filled = work()
        except TemplateError as error:
            self._problems.append(_problem(error, name))
            return ""
        if isinstance(filled, str) and len(filled) > FILLED_BYTES_MAX:
            self._problems.append(Problem(f"is more than {FILLED_BYTES_MAX} bytes long when filled in", field=name))
            return ""
        return filled


def _problem(error: Any, name: str) -> Problem:
    line = f" in its line {error.line}" if error.line else ""
    if error.kind == "UndefinedError":
        hint = "there is no such param or output, or the task that hands it on is not among `needs`"
        return Problem(f"cannot be filled in: {error.detail}{line}", field=name, hint=hint)
    hint = "text that is not a template goes between {% raw %} and {% endraw %}"
    return Problem(f"is not a template that can be filled in: {error.message}", field=name, hint=hint)


@cache
def _environment(quote: Quote | None) -> Any:
    from minijinja import Environment, safe

    def finalize(value: Any) -> Any:
        if hasattr(value, "__html__"):
            return value
        text = shown(value)[: FILLED_BYTES_MAX + 1]  # too long already: not worth quoting to its end
        return safe(text if quote is None else quote(text))

    environment = Environment(
        undefined_behavior="strict",
        finalizer=finalize,
        auto_escape_callback=lambda name: quote is not None,
        keep_trailing_newline=True,
        fuel=FUEL,
        comment_start_string="{{#",
        comment_end_string="#}}",
        filters={"raw": safe, "tojson": _to_json},
    )
    for name in ("e", "escape"):  # they escape for HTML and mark the result as safe
        environment.remove_filter(name)
    return environment


def shown(value: Any) -> str:
    """The value as text: strings as they are, everything else as JSON, nothing for null."""
    if value is None:
        return ""
    return value if isinstance(value, str) else _to_json(value)


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _escape(special: re.Match[str]) -> str:
    return "'\n'" if special[0] == "\n" else f"\\{special[0]}"  # a backslash before a line's end would join the lines
