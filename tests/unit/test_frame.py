"""The frame codec against struct and a bitwise CRC32C, over every boundary, and fed with what no peer should send."""

import itertools
import random
import struct
import sys
import tracemalloc
from array import array
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsfast._core.frame import (
    BODY_BYTES_MAX,
    HARDWARE_CRC,
    HEADER_BYTES,
    MAGIC,
    VERSION,
    FrameDecoder,
    FrameError,
    crc32c,
    encode,
)

Frame = tuple[int, int, bytes]

LIMIT = 4096
HEADER = struct.Struct(">HBBQII")
FRAMES = st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**64 - 1), st.binary(max_size=300)), max_size=8)


# -- the oracle: the same format in plain Python -----------------------------------------------------------


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


CRC_TABLE = _crc_table()


def plain_crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def plain_encode(kind: int, request_id: int, body: bytes) -> bytes:
    summed = struct.pack(">HBBQI", MAGIC, VERSION, kind, request_id, len(body))
    return summed + struct.pack(">I", plain_crc32c(summed + body)) + body


def plain_decode(stream: bytes, limit: int) -> tuple[list[Frame], int, str | None]:
    """The frames of a stream, how many bytes they take, and which field of the next one is wrong."""
    frames: list[Frame] = []
    at = 0
    while len(stream) - at >= HEADER.size:
        magic, version, kind, request_id, length, crc = HEADER.unpack_from(stream, at)
        wrong = "magic" if magic != MAGIC else "version" if version != VERSION else "length" if length > limit else None
        if wrong is not None:
            return frames, at, wrong
        end = at + HEADER.size + length
        if len(stream) < end:
            break
        body = stream[at + HEADER.size : end]
        if crc != plain_crc32c(stream[at : at + 16] + body):
            return frames, at, "checksum"
        frames.append((kind, request_id, body))
        at = end
    return frames, at, None


def feed_all(decoder: FrameDecoder, pieces: list[bytes]) -> tuple[list[Frame], FrameError | None]:
    frames: list[Frame] = []
    for piece in pieces:
        try:
            frames += decoder.feed(piece)
        except FrameError as error:
            return frames + error.frames, error
    return frames, None


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[begin:end] for begin, end in itertools.pairwise(edges)]


# -- the checksum ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"", 0),
    ],
)
def test_crc32c_of_the_published_examples(data: bytes, expected: int) -> None:
    assert crc32c(data) == crc32c(data, portable=True) == plain_crc32c(data) == expected


@settings(deadline=None)
@given(st.binary(max_size=2000), st.integers(0, 7))
def test_crc32c_is_the_same_with_and_without_the_instruction(data: bytes, offset: int) -> None:
    unaligned = memoryview(bytes(offset) + data)[offset:]
    assert crc32c(unaligned) == crc32c(unaligned, portable=True) == plain_crc32c(data)


def test_the_instruction_is_used_where_the_processor_has_it() -> None:
    with open("/proc/cpuinfo") as cpuinfo:
        flags = cpuinfo.read().split()
    assert ("sse4_2" in flags) == HARDWARE_CRC


# -- encoding and decoding ---------------------------------------------------------------------------------


@settings(deadline=None)
@given(FRAMES)
def test_encodes_as_struct_does(frames: list[Frame]) -> None:
    for frame in frames:
        assert encode(*frame) == plain_encode(*frame)


@settings(deadline=None)
@given(FRAMES, st.lists(st.integers(0, 5000), max_size=12))
def test_frames_survive_any_cuts_of_the_stream(frames: list[Frame], places: list[int]) -> None:
    decoder = FrameDecoder(LIMIT)
    pieces = cut(b"".join(encode(*frame) for frame in frames), places)
    assert feed_all(decoder, pieces) == (frames, None)
    assert decoder.buffered == 0


