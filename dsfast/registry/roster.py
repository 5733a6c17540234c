"""A roster: the list of members that is kept outside this process, and how members are spelled in it.

`leased.RosterRegistry` decides when to renew, what a failure means and whom to tell; a roster only talks to
its database or ensemble. Every method may be cancelled at any await: the roster then drops its connection and
makes a new one at the next call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from dsfast.errors import UsageError
from dsfast.model import Member

MEMBER_BYTES_MAX = 64 * 1024  # a member as JSON: every daemon reads every member, and ZooKeeper stops at 1 MiB

log = logging.getLogger("dsfast.registry")


@dataclass(frozen=True, slots=True)
class View:
    """What a roster shows at one moment."""

    bodies: tuple[bytes, ...]  # the live members, each as it was stored
    kept: bool  # the member asked about has been on the roster, unchanged, since it was put there
    look_in: float  # seconds until it is worth looking again without being woken


class Roster(Protocol):
    """Where members are listed. Every method connects first if it has to, and raises Unavailable or UsageError."""

    @property
    def lease_seconds(self) -> float:
        """How long others go on seeing a member after its last renewal, at least."""

    def attach(self, wake: Callable[[], None]) -> None:
        """Take the function to call, on the loop, when something may have changed."""

    async def renew(self, member: Member) -> View:
        """Put the member on the roster or extend its stay, and look."""

    async def look(self, member: Member | None) -> View:
        """Look without changing anything."""

    async def remove(self, member: Member) -> None:
        """Take the member off the roster; fine if it is not there."""

    async def close(self) -> None:
        """Disconnect; never raises, never waits long."""


def encode(member: Member) -> bytes:
    """The member as it is stored. Raises UsageError when it is larger than MEMBER_BYTES_MAX."""
    body = msgspec.json.encode(member)
    if len(body) > MEMBER_BYTES_MAX:
        raise UsageError(
            f"the member {member.id[:100]!r} takes {len(body)} bytes in the registry, "
            f"and {MEMBER_BYTES_MAX} are allowed: give it fewer or shorter worker groups"
        )
    return body


class Reader:
    """Turns stored bodies into members; what is not a member is named in the log once and ignored."""

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(Member)
        self._foreign: set[bytes] = set()

    def read(self, bodies: Iterable[bytes]) -> tuple[Member, ...]:
        """The members among the bodies, sorted by id; of two with the same id the later one."""
        bodies = tuple(bodies)
        self._foreign.intersection_update(bodies)
        members = {member.id: member for member in map(self._parse, bodies) if member is not None}
        return tuple(members[key] for key in sorted(members))

    def _parse(self, body: bytes) -> Member | None:
        if body in self._foreign:
            return None
        try:
            if len(body) <= MEMBER_BYTES_MAX:
                return self._decoder.decode(body)
            reason = f"longer than {MEMBER_BYTES_MAX} bytes"
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            reason = str(error)
        self._foreign.add(body)
        log.warning("registry_foreign_entry ignored=%r reason=%r", body[:100], reason)
        return None
