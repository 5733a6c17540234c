"""The values a task hands on: `${setValue(key=value)}` in its log, and what it wrote to $DSFAST_OUTPUT.

The file holds either one JSON object or lines `key=value`; it wins over the log, and later values over earlier.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import msgspec

from dsfast.model import OUTPUTS_BYTES_MAX

SCAN_BYTES_MAX = 64 << 20  # of a larger log only the first and the last half of this is searched: 50 ms of one core
VALUE_BYTES_MAX = 64 << 10  # of one value in a log; larger ones belong into the file
_CHUNK = 1 << 20
_OPENING, _CLOSING = b"{setValue(", b")}"


class BadOutputs(ValueError):
    """The values cannot be handed on; the message is a sentence for the task's owner."""


def collect(log: str, log_size: int, output: str) -> dict[str, Any]:
    """The values. Raises BadOutputs, and OSError from reading."""
    values: dict[str, Any] = {}
    if log_size:
        for text in _chunks(log, log_size):
            if _OPENING in text:
                values.update(values_in(text))
    values.update(_from_file(output))
    return values


def encode(values: dict[str, Any]) -> bytes:
    """These values as a JSON object, nothing for none. Raises BadOutputs when they are too large."""
    if not values:
        return b""
    encoded = msgspec.json.encode(values)
    if len(encoded) > OUTPUTS_BYTES_MAX:
        raise BadOutputs(
            f"the task's output values take {len(encoded)} bytes and at most {OUTPUTS_BYTES_MAX} are handed on: "
            "write large results to a file and hand on its name"
        )
    return encoded


def values_in(text: bytes) -> Iterator[tuple[str, str]]:
    """Every `${setValue(key=value)}` and `#{setValue(key=value)}`; a value may go over several lines."""
    at, end = 0, -1
    while (at := text.find(_OPENING, at)) >= 0:
        start = at + len(_OPENING)
        if end < start:
            end = text.find(_CLOSING, start)
        if end < 0:
            return
        name, equals, value = text[start:end].partition(b"=")
        intact = len(value) <= VALUE_BYTES_MAX and _OPENING not in value
        if text[at - 1 : at] in (b"$", b"#") and equals and name.strip() and intact:
            yield name.strip().decode(errors="replace"), value.decode(errors="replace")
        at = start


def _chunks(path: str, size: int) -> Iterator[bytes]:
    """The log in pieces that overlap, so that no value is cut in two everywhere."""
    half = SCAN_BYTES_MAX // 2
    spans = [(0, size)] if size <= SCAN_BYTES_MAX else [(0, half), (size - half, size)]
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:  # the task has removed its own log
        return
    try:
        for start, stop in spans:
            for offset in range(start, stop, _CHUNK):
                yield os.pread(fd, min(_CHUNK + 2 * VALUE_BYTES_MAX, stop - offset), offset)
    finally:
        os.close(fd)


def _from_file(path: str) -> dict[str, Any]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return {}
    with open(fd, "rb") as file:
        content = file.read(OUTPUTS_BYTES_MAX + 1)
    if len(content) > OUTPUTS_BYTES_MAX:
        raise BadOutputs(f"the file $DSFAST_OUTPUT holds more than {OUTPUTS_BYTES_MAX} bytes: hand on names, not data")
    if content.lstrip().startswith(b"{"):
        return _json_object(content)
    return dict(_lines(content.decode(errors="replace")))


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise BadOutputs(f"the file $DSFAST_OUTPUT starts with {{ but is not a JSON object: {error}") from error


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        name, equals, value = line.removesuffix("\r").partition("=")
        if equals and name.strip():
            yield name.strip(), value
        elif line.strip():
            raise BadOutputs(f"line {number} of the file $DSFAST_OUTPUT is not key=value: {line[:80]!r}")
