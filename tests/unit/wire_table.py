"""The table of commands in docs/wire.md: `python -m tests.unit.wire_table` writes it anew."""

from __future__ import annotations

import sys
import types
import typing
from enum import IntEnum
from pathlib import Path
from typing import Any

import msgspec

from dsfast.model import Member, Outcome
from dsfast.wire.codec import COMMANDS
from dsfast.wire.commands import Command, Order, Verdict
from dsfast.wire.flows import FLOWS, flow

PAGE = Path(__file__).parents[2] / "docs" / "wire.md"
BEGIN, END = "<!-- commands -->\n", "<!-- end of commands -->\n"

# What carries the same meaning in DolphinScheduler 1.3, by command.
DOLPHINSCHEDULER = {
    "Execute": "TASK_EXECUTE_REQUEST",
    "Started": "TASK_EXECUTE_ACK",
    "StartedAck": "DB_TASK_ACK",
    "Result": "TASK_EXECUTE_RESPONSE",
    "ResultAck": "DB_TASK_RESPONSE",
    "Kill": "TASK_KILL_REQUEST",
    "KillAnswer": "TASK_KILL_RESPONSE",
    "Ping": "PING, HEART_BEAT",
    "Pong": "PONG",
    "LogRead": "GET_LOG_BYTES_REQUEST, ROLL_VIEW_LOG_REQUEST, VIEW_WHOLE_LOG_REQUEST",
    "LogChunk": "GET_LOG_BYTES_RESPONSE, ROLL_VIEW_LOG_RESPONSE, VIEW_WHOLE_LOG_RESPONSE",
}

STRUCTURES = {Member: "map; fields with their default left out", Outcome: "array", Order: "array", Verdict: "array"}


def markdown() -> str:
    """One table per flow."""
    parts = []
    for name in FLOWS:
        rows = "".join(_row(kind, cls) for kind, cls in COMMANDS.items() if flow(kind) == name)
        head = "| Kind | Command | Fields | Meaning | In DolphinScheduler 1.3 |\n|---|---|---|---|---|\n"
        parts.append(f"### {name.capitalize()}\n\n{head}{rows}\n")
    return "".join(parts) + _structures()


def current(page: str) -> str:
    """The page with its tables as the code has them."""
    head, _, rest = page.partition(BEGIN)
    tail = rest.partition(END)[2]
    return f"{head}{BEGIN}\n{markdown()}{END}{tail}"


def _structures() -> str:
    head = "### Structures\n\n| Name | msgpack | Fields |\n|---|---|---|\n"
    rows = [
        f"| {cls.__name__} | {form} | {', '.join(map(_field, msgspec.structs.fields(cls)))} |\n"
        for cls, form in STRUCTURES.items()
    ]
    return head + "".join(rows) + "\n"


def _row(kind: int, cls: type[Command]) -> str:
    meaning = " ".join((cls.__doc__ or "").split())
    fields = ", ".join(map(_field, msgspec.structs.fields(cls)))
    return f"| {kind} | {cls.__name__} | {fields} | {meaning} | {DOLPHINSCHEDULER.get(cls.__name__, '')} |\n"


def _field(field: Any) -> str:
    default = "" if field.default is msgspec.NODEFAULT else f" = `{_plain(field.default)}`"
    return f"`{field.name}` {_type(field.type)}{default}"


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode() or '""'
    return msgspec.json.encode(value).decode()


def _type(of: Any) -> str:
    origin, parts = typing.get_origin(of), typing.get_args(of)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_type, parts))
    if origin is tuple:
        inside = ", ".join(_type(part) for part in parts if part is not Ellipsis)
        return f"list of {inside}" if parts[-1] is Ellipsis else f"({inside})"
    if of is type(None):
        return "nil"
    return "int" if issubclass(of, IntEnum) else str(of.__name__)


if __name__ == "__main__":
    sys.stdout.write(f"{PAGE}\n")
    PAGE.write_text(current(PAGE.read_text()))
