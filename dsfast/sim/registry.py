"""The registry of the simulated cluster: sessions that live by being renewed, and views that spread in their own time.

Theory of operation. A member renews its session every third of the lease. Both sides count the lease on their own
clock: the registry from the arrival of the last renewal, the member from before it was sent, so a member with a good
clock knows first. Renewals that arrive are not simulated one by one: contact that is lost at some moment was last
used up to a third of a lease before. A member that stands still notices nothing until it goes on. Whoever is out of
contact keeps the view it had. A session that has ended does not come back: the member joins anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsfast.engine.events import SessionChanged
from dsfast.model import Member

if TYPE_CHECKING:
    from dsfast.sim.host import Host
    from dsfast.sim.world import World

LEASE_SECONDS = 6.0  # as configured by default
RENEWALS_PER_LEASE = 3
UNNOTICED_SECONDS_MAX = LEASE_SECONDS * 2 / 3  # until a member out of contact knows: a renewal is due, and unanswered
VIEW_SECONDS_MAX = 0.2  # until a change has been pushed to a member that listens


@dataclass(slots=True)
class Session:
    """How a life stands with the registry."""

    barriers: int = 0  # reasons why it has no contact; none is contact
    number: int = 0  # grows with each loss of contact and each return: what was due for an earlier one is void
    state: str = ""  # as last told to the member
    over: bool = False  # the session has ended on one side or the other
    deaf: int = 0  # faults by which its view stays as it is
    blind: bool = False  # it is not told that its session is over
    lease_end: float = 0.0  # by its own clock, as virtual seconds; what counts once contact is lost


class Registry:
    """Who is alive, in the registry's eyes."""

    def __init__(self, world: World) -> None:
        self.members: dict[str, Member] = {}
        self._world = world
        self._sessions: dict[str, Session] = {}

    def session(self, host: Host) -> Session:
        return self._sessions.setdefault(host.member.id, Session())

    def view(self) -> tuple[Member, ...]:
        return tuple(member for _, member in sorted(self.members.items()))

    def listed_until(self, host: Host) -> float:
        """The end of its lease, of which one without contact has what was left; virtual seconds."""
        session = self.session(host)
        if session.over or session.barriers:
            return min(session.lease_end, self._world.clock.now) if session.over else session.lease_end
        return self._world.clock.now + LEASE_SECONDS * (1 - self._world.rng.random() / RENEWALS_PER_LEASE)

    # -- members come and go ---------------------------------------------------------------------------------------

    def join(self, host: Host) -> None:
        """Show this member, if it lives and has contact, and tell it so."""
        session = self.session(host)
        if not host.alive or session.barriers:
            return
        if session.over:
            self._tell(host, "lost")
        session.over = session.blind = False
        self.members[host.member.id] = host.member
        self._tell(host, "connected")
        host.learn_members(self.view())
        self._publish()

    def leave(self, host: Host) -> None:
        """It says goodbye. Without contact that does not get through: the end of its session does the rest."""
        if self.session(host).barriers == 0:
            self.remove(host)

    def remove(self, host: Host) -> None:
        """Show it no more: it has left, or its session has ended."""
        if self.members.pop(host.member.id, None) is not None:
            self._publish()

    def _publish(self) -> None:
        """Everybody learns the newest view in their own time; views never go back."""
        for host in self._world.hosts():
            self._world.clock.after(
                self._world.latency() + self._world.rng.random() * VIEW_SECONDS_MAX, self.show, host
            )

    def show(self, host: Host) -> None:
        """Show the present view, to one that has contact and listens."""
        session = self.session(host)
        if host.alive and session.barriers == 0 and session.deaf == 0:
            host.learn_members(self.view())

    # -- sessions ----------------------------------------------------------------------------------------------------

    def lose_contact(self, host: Host) -> None:
        """From now on nothing gets through, until `regain_contact` has been called as often."""
        session, world = self.session(host), self._world
        session.barriers += 1
        if session.barriers > 1:
            return
        session.number += 1
        age = world.rng.random() * LEASE_SECONDS / RENEWALS_PER_LEASE  # of the last renewal that arrived
        sent = age + world.latency()
        world.clock.after(LEASE_SECONDS - age, self._expire, host, session.number)
        if host.alive:
            wait = max(LEASE_SECONDS / host.rate - sent, 0.0)
            session.lease_end = world.clock.now + wait
            host.after(wait, self._overdue, host, session.number)
            host.after(world.rng.random() * UNNOTICED_SECONDS_MAX, self._hiccup, host, session.number)

    def _hiccup(self, host: Host, number: int) -> None:
        session = self.session(host)
        if session.number == number and session.state == "connected":
            self._tell(host, "suspended")

    def _expire(self, host: Host, number: int) -> None:
        """The registry has not heard of it for a lease."""
        session = self.session(host)
        if session.number == number:
            session.over = host.doubted = True
            self.remove(host)

    def _overdue(self, host: Host, number: int) -> None:
        """The member itself knows that its lease has run out, by its own clock, whatever happened meanwhile."""
        session = self.session(host)
        if session.number == number or session.over:
            session.over = host.doubted = True
            session.blind = False  # nobody has to tell it
            self._tell(host, "lost")

    def regain_contact(self, host: Host) -> None:
        """One reason less for having no contact; without any the session goes on, or a new one begins."""
        session = self.session(host)
        session.barriers = max(session.barriers - 1, 0)
        if session.barriers == 0 and host.alive:
            session.number += 1
            host.after(self._world.latency(), self._return, host, session.number)

    def _return(self, host: Host, number: int) -> None:
        session = self.session(host)
        if session.number != number or not host.alive:
            return
        if session.over:
            self._tell(host, "lost")
        if session.over or not (host.member.id in self.members or session.blind):  # or it could not join so far
            host.after(self._world.latency(), self.join, host)
        else:
            self._tell(host, "connected")
            self.show(host)

    def expire(self, host: Host, seconds: float) -> None:
        """End its session by force; it learns of that with its next renewal, and joins again after so many seconds."""
        session, world = self.session(host), self._world
        if session.over or session.barriers or not host.alive:
            return
        session.over = host.doubted = True
        session.lease_end = world.clock.now + LEASE_SECONDS  # as far as the host knows
        self.remove(host)
        seen = world.rng.random() * LEASE_SECONDS / RENEWALS_PER_LEASE
        host.after(seen, self._find_ended, host, seconds)

    def _find_ended(self, host: Host, seconds: float) -> None:
        if self.session(host).over:
            self._tell(host, "lost")
            host.after(seconds, self.join, host)

    def _tell(self, host: Host, state: str) -> None:
        session = self.session(host)
        if session.state != state and not session.blind:
            session.state = state
            host.put(SessionChanged(state, host.at(session.lease_end) if state == "lost" else None))
