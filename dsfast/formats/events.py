"""Bytes -> text -> YAML events, or a sentence about why not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml
from yaml.events import StreamEndEvent

from dsfast.errors import Problem, UsageError

TEXT_BYTES_MAX = 256 << 20  # of one file: a million tasks; more is a mistake, such as a device or a log
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def decoded(text: str | bytes, file: str | None) -> str:
    """The bytes as text. Raises UsageError when they are too many, not UTF-8, or not text at all."""
    if len(text) > TEXT_BYTES_MAX:
        raise UsageError(Problem(f"the file is larger than {TEXT_BYTES_MAX >> 20} MiB", file))
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            message = f"the file is not UTF-8 text: byte 0x{error.object[error.start]:02x} at offset {error.start}"
            raise UsageError(Problem(message, file, line, hint="save it as UTF-8")) from None
    text = text.removeprefix("\ufeff")
    if bad := _FORBIDDEN.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        raise UsageError(Problem(f"the file holds the character U+{ord(bad[0]):04X}, which is not text", file, line))
    return text


def events(text: str) -> Iterator[Any]:
    """The events of the text, without the one that ends it. Raises yaml.MarkedYAMLError."""
    parser: Any = yaml.CSafeLoader(text)
    try:
        while True:
            event = parser.get_event()
            if event.__class__ is StreamEndEvent:
                return
            yield event
    finally:
        parser.dispose()


def syntax_problem(error: yaml.MarkedYAMLError, text: str, file: str | None) -> Problem:
    """What the parser has to say, where, and what to do about the commonest causes."""
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else None
    message = f"this is not YAML: {error.problem or error.context}"
    if error.context and error.problem and error.context_mark:
        message += f", {error.context} that begins in line {error.context_mark.line + 1}"
    return Problem(message, file, line, hint=_syntax_hint(error, text, line))


def _syntax_hint(error: yaml.MarkedYAMLError, text: str, line: int | None) -> str | None:
    lines = text.split("\n", line or 1)
    near = "\n".join(lines[max((line or 1) - 2, 0) : line])
    if "\t" in near and "token" in str(error.problem):
        return "YAML is indented with spaces, not with tabs"
    if re.search(r":\s+\{\{", near):
        return 'a value that begins with {{ needs quotes around it: "{{ params.day }}"'
    if "mapping values are not allowed" in str(error.problem):
        return "a value that holds `: ` needs quotes around it"
    return None