def test_two_cuts_at_every_position() -> None:
    frames = [(1, 2, b""), (255, 2**64 - 1, b"a body"), (0, 0, b"x")]
    stream = b"".join(encode(*frame) for frame in frames)
    for first in range(len(stream) + 1):
        for second in range(first, len(stream) + 1):
            decoder = FrameDecoder(LIMIT)
            found, error = feed_all(decoder, [stream[:first], stream[first:second], stream[second:]])
            assert (found, error, decoder.buffered) == (frames, None, 0)


def test_one_byte_at_a_time_gives_each_frame_at_its_last_byte() -> None:
    frames = [(3, 4, b"first"), (5, 6, b""), (7, 8, b"third")]
    decoder = FrameDecoder(LIMIT)
    for frame in frames:
        encoded = encode(*frame)
        for held, byte in enumerate(encoded[:-1]):
            assert decoder.buffered == held
            assert decoder.feed(bytes([byte])) == []
        assert decoder.feed(encoded[-1:]) == [frame]
        assert decoder.buffered == 0


def test_many_frames_in_one_piece_with_the_rest_held() -> None:
    stream = b"".join(encode(9, number, bytes(number)) for number in range(100)) + encode(1, 2, b"held")[:-1]
    decoder = FrameDecoder(LIMIT)
    assert decoder.feed(stream) == [(9, number, bytes(number)) for number in range(100)]
    assert decoder.buffered == HEADER_BYTES + 3
    assert decoder.feed(b"d") == [(1, 2, b"held")]


@pytest.mark.parametrize(
    "convert", [bytearray, memoryview, lambda data: memoryview(bytearray(data)), lambda data: array("B", data)]
)
def test_whatever_has_a_buffer_of_bytes_is_taken(convert: Any) -> None:
    encoded = encode(1, 2, convert(b"body"))
    assert encoded == encode(1, 2, b"body")
    assert FrameDecoder(LIMIT).feed(convert(encoded)) == [(1, 2, b"body")]


def test_a_buffer_may_change_after_it_was_fed() -> None:
    decoder = FrameDecoder(LIMIT)
    reused = bytearray(encode(1, 2, b"kept"))
    (frame,) = decoder.feed(reused)
    assert decoder.feed(reused[:22]) == []
    reused[:] = bytes(len(reused))
    assert frame == (1, 2, b"kept")
    assert decoder.feed(encode(1, 2, b"kept")[22:]) == [(1, 2, b"kept")]


@pytest.mark.parametrize("wrong", ["text", None, 7, [1, 2]])
def test_what_has_no_buffer_is_refused(wrong: Any) -> None:
    decoder = FrameDecoder(LIMIT)
    with pytest.raises(TypeError):
        decoder.feed(wrong)
    with pytest.raises(TypeError):
        encode(1, 2, wrong)
    with pytest.raises(BufferError):
        decoder.feed(memoryview(b"every other byte")[::2])
    assert decoder.feed(encode(1, 2, b"still fine")) == [(1, 2, b"still fine")]


@pytest.mark.parametrize(("kind", "request_id"), [(256, 0), (-1, 0), (0, -1), (0, 2**64)])
def test_numbers_that_a_header_cannot_hold_are_refused(kind: int, request_id: int) -> None:
    with pytest.raises(OverflowError):
        encode(kind, request_id, b"")


# -- the limit ---------------------------------------------------------------------------------------------


def test_a_body_at_the_limit_passes_and_one_byte_more_does_not() -> None:
    assert FrameDecoder(5).feed(encode(1, 2, b"12345")) == [(1, 2, b"12345")]
    with pytest.raises(FrameError, match="body length 6 is over the limit of 5 bytes"):
        FrameDecoder(5).feed(encode(1, 2, b"123456")[:HEADER_BYTES])


