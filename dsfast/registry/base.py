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
    """How this process stands with the registry; the three are told apart by every caller.

    CONNECTED -> SUSPENDED -> CONNECTED is a hiccup that nobody else noticed. After LOST, others may have
    acted on our absence; the CONNECTED that follows says only that they can see us again.
    """

    CONNECTED = "connected"  # what we registered is visible to others
    SUSPENDED = "suspended"  # no contact at the moment; others may or may not still see us
    LOST = "lost"  # others have seen us leave, or may at any moment; a rejoin is under way by itself


Watcher = Callable[[tuple[Member, ...]], None]
SessionWatcher = Callable[[Session], None]


class Registry(Protocol):
    """Membership. Callbacks run on the event loop that called `start`, never from inside a call of ours."""

    @property
    def listed_until(self) -> float:
        """The moment, by time.monotonic(), up to which others see us for sure; -inf if they may not see us now."""

    async def start(self, on_members: Watcher, on_session: SessionWatcher) -> None:
        """Connect and begin to report: the session first, then the full set of live members, sorted by id.

        Both have been reported once when this returns; from then on every change is, until `stop`. Out of
        contact the last known members stay as they were. Outages after the start heal by themselves.
        Raises Unavailable when the registry cannot be reached, UsageError when it refuses us for good.
        """

    async def join(self, member: Member) -> None:
        """Make this member visible until `leave`, `stop` or the end of the session; rejoins by itself after LOST.

        Returns once others can see it, so it waits out an outage. Joining again with the same id replaces what
        was registered. Raises UsageError when the member is larger than MEMBER_BYTES_MAX.
        """

    async def leave(self) -> None:
        """Disappear at once (a clean shutdown); others see it without waiting for a session to end.

        During an outage it gives up after a moment, and the end of the session does the rest.
        """

    async def stop(self) -> None:
        """Leave and disconnect; no callback runs from the moment this is called."""
