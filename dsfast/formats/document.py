"""YAML text -> plain values, within limits, and the line of any of them on demand.

Theory of operation. libyaml's parser hands over events; one loop builds dicts and lists from them. No node
objects are made and nothing recurses, so a file of 100,000 tasks takes seconds, a nesting of 100,000 brackets
a refusal, and an alias costs what it stands for before anything is multiplied. Lines are not kept: when
something turns out to be wrong, `lines.find_lines` goes over the same events again for the paths in question.

Plain scalars are read as in YAML 1.2: true, false, null and decimal numbers; all else is text, `yes`, `on`,
`1:30` and 2024-01-01 included. Keys are always text. `<<` merges mappings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from dsfast.errors import Problem, UsageError
from dsfast.formats.events import events, syntax_problem
from dsfast.formats.findings import Path
from dsfast.formats.nesting import NESTING_MAX

ALIASED_BYTES_MAX = 64 << 20  # what all aliases of a file may stand for: 1 KB repeated in 64,000 tasks
INTEGER_MIN, INTEGER_MAX = -(1 << 63), (1 << 63) - 1  # what JSON readers and databases take

_NUMBER_STARTS = frozenset("0123456789+-.")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | {
    word: value for value in (True, False) for word in (str(value), str(value).lower(), str(value).upper())
}
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float")}
_TEXT_TAGS = {"tag:yaml.org,2002:str", "!"}
_PARSERS_LIMIT = "exceeded maximum nesting depth"  # the parser reads ahead, and may meet its own limit before ours
_NESTED = f"the values are nested more than {NESTING_MAX} deep here"
_CONTAINER_TAGS = {None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


@dataclass(slots=True)
class Fault:
    """Something wrong with the text itself, found while it was read."""

    line: int
    message: str
    hint: str | None = None


@dataclass(slots=True)
class Document:
    """The values of one YAML document; `faults` is not empty when they cannot be trusted."""

    value: Any
    faults: list[Fault] = field(default_factory=list)


def read_document(text: str, file: str | None, verbatim: Collection[Path] = ()) -> Document:
    """The values of the one document in the text.

    `verbatim` lists paths of mappings whose scalars stay text as written, with "*" for any key or position.
    Raises UsageError for what cannot be read as YAML; faults that leave readable values are in the result.
    """
    builder = _Builder(verbatim)
    try:
        for event in events(text):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        if error.problem == _PARSERS_LIMIT:
            line = error.context_mark.line + 1 if error.context_mark else None
            raise UsageError(Problem(_NESTED, file, line)) from None
        raise UsageError(syntax_problem(error, text, file)) from None
    except _Refusal as refusal:
        fault = refusal.fault
        raise UsageError(Problem(fault.message, file, fault.line, hint=fault.hint)) from None
    return Document(builder.root, builder.faults)


class _Refusal(Exception):
    """Reading on makes no sense."""

    def __init__(self, event: Any, message: str, hint: str | None = None) -> None:
        self.fault = Fault(event.start_mark.line + 1, message, hint)
        super().__init__(message)


class _Frame:
    """A mapping or sequence that is being filled."""

    __slots__ = ("anchor", "depth", "is_list", "key", "lines", "merged", "merging", "size", "value", "verbatim")

    def __init__(self, value: dict[str, Any] | list[Any], anchor: str | None, verbatim: bool) -> None:
        self.value: Any = value
        self.is_list = value.__class__ is list
        self.key: str | None = "" if self.is_list else None  # whose value comes next; None: a key comes next
        self.lines: dict[str, int] = {}  # where the keys of a mapping stand
        self.merging = False  # whether the value that comes next is one to merge
        self.merged: list[Any] = []
        self.anchor = anchor
        self.verbatim = verbatim
        self.size = 1  # what an alias of it stands for, in characters
        self.depth = 1  # brackets in brackets, itself included


_Anchor = tuple[Any, int, int]  # a value, its size, its depth
_UNFINISHED: _Anchor = (None, 0, 0)  # what an anchor stands for until its value is complete


class _Builder:
    """Turns events into values."""

    def __init__(self, verbatim: Collection[Path]) -> None:
        self.faults: list[Fault] = []
        self._top = _Frame([], None, verbatim=False)  # holds the document's value
        self._frame = self._top
        self._outer: list[_Frame] = []
        self._anchors: dict[str, _Anchor] = {}
        self._aliased = 0
        self._documents = 0
        self._verbatim = verbatim
        self._verbatim_keys = {path[-1] for path in verbatim}

    @property
    def root(self) -> Any:
        return self._top.value[0] if self._top.value else None

    def take(self, event: Any) -> None:
        kind = event.__class__
        if kind is ScalarEvent:
            if self._frame.key is None:
                self._take_key(event)
            else:
                self._take_scalar(event)
        elif kind is MappingStartEvent:
            self._open({}, event)
        elif kind is SequenceStartEvent:
            self._open([], event)
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            self._close()
        elif kind is AliasEvent:
            self._take_alias(event)
        elif kind is DocumentStartEvent:
            self._documents += 1
            if self._documents > 1:
                raise _Refusal(event, "a second document starts here (`---`)", "one file holds one workflow")

    def _take_key(self, event: Any) -> None:
        frame, key = self._frame, event.value
        frame.key = key
        frame.size += len(key) + 1
        if key == "<<" and not event.style:
            frame.merging = True
        line = event.start_mark.line + 1
        first = frame.lines.setdefault(key, line)
        if key in frame.value:
            self._fault(event, f"the key `{key[:80]}` stands twice in one mapping, here and in line {first}")

    def _take_scalar(self, event: Any) -> None:
        text = event.value
        if event.tag is not None:
            value = self._tagged(text, event)
        elif event.style or self._frame.verbatim:
            value = text
        else:
            value = self._resolved(text, event)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, len(text) + 1, 0)
        self._add(value, len(text) + 1, 0)

    def _tagged(self, text: str, event: Any) -> Any:
        if event.tag in _TAGS:
            return self._resolved(text, event)
        if event.tag not in _TEXT_TAGS:
            raise _Refusal(event, f"the tag {event.tag} is not supported", "write the plain value")
        return text

    def _resolved(self, text: str, event: Any) -> Any:
        if text[:1] in _NUMBER_STARTS:
            return self._number(text, event)
        return _WORDS.get(text, text)

    def _number(self, text: str, event: Any) -> Any:
        """The number, or the text if it only begins like one."""
        quoting = "put it in quotes to keep it as text"
        if _INTEGER.fullmatch(text):
            value = int(text) if len(text) < 25 else INTEGER_MAX + 1
            if INTEGER_MIN <= value <= INTEGER_MAX:
                return value
            self._fault(event, f"the number {text[:40]} does not fit into 64 bits", quoting)
            return 0
        if not _FLOAT.fullmatch(text) and not _SPECIAL_FLOAT.fullmatch(text):
            return text
        if text[-1] not in "fFnN" and len(text) < 400 and math.isfinite(number := float(text)):
            return number
        self._fault(event, f"{text[:40]} is not a finite number", quoting)
        return 0

    def _add(self, value: Any, size: int, depth: int) -> None:
        frame = self._frame
        frame.size += size
        if depth >= frame.depth:
            frame.depth = depth + 1
        if frame.is_list:
            frame.value.append(value)
        elif frame.merging:
            frame.merging, frame.key = False, None
            frame.merged.append(value)
        else:
            frame.value.setdefault(frame.key, value)
            frame.key = None

    def _open(self, value: dict[str, Any] | list[Any], event: Any) -> None:
        if len(self._outer) >= NESTING_MAX:
            raise _Refusal(event, _NESTED)
        if event.tag not in _CONTAINER_TAGS:
            raise _Refusal(event, f"the tag {event.tag} is not supported", "write the plain value")
        key = self._frame.key
        if key is None:
            raise _Refusal(event, "a key must be text, not a mapping or a list", _quoting_hint(event))
        if event.anchor is not None:
            self._anchors[event.anchor] = _UNFINISHED
        verbatim = key in self._verbatim_keys and self._is_verbatim()
        self._outer.append(self._frame)
        self._frame = _Frame(value, event.anchor, verbatim)

    def _is_verbatim(self) -> bool:
        here = [frame.key for frame in [*self._outer[1:], self._frame]]
        return any(
            len(path) == len(here) and all(want in ("*", got) for want, got in zip(path, here, strict=True))
            for path in self._verbatim
        )

    def _close(self) -> None:
        frame = self._frame
        self._frame = self._outer.pop()
        for value in frame.merged:
            self._merge(frame, value)
        if frame.anchor is not None:
            self._anchors[frame.anchor] = (frame.value, frame.size, frame.depth)
        self._add(frame.value, frame.size, frame.depth)

    def _merge(self, frame: _Frame, value: Any) -> None:
        for each in value if isinstance(value, list) else [value]:
            if not isinstance(each, dict):
                self.faults.append(Fault(frame.lines["<<"], "`<<` merges a mapping, or a list of mappings"))
                return
            for key, item in each.items():
                frame.value.setdefault(key, item)

    def _take_alias(self, event: Any) -> None:
        if self._frame.key is None:
            raise _Refusal(event, "a key cannot be an alias", "write the key itself")
        anchor = self._anchors.get(event.anchor)
        if anchor is None:
            raise _Refusal(event, f"nothing was marked with `&{event.anchor}` before this `*{event.anchor}`")
        if anchor is _UNFINISHED:
            raise _Refusal(event, f"`*{event.anchor}` stands inside of what it stands for")
        value, size, depth = anchor
        if len(self._outer) + depth > NESTING_MAX:
            raise _Refusal(event, _NESTED)
        self._aliased += size
        if self._aliased > ALIASED_BYTES_MAX:
            raise _Refusal(event, f"the aliases stand for more than {ALIASED_BYTES_MAX >> 20} MiB of text")
        self._add(value, size, depth)

    def _fault(self, event: Any, message: str, hint: str | None = None) -> None:
        self.faults.append(Fault(event.start_mark.line + 1, message, hint))


def _quoting_hint(event: Any) -> str | None:
    if event.flow_style:
        return 'a value that begins with {{ needs quotes around it: "{{ params.day }}"'
    return None
