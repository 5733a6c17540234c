"""DolphinScheduler's `${name}`, which it replaces in the text of a script, as templates that come to the same text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from dsfast.errors import UsageError

_REFERENCE = re.compile(r"\$\{([^{}()$\n]{1,200})\}")
_TEMPLATE_MARK = re.compile(r"\{\{|\{%")
TIME = re.compile(r"\$\[[^\]\n]{1,200}\]")  # $[yyyyMMdd-1] and its like
BUILT_IN = re.compile(r"\$\{(system\.[\w.]{1,100})\}")
CHAINED_MAX = 8  # a value may hold references itself; this many levels of it are followed
LENGTH_MAX = 1 << 20  # characters of a script with everything filled in that is known now


class Segment(NamedTuple):
    """A piece of text: the text itself, or the expression that reads it at run time."""

    value: str
    is_read: bool = False


Lookup = Callable[[str], Segment | None]  # what a name stands for; None leaves `${name}` as it is


def references(text: str) -> list[str]:
    """The names in `${name}`, in order, each once."""
    return list(dict.fromkeys(_REFERENCE.findall(text)))


def segments(text: str, lookup: Lookup) -> list[Segment]:
    """The text in pieces, names replaced by what they stand for, also within that.

    Raises UsageError when the pieces together would be longer than LENGTH_MAX.
    """
    pieces: list[Segment] = []
    length = 0
    for piece in _expanded(text, lookup, CHAINED_MAX):
        length += len(piece.value) + 1
        if length > LENGTH_MAX:
            raise UsageError("the values of params hold each other so often that a script would grow without end")
        pieces.append(piece)
    return pieces


def _expanded(text: str, lookup: Lookup, depth: int) -> Iterator[Segment]:
    at = 0
    for found in _REFERENCE.finditer(text):
        meaning = lookup(found[1]) if depth else None
        if meaning is None:
            continue
        yield Segment(text[at : found.start()])
        if meaning.is_read:
            yield meaning
        else:
            yield from _expanded(meaning.value, lookup, depth - 1)
        at = found.end()
    yield Segment(text[at:])


def as_template(pieces: Iterable[Segment]) -> str:
    """A template that comes to the same: reads are filled in, and text stays text to the letter."""
    result, text = "", ""
    for piece in pieces:
        if piece.is_read:
            result += f"{_literal(text, before_template=True)}{{{{ {piece.value} }}}}"
            text = ""
        else:
            text += piece.value
    return result + _literal(text, before_template=False)


def param_expression(name: str) -> str:
    """How a template reads a param."""
    return f"params.{name}" if _is_identifier(name) else f'params["{name}"]'


def output_expression(task: str, name: str) -> str:
    """How a template reads an output of a task."""
    start = f"tasks.{task}" if _is_identifier(task) else f'tasks["{task}"]'
    return f"{start}.{name}" if _is_identifier(name) else f'{start}["{name}"]'


def _is_identifier(name: str) -> bool:
    return name.isidentifier() and name.isascii()


def _literal(text: str, before_template: bool) -> str:
    """Text that happens to look like a template, as a template of that text."""
    body = text.rstrip("{") if before_template else text  # braces right before a template would become part of it
    braces = text[len(body) :]
    literal = _TEMPLATE_MARK.sub(lambda mark: f'{{{{ "{mark[0]}" | raw }}}}', body)
    return literal + (f'{{{{ "{braces}" | raw }}}}' if braces else "")
