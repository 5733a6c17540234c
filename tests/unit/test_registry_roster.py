"""How members are spelled on a roster, and what becomes of everything else found there."""

from __future__ import annotations

import logging

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsfast.model import Member
from dsfast.registry.roster import MEMBER_BYTES_MAX, Reader, encode

names = st.text(min_size=1, max_size=8)
members = st.builds(
    Member,
    role=st.sampled_from(["master", "worker", "api"]),
    name=names,
    boot=names,
    host=names,
    port=st.integers(0, 65535),
    groups=st.lists(names, max_size=3).map(tuple),
    slots=st.integers(0, 1000),
    started_at=st.floats(0, 1e10),
)


@given(st.lists(members, max_size=6))
def test_what_is_encoded_is_read_back_sorted_by_id(crowd: list[Member]) -> None:
    latest = {member.id: member for member in crowd}
    assert Reader().read(map(encode, crowd)) == tuple(latest[key] for key in sorted(latest))


@given(st.lists(st.one_of(st.binary(max_size=80), members.map(encode)), max_size=6))
def test_foreign_bytes_never_hide_a_member(bodies: list[bytes]) -> None:
    def is_member(body: bytes) -> bool:
        try:
            msgspec.json.decode(body, type=Member)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        return True

    reader = Reader()
    assert reader.read(bodies) == reader.read(body for body in bodies if is_member(body))


def test_fields_of_a_later_version_are_passed_over() -> None:
    body = b'{"role":"worker","name":"w","boot":"1","rack":"r7"}'
    assert Reader().read([body]) == (Member("worker", "w", "1"),)


@pytest.mark.parametrize(
    "body", [b"", b"null", b"\xff\xfe", b'{"role":"worker"}', b"[" * (MEMBER_BYTES_MAX + 1), b'{"x":' + b"[" * 9999]
)
def test_what_is_no_member_is_named_once(body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader()
    with caplog.at_level(logging.WARNING):
        assert reader.read([body]) == reader.read([body]) == ()
    assert len(caplog.records) == 1
    assert len(caplog.text) < 1000
