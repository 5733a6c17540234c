"""What a template reads: the params and tasks named inside `{{ }}` and `{% %}`, found without filling anything in.

    {{ params.day }}                      a param
    {{ tasks.count.rows }}                an output of the task `count`
    {{ tasks["load data"].rows }}         brackets reach names that cannot stand after a dot
    {% raw %}{{ not.a.template }}{% endraw %}   {{# a comment #}}

The scan is pure and needs no knowledge of task types, so the master can tell which outputs an attempt
needs before it sends it, and validation can tell a misspelt name before anything runs. A name that is
made at run time (`tasks[x]`, or `tasks` alone) cannot be told: `reads` reports it with `name` None.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from dsfast.model import Task

_INERT = re.compile(
    r"\{\{\#.*?(?:\#\}\}|\Z) | \{%[-+]?\s*raw\s*[-+]?%\}.*?(?:\{%[-+]?\s*endraw\s*[-+]?%\}|\Z)",
    re.DOTALL | re.VERBOSE,
)
_OPEN = re.compile(r"\{\{|\{%")
_STRING = r""""(?:[^"\\]|\\.?)*+(?:"|\Z)|'(?:[^'\\]|\\.?)*+(?:'|\Z)"""  # never scanned twice: linear on any input
_TOKEN = re.compile(
    rf"""
      (?P<string>{_STRING})
    | (?P<close>\}}\}}|%\}})
    | (?P<open>[(\[{{])
    | (?P<shut>[)\]}}])
    | (?P<member>\.\s*\w+)
    | (?P<root>\b(?:params|tasks)\b) (?!\s*=[^=])
      (?: \s*\.\s*(?P<dotted>\w+) | \s*\[\s*(?P<quoted>{_STRING})\s*\] )?
    | \w+ | \s+ | .
    """,
    re.VERBOSE | re.DOTALL,
)


class Read(NamedTuple):
    """One use of `params` or `tasks` in a template; `name` is None when it is only known at run time."""

    root: str
    name: str | None


def is_template(text: str | bytes) -> bool:
    """Whether anything is filled in at all; on bytes, a quick no for JSON that holds no template."""
    return (b"{{" in text or b"{%" in text) if isinstance(text, bytes) else ("{{" in text or "{%" in text)


def reads(text: str) -> Iterator[Read]:
    """Every use of `params` and `tasks` in the template, in order."""
    if not is_template(text):
        return
    text = _INERT.sub("", text)
    at = 0
    while opening := _OPEN.search(text, at):
        at = opening.end()
        depth = 0
        while token := _TOKEN.match(text, at):
            at = token.end()
            if token["close"] and (depth == 0 or token["close"] == "%}"):
                break
            if token["close"]:  # in `{{ {"a": {}}}}` the first two braces end mappings, not the template
                at -= 1
                depth -= 1
            depth += bool(token["open"]) - bool(token["shut"])
            if token["root"]:
                yield Read(token["root"], token["dotted"] or _unquoted(token["quoted"]))


def template_names(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """The names of the params and of the tasks that the template reads."""
    found = set(reads(text))
    params = frozenset(read.name for read in found if read.root == "params" and read.name is not None)
    tasks = frozenset(read.name for read in found if read.root == "tasks" and read.name is not None)
    return params, tasks


def references(task: Task) -> tuple[frozenset[str], frozenset[str]]:
    """The names of the params and of the tasks that the task's settings and environment read."""
    values: list[Any] = [task.env]
    if is_template(bytes(task.config)):
        values.append(msgspec.json.decode(task.config))
    return template_names("\n".join(strings(values)))


def strings(value: Any) -> Iterator[str]:
    """Every string inside a JSON value, depth first; keys of mappings are not values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)


def _unquoted(literal: str | None) -> str | None:
    return None if literal is None else re.sub(r"\\(.)", r"\1", literal[1:-1], flags=re.DOTALL)
