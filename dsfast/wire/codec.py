"""Commands to bytes and back: a msgpack array in the frame of `dsfast._core.frame`.

A body holds the command's fields in their order and nothing else. Fields that a newer peer has added at
the end are skipped; fields that an older peer does not send take their defaults; anything else that does
not fit the command's types is a ProtocolError, and so is a kind that nobody has defined.
"""

from __future__ import annotations

import msgspec

from dsfast._core import frame
from dsfast.errors import ProtocolError
from dsfast.wire import commands
from dsfast.wire.commands import Command

_Decoder = msgspec.msgpack.Decoder[Command]


def encode(command: Command, request_id: int = 0) -> bytes:
    """One frame with this command; `request_id` is not 0 when it asks for an answer or is one."""
    return frame.encode(command.KIND, request_id, _pack(command))


def decode(kind: int, body: bytes) -> Command:
    """The command in a frame. Raises ProtocolError, saying what is wrong with it."""
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise ProtocolError(f"no command has kind {kind}: the peer speaks a newer version, or something else")
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"malformed {COMMANDS[kind].__name__} of {len(body)} bytes: {error}") from error


def by_kind(classes: list[type[Command]]) -> dict[int, type[Command]]:
    """The classes by their wire number. Raises AssertionError when two share one or one has none."""
    table: dict[int, type[Command]] = {}
    for cls in sorted(classes, key=lambda cls: cls.KIND):
        assert 0 < cls.KIND < 256, f"{cls.__name__} has kind {cls.KIND}; a kind is a byte and not 0"
        assert cls.KIND not in table, f"{cls.__name__} and {table[cls.KIND].__name__} share kind {cls.KIND}"
        table[cls.KIND] = cls
    return table


def _defined() -> list[type[Command]]:
    classes = [value for value in vars(commands).values() if isinstance(value, type) and issubclass(value, Command)]
    return [cls for cls in classes if cls is not Command]


COMMANDS: dict[int, type[Command]] = by_kind(_defined())
_DECODERS: dict[int, _Decoder] = {kind: msgspec.msgpack.Decoder(cls) for kind, cls in COMMANDS.items()}
_pack = msgspec.msgpack.Encoder().encode
