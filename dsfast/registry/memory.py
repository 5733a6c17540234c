"""Membership inside one process: what `dsfast run` uses, and what tests use to play outages.

The hub holds the members, each registry is one daemon's handle on it. Sessions never end by themselves; `suspend`,
`expire` and `resume` on a handle do what an outage would do elsewhere.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TypeVar

from dsfast.model import Member
from dsfast.registry.base import Session, SessionWatcher, Watcher
from dsfast.registry.roster import encode

T = TypeVar("T")


class MemoryHub:
    """What the handles of one process share. All of them live on one event loop."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.registries: list[MemoryRegistry] = []

    def put(self, member: Member) -> None:
        """Show this member to everyone, in place of what had its id."""
        if self.members.get(member.id) != member:
            self.members[member.id] = member
            self._publish()

    def remove(self, member: Member) -> None:
        """Show this member to nobody any more."""
        if self.members.pop(member.id, None) is not None:
            self._publish()

    def _publish(self) -> None:
        for registry in self.registries:
            registry.refresh()


class MemoryRegistry:
    """A daemon's handle on the hub; implements `Registry`."""

    def __init__(self, hub: MemoryHub) -> None:
        self._hub = hub
        self._member: Member | None = None
        self._session = Session.LOST
        self._seen: tuple[Member, ...] | None = None
        self._on_members: Watcher
        self._on_session: SessionWatcher
        self._resumed = asyncio.Event()

    @property
    def listed_until(self) -> float:
        """See `Registry.listed_until`: nothing here ends by itself."""
        return -math.inf if self._member is None or self._session is Session.LOST else math.inf

    async def start(self, on_members: Watcher, on_session: SessionWatcher) -> None:
        """Begin to report; see `Registry.start`."""
        self._on_members, self._on_session = on_members, on_session
        self._hub.registries.append(self)
        self.resume()
        await asyncio.sleep(0)  # the first reports run before this returns

    async def join(self, member: Member) -> None:
        """Make this member visible; see `Registry.join`."""
        encode(member)
        if self._member is not None and self._member.id != member.id:
            await self.leave()
        self._member = member
        await self._resumed.wait()
        self._hub.put(member)

    async def leave(self) -> None:
        """Disappear at once; see `Registry.leave`."""
        if self._member is not None:
            self._hub.remove(self._member)
            self._member = None

    async def stop(self) -> None:
        """Leave and fall silent; see `Registry.stop`."""
        if self in self._hub.registries:
            self._hub.registries.remove(self)
        await self.leave()

    def suspend(self) -> None:
        """Lose contact: no reports, while others go on seeing the member."""
        self._resumed.clear()
        self._say(Session.SUSPENDED)

    def expire(self) -> None:
        """End the session: others see the member leave. It rejoins at once, or at `resume` if it was suspended."""
        if self._member is not None:
            self._hub.remove(self._member)
        self._say(Session.LOST)
        if self._resumed.is_set():
            self.resume()

    def resume(self) -> None:
        """Be in contact again, registered as before."""
        self._resumed.set()
        self._say(Session.CONNECTED)
        if self._member is not None:
            self._hub.put(self._member)
        self.refresh()

    def refresh(self) -> None:
        """Report the hub's members if they are not what was reported last."""
        members = tuple(self._hub.members[key] for key in sorted(self._hub.members))
        if self._resumed.is_set() and members != self._seen:
            self._seen = members
            self._soon(self._on_members, members)

    def _say(self, session: Session) -> None:
        if session is not self._session:
            self._session = session
            self._soon(self._on_session, session)

    def _soon(self, callback: Callable[[T], None], value: T) -> None:
        asyncio.get_running_loop().call_soon(self._report, callback, value)

    def _report(self, callback: Callable[[T], None], value: T) -> None:
        if self in self._hub.registries:
            callback(value)