def test_a_new_limit_holds_from_the_next_header_on() -> None:
    decoder = FrameDecoder(10)
    encoded = encode(1, 2, b"1234567890")
    assert decoder.feed(encoded[:25]) == []
    decoder.body_bytes_max = 3
    assert decoder.feed(encoded[25:]) == [(1, 2, b"1234567890")]
    with pytest.raises(FrameError, match="length 10"):
        decoder.feed(encoded)
    raised = FrameDecoder(0)
    raised.body_bytes_max = 10
    assert raised.feed(encoded) == [(1, 2, b"1234567890")]


@pytest.mark.parametrize("limit", [-1, BODY_BYTES_MAX + 1])
def test_a_limit_that_no_length_can_reach_is_refused(limit: int) -> None:
    with pytest.raises(OverflowError):
        FrameDecoder(limit)
    with pytest.raises(OverflowError):
        FrameDecoder(1).body_bytes_max = limit


@pytest.mark.parametrize("length", [LIMIT + 1, 2**31 - 1, 2**31, BODY_BYTES_MAX])
def test_a_giant_length_is_refused_before_memory_is_taken(length: int) -> None:
    header = HEADER.pack(MAGIC, VERSION, 1, 1, length, 0)
    decoder = FrameDecoder(LIMIT)
    tracemalloc.start()
    with pytest.raises(FrameError, match=f"length {length} is over the limit of {LIMIT}"):
        decoder.feed(header)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000


def test_a_large_body_in_many_pieces_is_held_once() -> None:
    size = 8 * 1024 * 1024
    encoded = encode(1, 2, random.Random(1).randbytes(size))
    decoder = FrameDecoder(size)
    tracemalloc.start()
    found: list[Frame] = []
    for begin in range(0, len(encoded), 1000):
        found += decoder.feed(memoryview(encoded)[begin : begin + 1000])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [(1, 2, encoded[HEADER_BYTES:])]
    assert peak < size * 1.1


# -- what is no frame ----------------------------------------------------------------------------------------


def wrong_frames() -> list[tuple[str, bytes]]:
    good = encode(1, 2, b"body")
    return [
        ("bad magic 0x4745: a frame begins with 0xD5FA", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("bad magic 0xD5FB", good[:1] + b"\xfb" + good[2:]),
        ("bad version 2: this end speaks version 1", good[:2] + b"\x02" + good[3:]),
        ("body length 5000 is over the limit of 4096 bytes", encode(1, 2, bytes(5000))),
        ("bad checksum 0x[0-9A-F]{8}: the bytes have 0x[0-9A-F]{8}", good[:-1] + b"Y"),
    ]


@pytest.mark.parametrize(("reason", "wrong"), wrong_frames())
@pytest.mark.parametrize("piece_bytes", [1, 7, 1000])
def test_an_error_names_what_and_where_and_keeps_the_frames_before_it(
    reason: str, wrong: bytes, piece_bytes: int
) -> None:
    before = [(1, number, b"x" * number) for number in range(3)]
    good = b"".join(encode(*frame) for frame in before)
    stream = good + wrong + good
    decoder = FrameDecoder(LIMIT)
    pieces = [stream[at : at + piece_bytes] for at in range(0, len(stream), piece_bytes)]
    found, error = feed_all(decoder, pieces)
    assert found == before
    assert error is not None
    assert error.offset == len(good)
    with pytest.raises(FrameError, match=rf"^{reason}.* \(frame at byte {len(good)} of the stream\)$"):
        raise error


def test_a_broken_decoder_stays_broken_and_repeats_no_frame() -> None:
    decoder = FrameDecoder(LIMIT)
    good = encode(1, 2, b"body")
    with pytest.raises(FrameError) as first:
        decoder.feed(good + bytes(HEADER_BYTES))
    assert first.value.frames == [(1, 2, b"body")]
    assert decoder.buffered == 0
    for data in (b"", good, bytes(5)):
        with pytest.raises(FrameError) as again:
            decoder.feed(data)
        assert str(again.value) == str(first.value)
        assert (again.value.offset, again.value.frames) == (len(good), [])


def test_every_flipped_bit_is_noticed() -> None:
    encoded = encode(77, 0x0123456789ABCDEF, b"a body of some bytes")
    for bit in range(len(encoded) * 8):
        flipped = bytearray(encoded)
        flipped[bit // 8] ^= 1 << bit % 8
        longer = bytes(LIMIT)  # for a flipped length that asks for more
        found, error = feed_all(FrameDecoder(LIMIT), [bytes(flipped), longer])
        assert found == []
        assert error is not None


def assert_decodes_as_the_oracle(stream: bytes, pieces: list[bytes], limit: int) -> None:
    frames, end, wrong = plain_decode(stream, limit)
    decoder = FrameDecoder(limit)
    found, error = feed_all(decoder, pieces)
    assert found == frames
    if wrong is None:
        assert error is None
        assert decoder.buffered == len(stream) - end
    else:
        assert error is not None
        assert (error.offset, wrong in error.reason) == (end, True)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.one_of(st.binary(max_size=40), st.builds(encode, st.just(1), st.just(2), st.binary(max_size=60)))),
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), max_size=2),
    st.lists(st.integers(0, 500), max_size=6),
)
def test_garbage_decodes_as_the_oracle_says(
    parts: list[bytes], damages: list[tuple[int, int]], places: list[int]
) -> None:
    stream = bytearray(b"".join(parts))
    for place, value in damages:
        if stream:
            stream[place % len(stream)] = value
    assert_decodes_as_the_oracle(bytes(stream), cut(bytes(stream), places), 50)


