"""The lease machine against a roster that does what a test says: cases that no server can be brought to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf

import pytest

from dsfast.errors import Unavailable, UsageError
from dsfast.model import Member
from dsfast.registry import Session
from dsfast.registry.leased import RosterRegistry
from dsfast.registry.roster import View, encode

ME = Member("worker", "w", "1")


class Puppet:
    """A roster in memory that fails with `failure` while there is one."""

    lease_seconds = 20.0

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.failure: Exception | None = None
        self.closed = False
        self.wake: Callable[[], None]

    def attach(self, wake: Callable[[], None]) -> None:
        self.wake = wake

    async def renew(self, member: Member) -> View:
        kept = member.id in self.bodies
        self.bodies[member.id] = encode(member)
        return await self.look(None) if kept else View((await self.look(None)).bodies, kept=False, look_in=inf)

    async def look(self, member: Member | None) -> View:
        if self.failure is not None:
            raise self.failure
        return View(tuple(self.bodies.values()), member is None or member.id in self.bodies, inf)

    async def remove(self, member: Member) -> None:
        self.bodies.pop(member.id, None)

    async def close(self) -> None:
        self.closed = True


class Reports:
    """The sessions reported, and a way to wait for one."""

    def __init__(self) -> None:
        self.sessions: asyncio.Queue[Session] = asyncio.Queue()

    def on_session(self, session: Session) -> None:
        self.sessions.put_nowait(session)

    def on_members(self, members: tuple[Member, ...]) -> None:
        """Not what these tests are about."""


async def start(puppet: Puppet) -> tuple[RosterRegistry, Reports]:
    registry, reports = RosterRegistry(puppet, 1.0), Reports()
    await registry.start(reports.on_members, reports.on_session)
    assert await reports.sessions.get() is Session.CONNECTED
    return registry, reports


async def test_a_refusal_at_the_start_is_passed_on_and_everything_closed() -> None:
    puppet = Puppet()
    puppet.failure = UsageError("no such database")
    with pytest.raises(UsageError, match="no such database"):
        await start(puppet)
    assert puppet.closed


async def test_a_refusal_later_is_an_outage_like_any_other() -> None:
    puppet = Puppet()
    registry, reports = await start(puppet)
    puppet.failure = UsageError("the password has been changed")
    puppet.wake()
    assert await reports.sessions.get() is Session.SUSPENDED
    puppet.failure = None
    assert await reports.sessions.get() is Session.CONNECTED
    await registry.stop()


async def test_a_server_that_starts_late_is_waited_for() -> None:
    puppet = Puppet()
    puppet.failure = Unavailable("the database is starting")
    starting = asyncio.create_task(start(puppet))
    await asyncio.sleep(0)
    puppet.failure = None
    registry, _ = await starting
    await registry.stop()


async def test_a_bug_at_the_start_is_raised_there() -> None:
    puppet = Puppet()
    puppet.failure = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await start(puppet)


async def test_after_a_bug_the_session_counts_as_lost_and_joins_fail() -> None:
    bugs: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: bugs.append(context["exception"]))
    puppet = Puppet()
    registry, reports = await start(puppet)
    await registry.join(ME)
    puppet.failure = ZeroDivisionError()
    puppet.wake()
    assert await reports.sessions.get() is Session.LOST
    assert [type(bug) for bug in bugs] == [ZeroDivisionError]
    with pytest.raises(AssertionError, match="its task died"):
        await registry.join(ME)
    await registry.stop()
    assert puppet.closed


async def test_our_entry_taken_away_is_a_loss_and_put_back_at_once() -> None:
    puppet = Puppet()
    registry, reports = await start(puppet)
    await registry.join(ME)
    puppet.bodies.clear()
    puppet.wake()
    assert await reports.sessions.get() is Session.LOST
    assert await reports.sessions.get() is Session.CONNECTED
    assert list(puppet.bodies) == [ME.id]
    await registry.stop()
    assert not puppet.bodies
