"""The registry's protocol: membership with sessions.

A registry answers one question: which members are alive. It carries no work and no heartbeats; those
travel on the command channel. Losing the session pauses dispatch of new runs and kills nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol

from dsfast.model import Member


class Session(Enum):
    """How this process stands with the registry; the three are told apart by every caller."""

    CONNECTED = "connected"  # what we registered is visible to others
    SUSPENDED = "suspended"  # no contact at the moment; others may or may not still see us
    LOST = "lost"  # others have seen us leave; a rejoin is under way by itself


Watcher = Callable[[tuple[Member, ...]], None]
SessionWatcher = Callable[[Session], None]


class Registry(Protocol):
    """Membership. Callbacks run on the event loop that called `start`."""

    async def start(self, on_members: Watcher, on_session: SessionWatcher) -> None:
        """Connect and begin to report: the full set of live members at once and after every change, sorted by id."""

    async def join(self, member: Member) -> None:
        """Make this member visible until `leave`, `stop` or the end of the session; rejoins by itself after LOST."""

    async def leave(self) -> None:
        """Disappear at once (a clean shutdown); others see it without waiting for a session to end."""

    async def stop(self) -> None:
        """Leave and disconnect; no callback runs afterwards."""