def damaged(chance: random.Random, stream: bytearray) -> bytes:
    """Flip, drop, repeat or insert a few bytes."""
    for _ in range(chance.choice((0, 0, 1, 1, 3))):
        at = chance.randrange(len(stream) + 1)
        match chance.randrange(4):
            case 0:
                stream[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del stream[at : at + chance.randrange(8)]
            case 2:
                stream[at:at] = stream[at : at + chance.randrange(30)]
            case _:
                stream[at:at] = chance.choice((b"\x00" * 4, b"\xff" * 4, b"\xd5\xfa\x01", chance.randbytes(5)))
    return bytes(stream)


@pytest.mark.parametrize("seed", range(4))
def test_ten_thousand_damaged_streams_decode_as_the_oracle_says(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(10_000):
        frames = [
            (chance.randrange(256), chance.getrandbits(64), chance.randbytes(chance.randrange(24))) for _ in "123"
        ]
        stream = damaged(chance, bytearray(b"".join(encode(*frame) for frame in frames)))
        places = [chance.randrange(len(stream) + 1) for _ in range(chance.randrange(4))]
        assert_decodes_as_the_oracle(stream, cut(stream, places), 30)


# -- references --------------------------------------------------------------------------------------------


def test_a_frame_belongs_to_its_receiver_alone() -> None:
    decoder = FrameDecoder(LIMIT)
    encoded = encode(1, 2**40, bytes(100))
    ((_, _, whole),) = decoder.feed(encoded)
    decoder.feed(encoded[:50])
    ((_, _, pieced),) = decoder.feed(encoded[50:])
    fresh = bytes(100)
    assert sys.getrefcount(whole) == sys.getrefcount(pieced) == sys.getrefcount(fresh)
    references = sys.getrefcount(encoded)
    decoder.feed(encoded)
    assert sys.getrefcount(encoded) == references


def test_decoding_and_failing_for_long_keeps_no_memory() -> None:
    good, bad = encode(1, 2, bytes(1000)), encode(1, 2, bytes(1000))[:-1] + b"!"

    def turn() -> None:
        decoder = FrameDecoder(LIMIT)
        feed_all(decoder, [good[:500], good[500:] + good, bad, bad])
        FrameDecoder(LIMIT).feed(good[:-1])

    turn()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(300):
        turn()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < 5_000
