"""Commands to bytes and back: a msgpack array in the frame of `dsfast._core.frame`.

Commands of one kind that follow each other and ask for no answer travel together: a frame of kind MANY holds their kind
in a byte, then an array of their bodies. In a burst of short tasks that saves most of what a command costs on its way.

A body holds the command's fields in their order and nothing else. Fields that a newer peer has added at
the end are skipped; fields that an older peer does not send take their defaults; anything else that does
not fit the command's types is a ProtocolError, and so is a kind that nobody has defined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from dsfast._core import frame
from dsfast.errors import ProtocolError
from dsfast.wire import commands
from dsfast.wire.commands import Command

_Decoder = msgspec.msgpack.Decoder[Command]
_ManyDecoder = msgspec.msgpack.Decoder[list[Command]]

MANY = 7  # a kind of frame, not of a command
MANY_BYTES_MAX = 1 << 18  # of such a body: half a turn of short commands, and few enough that one frame is soon decoded


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


def encode_all(sends: Iterable[tuple[Command, int]]) -> bytes:
    """The frames for these commands with their request ids, in order."""
    frames: list[bytes] = []
    alike: list[Command] = []
    for command, request_id in sends:
        if alike and (request_id or type(command) is not type(alike[0])):
            frames.append(_encode_alike(alike))
            alike = []
        if request_id:
            frames.append(encode(command, request_id))
        else:
            alike.append(command)
    if alike:
        frames.append(_encode_alike(alike))
    return frames[0] if len(frames) == 1 else b"".join(frames)


def _encode_alike(commands: list[Command]) -> bytes:
    """Commands of one kind, in one frame, or in more if it would be too large."""
    if len(commands) == 1:
        return encode(commands[0])
    body = _pack_many(commands)
    if len(body) < MANY_BYTES_MAX:
        return frame.encode(MANY, 0, bytes((commands[0].KIND,)) + body)
    half = len(commands) // 2
    return _encode_alike(commands[:half]) + _encode_alike(commands[half:])


def decode_many(body: bytes) -> tuple[int, list[Command]]:
    """The commands in a frame of kind MANY, and their kind. Raises ProtocolError."""
    kind = body[0] if body else 0
    decoder = _MANY_DECODERS.get(kind)
    if decoder is None or len(body) > MANY_BYTES_MAX:
        raise ProtocolError(f"a frame of {len(body)} bytes holds many commands of kind {kind}: nobody sends that")
    try:
        return kind, decoder.decode(memoryview(body)[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"malformed list of {COMMANDS[kind].__name__} in {len(body)} bytes: {error}") from error


def by_kind(classes: list[type[Command]]) -> dict[int, type[Command]]:
    """The classes by their wire number. Raises AssertionError when two share one or one has none."""
    table: dict[int, type[Command]] = {}
    for cls in sorted(classes, key=lambda cls: cls.KIND):
        assert 0 < cls.KIND < 256, f"{cls.__name__} has kind {cls.KIND}; a kind is a byte and not 0"
        assert cls.KIND != MANY, f"{cls.__name__} has the kind of a frame with many commands"
        assert cls.KIND not in table, f"{cls.__name__} and {table[cls.KIND].__name__} share kind {cls.KIND}"
        table[cls.KIND] = cls
    return table


def _defined() -> list[type[Command]]:
    classes = [value for value in vars(commands).values() if isinstance(value, type) and issubclass(value, Command)]
    return [cls for cls in classes if cls is not Command]


COMMANDS: dict[int, type[Command]] = by_kind(_defined())
_DECODERS: dict[int, _Decoder] = {kind: msgspec.msgpack.Decoder(cls) for kind, cls in COMMANDS.items()}
_MANY_DECODERS: dict[int, _ManyDecoder] = {
    kind: msgspec.msgpack.Decoder(list[cls])  # type: ignore[valid-type]
    for kind, cls in COMMANDS.items()
}
_pack: Callable[[Command], bytes] = msgspec.msgpack.Encoder().encode
_pack_many: Callable[[list[Command]], bytes] = msgspec.msgpack.Encoder().encode
