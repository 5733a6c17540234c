"""Every command survives its bytes; bytes that are no command are refused with a sentence."""

from __future__ import annotations

import types
import typing
from enum import IntEnum
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsfast._core.frame import FrameDecoder
from dsfast.errors import ProtocolError
from dsfast.model import AttemptState, Outcome
from dsfast.wire.codec import COMMANDS, MANY, MANY_BYTES_MAX, by_kind, decode, decode_many, encode, encode_all
from dsfast.wire.commands import Command, Demand, Execute, Result, ResultAck, Submit

SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    str: st.text(max_size=20),
    bytes: st.binary(max_size=50),
    type(None): st.none(),
}


def values(of: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type."""
    if of in SCALARS:
        return SCALARS[of]
    origin, parts = typing.get_origin(of), typing.get_args(of)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([values(part) for part in parts])
    if origin is tuple and parts[-1] is Ellipsis:
        return st.lists(values(parts[0]), max_size=4).map(tuple)
    if origin is tuple:
        return st.tuples(*[values(part) for part in parts])
    if issubclass(of, IntEnum):
        return st.sampled_from(of)
    return structs(of)


def structs(cls: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Instances of a struct with any values in its fields."""
    return st.builds(cls, **{field.name: values(field.type) for field in msgspec.structs.fields(cls)})


request_ids = st.integers(0, 2**64 - 1)
commands = st.one_of([structs(cls) for cls in COMMANDS.values()])


@given(st.lists(st.tuples(commands, request_ids), max_size=8), st.integers(1, 40))
def test_every_command_comes_back_from_its_frame_in_whatever_pieces(
    sent: list[tuple[Command, int]], piece: int
) -> None:
    stream = b"".join(encode(command, request_id) for command, request_id in sent)
    decoder = FrameDecoder(1 << 20)
    frames = [frame for start in range(0, len(stream), piece) for frame in decoder.feed(stream[start : start + piece])]
    assert [(decode(kind, body), request_id) for kind, request_id, body in frames] == sent


@pytest.mark.parametrize("kind", sorted(COMMANDS))
@given(data=st.data())
def test_each_command_by_itself(kind: int, data: st.DataObject) -> None:
    """The same for each kind, so that no kind hides behind the others' chances."""
    command = data.draw(structs(COMMANDS[kind]))
    [(found, _, body)] = FrameDecoder(1 << 20).feed(encode(command))
    assert found == kind
    assert decode(kind, body) == command


@given(st.integers(0, 255), st.binary(max_size=100))
def test_any_bytes_are_a_command_or_a_protocol_error(kind: int, body: bytes) -> None:
    try:
        assert isinstance(decode(kind, body), Command)
    except ProtocolError as error:
        assert "kind" in str(error) or "malformed" in str(error)  # noqa: PT017 - either outcome is fine


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ProtocolError, match="no command has kind 200"):
        decode(200, b"")


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "truncated"),
        (b"\x93\x01\x02", "truncated"),
        (b"\x90", "at least 3|of at least length"),
        (b"\x93\x01\x02\xa1x", r"Expected `int`, got `str` - at `\$\[2\]`"),
        (b"\x93\x01\x02\x03junk", "trailing characters"),
        (b"\x94\x01\x02\x03" + b"\x91" * 100_000, "recursion"),
        (b"\xc1", "malformed"),
    ],
)
def test_a_malformed_body_is_described(body: bytes, what: str) -> None:
    with pytest.raises(ProtocolError, match=f"malformed ResultAck of {len(body)} bytes: .*({what})"):
        decode(ResultAck.KIND, body)


def test_invalid_text_is_a_protocol_error() -> None:
    body = msgspec.msgpack.encode((1, 2, 3, 4, "name", b"spec")).replace(b"name", b"n\xffme")
    with pytest.raises(ProtocolError, match="malformed Execute"):
        decode(Execute.KIND, body)


def test_fields_that_a_newer_peer_added_at_the_end_are_skipped() -> None:
    assert decode(Demand.KIND, msgspec.msgpack.encode((True, {"new": [1, 2]}, "more"))) == Demand(True)


def test_fields_that_an_older_peer_does_not_know_take_their_defaults() -> None:
    assert decode(Submit.KIND, msgspec.msgpack.encode((b"{}",))) == Submit(b"{}")


def test_an_outcome_travels_inside_a_result() -> None:
    outcome = Outcome(AttemptState.SUCCEEDED, 0, "", b'{"rows": 12}', 1.5, 2.5)
    [(kind, _, body)] = FrameDecoder(1 << 20).feed(encode(Result(1, 2, 3, outcome)))
    assert decode(kind, body) == Result(1, 2, 3, outcome)


class One(Command, frozen=True):
    KIND: ClassVar[int] = 9


class Two(Command, frozen=True):
    KIND: ClassVar[int] = 9


class Many(Command, frozen=True):
    KIND: ClassVar[int] = MANY


class Unnumbered(Command, frozen=True):
    pass


def test_two_commands_of_one_kind_are_a_bug_that_is_found_at_once() -> None:
    with pytest.raises(AssertionError, match="Two and One share kind 9"):
        by_kind([One, Two])
    with pytest.raises(AssertionError, match="Unnumbered has kind 0"):
        by_kind([Unnumbered])
    with pytest.raises(AssertionError, match="Many has the kind of a frame"):
        by_kind([Many])


def received(stream: bytes) -> list[tuple[Command, int]]:
    """The commands of a stream with their request ids, those that travelled together one by one."""
    found: list[tuple[Command, int]] = []
    for kind, request_id, body in FrameDecoder(2**32 - 1).feed(stream):
        if kind == MANY:
            found += [(command, request_id) for command in decode_many(body)[1]]
        else:
            found.append((decode(kind, body), request_id))
    return found


runs_of_one_kind = st.one_of(
    [st.lists(st.tuples(structs(cls), st.sampled_from([0, 0, 0, 7])), max_size=6) for cls in COMMANDS.values()]
)


@given(st.lists(runs_of_one_kind, max_size=4).map(lambda runs: [send for run in runs for send in run]))
def test_commands_that_leave_together_arrive_one_by_one_in_their_order(sent: list[tuple[Command, int]]) -> None:
    assert received(encode_all(sent)) == sent


def test_commands_of_one_kind_share_a_frame_until_it_is_large() -> None:
    small = encode_all([(ResultAck(1, task, 1), 0) for task in range(1000)])
    assert [kind for kind, _, _ in FrameDecoder(2**32 - 1).feed(small)] == [MANY]
    sent: list[tuple[Command, int]] = [(Execute(1, task, 1, 1, "t", bytes(100_000)), 0) for task in range(9)]
    large = encode_all([*sent, (Execute(1, 9, 1, 1, "t", bytes(10 * MANY_BYTES_MAX)), 0)])
    frames = FrameDecoder(2**32 - 1).feed(large)
    assert all(len(body) <= MANY_BYTES_MAX for kind, _, body in frames if kind == MANY)
    assert received(large)[:9] == sent


@pytest.mark.parametrize(
    "body",
    [b"", b"\x00\x90", bytes([MANY]) + b"\x90", b"\xff\x90", b"\x12", b"\x12\x91\x01", b"\x12" + bytes(MANY_BYTES_MAX)],
)
def test_many_commands_that_are_none_are_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_many(body)
