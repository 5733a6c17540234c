"""What does the framing of a command cost? The kernel beside struct and zlib, bare and with a body that is encoded."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable
from typing import Any

import msgspec
import orjson
import pytest

from dsfast._core.frame import FrameDecoder, encode

pytestmark = pytest.mark.benchmark(timer=time.process_time)  # nothing here waits: neighbours do not count

FRAMES = 6_400
COALESCED = 64  # frames that one read of a busy socket brings
BODY_BYTES_MAX = 1 << 20
HEADER = struct.Struct(">HBBQII")
BODY = bytes(range(200))
COMMAND = {"run_id": 7_123_456_789, "task": 17, "attempt": 1, "epoch": 3, "spec": {"command": "echo hello " * 10}}
FIELDS = list(COMMAND.values())

Frame = tuple[int, int, bytes]


def plain_encode(kind: int, request_id: int, body: bytes) -> bytes:
    return HEADER.pack(0xD5FA, 1, kind, request_id, len(body), zlib.crc32(body)) + body


def plain_decode(stream: bytes) -> list[Frame]:
    frames, at = [], 0
    while at < len(stream):
        _, _, kind, request_id, length, crc = HEADER.unpack_from(stream, at)
        body = stream[at + 20 : at + 20 + length]
        if zlib.crc32(body) != crc:
            raise ValueError("bad checksum")
        frames.append((kind, request_id, body))
        at += 20 + length
    return frames


def test_encode_200_bytes(beside: Callable[..., None]) -> None:
    def ours() -> None:
        for request_id in range(FRAMES):
            encode(5, request_id, BODY)

    def theirs() -> None:
        for request_id in range(FRAMES):
            plain_encode(5, request_id, BODY)

    beside(FRAMES, lambda: ours, struct=lambda: theirs)


@pytest.mark.parametrize("size", [0, 48, 200])
def test_decode_64_at_once(beside: Callable[..., None], size: int) -> None:
    stream = b"".join(encode(5, number, BODY[:size]) for number in range(COALESCED))
    plain = b"".join(plain_encode(5, number, BODY[:size]) for number in range(COALESCED))
    decoder = FrameDecoder(BODY_BYTES_MAX)

    def ours() -> None:
        for _ in range(FRAMES // COALESCED):
            decoder.feed(stream)

    def theirs() -> None:
        for _ in range(FRAMES // COALESCED):
            plain_decode(plain)

    beside(FRAMES, lambda: ours, struct=lambda: theirs)


def test_decode_1_at_once(beside: Callable[..., None]) -> None:
    frame, plain = encode(5, 1, BODY), plain_encode(5, 1, BODY)
    decoder = FrameDecoder(BODY_BYTES_MAX)

    def ours() -> None:
        for _ in range(FRAMES):
            decoder.feed(frame)

    def theirs() -> None:
        for _ in range(FRAMES):
            plain_decode(plain)

    beside(FRAMES, lambda: ours, struct=lambda: theirs)


def test_command_there_and_back(beside: Callable[..., None]) -> None:
    """A whole command of about 200 bytes; the body is most of the cost."""
    decoder = FrameDecoder(BODY_BYTES_MAX)
    pack, unpack = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode

    def ours() -> None:
        for request_id in range(FRAMES):
            ((_, _, body),) = decoder.feed(encode(5, request_id, pack(FIELDS)))
            unpack(body)

    def with_struct(dump: Callable[[Any], bytes], load: Callable[[bytes], Any], value: Any) -> None:
        for request_id in range(FRAMES):
            ((_, _, body),) = plain_decode(plain_encode(5, request_id, dump(value)))
            load(body)

    beside(
        FRAMES,
        lambda: ours,
        struct_and_msgpack=lambda: lambda: with_struct(pack, unpack, FIELDS),
        struct_and_orjson=lambda: lambda: with_struct(orjson.dumps, orjson.loads, COMMAND),
    )


def test_one_megabyte_in_pieces_of_16_kilobytes(beside: Callable[..., None]) -> None:
    body = bytes(1 << 20)
    frame, plain = memoryview(encode(5, 1, body)), memoryview(plain_encode(5, 1, body))
    decoder = FrameDecoder(BODY_BYTES_MAX)

    def ours() -> None:
        for begin in range(0, len(frame), 1 << 14):
            decoder.feed(frame[begin : begin + (1 << 14)])

    def theirs() -> None:
        held = bytearray()
        for begin in range(0, len(plain), 1 << 14):
            held += plain[begin : begin + (1 << 14)]
        plain_decode(bytes(held))

    beside(1, lambda: ours, struct=lambda: theirs)
