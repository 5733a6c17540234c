"""What all simulated daemons have: one life, an inbox, links, clocks that may go wrong, and turns.

A host can be paused, as SIGSTOP or a suspended machine would: nothing of it happens until it is resumed, while
what others send piles up in its inbox, as it would in the buffers of its sockets. It learns nothing of the pause.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dsfast.engine.events import Event
from dsfast.model import Member
from dsfast.sim.clock import WALL_AT_START, Call
from dsfast.wire.commands import Command

if TYPE_CHECKING:
    from dsfast.sim.network import Link
    from dsfast.sim.world import World

SKEW_SECONDS_MAX = 2.0  # by which a host's idea of the time of day is off, before it jumps
RESUME_SECONDS_MAX = 0.01  # within which a process that goes on gets round to each thing that has waited


class Host(ABC):
    """One life of a daemon. `refuses`: it is gone, and its machine says so to who dials."""

    def __init__(self, world: World, member: Member) -> None:
        self.world = world
        self.member = member
        self.name = member.name
        self.alive = True
        self.refuses = True
        self.paused = False
        self.stood_still = 0.0  # seconds of the last pause, until the daemon has noticed it
        self.doubted = False  # at some time it was out of the registry or stood still: others may have given it up
        self.links: dict[str, Link] = {}
        self.busy = False  # a turn is under way
        self.inbox: list[Event] = []
        self.slow = 0.0  # seconds that a turn may wait for the processor
        self.skew = world.rng.uniform(-SKEW_SECONDS_MAX, SKEW_SECONDS_MAX)
        self.rate = 1.0 + world.rng.uniform(-world.profile.drift, world.profile.drift)
        self._wakes = 0
        self._turn_due = False
        self._paused_at = 0.0
        self._waiting: list[tuple[Call, tuple[Any, ...]]] = []  # for the end of the pause
        self._monotonic_at_start = world.rng.uniform(0.0, 1e6)
        self._born = world.clock.now

    @property
    def now(self) -> float:
        """This host's monotonic clock, which may be fast or slow."""
        return self._monotonic_at_start + (self.world.clock.now - self._born) * self.rate

    def at(self, second: float) -> float:
        """A second of the world on this host's monotonic clock."""
        return self.now + (second - self.world.clock.now) * self.rate

    @property
    def wall(self) -> float:
        """This host's idea of the time of day, which may jump."""
        return WALL_AT_START + self.skew + self.world.clock.now

    # -- its own time --------------------------------------------------------------------------------------------

    def after(self, seconds: float, call: Call, *args: Any) -> None:
        """Make the call in so many seconds, or at the end of a pause that lasts longer."""
        self.world.clock.after(seconds, self._unless_paused, call, args)

    @property
    def leaving(self) -> bool:
        """Whether it gives up by itself what it has."""
        return False

    @property
    def gone(self) -> bool:
        """Whether nothing of this life is left, so that another may begin."""
        return not self.alive

    def suspend(self) -> None:
        """Stand still, with the whole machine."""
        self.pause()

    def pause(self) -> None:
        """Stand still."""
        self.paused = self.doubted = True
        self._paused_at = self.world.clock.now
        self.world.network.goes_silent(self)
        self.world.registry.lose_contact(self)

    def resume(self) -> None:
        """Go on, with everything that has waited."""
        if not self.paused:
            return
        self.paused = False
        self.stood_still = self.world.clock.now - self._paused_at
        waiting, self._waiting = self._waiting, []
        for call, args in waiting:
            self.after(self.world.rng.random() * RESUME_SECONDS_MAX, call, *args)
        self.world.registry.regain_contact(self)

    def _unless_paused(self, call: Call, args: tuple[Any, ...]) -> None:
        if self.paused:
            self._waiting.append((call, args))
        else:
            call(*args)

    # -- turns --------------------------------------------------------------------------------------------------

    def put(self, event: Event) -> None:
        """Tell the engine something, with its next turn."""
        if self.alive:
            self.inbox.append(event)
            self._turn_soon()

    def put_first(self, event: Event) -> None:
        """Tell the engine something before all that it has not been told yet."""
        if self.alive:
            self.inbox.insert(0, event)
            self._turn_soon()

    def rest(self, wake_at: float | None) -> None:
        """The turn is over: the next comes with the next event, or at this monotonic second."""
        self.busy = False
        self._wakes += 1
        if self.inbox:
            self._turn_soon()
        elif wake_at is not None:
            self.after(max(wake_at - self.now, 0.0) / self.rate, self._wake, self._wakes)

    def take(self) -> list[Event]:
        """Everything that has arrived."""
        events, self.inbox = self.inbox, []
        for event in events:
            self.world.story.hear(self.name, event)
        return events

    def send(self, peer_id: str, request_id: int, command: Command, links: Mapping[str, Link] | None = None) -> None:
        """Queue a command on the link of this moment, or of the one at which there were `links`, if there is one."""
        link = (self.links if links is None else links).get(peer_id)
        if link is not None:
            link.streams[self.member.id].queue(command, request_id)

    def flush(self) -> None:
        for link in list(self.links.values()):
            link.streams[self.member.id].flush()

    @abstractmethod
    def turn(self) -> None:
        """Let the engine take in what has arrived."""

    @abstractmethod
    def learn_members(self, members: tuple[Member, ...]) -> None:
        """The registry's view has changed."""

    @abstractmethod
    def nothing_left(self) -> None:
        """At rest a daemon remembers nothing but definitions and epochs. Raises Broken."""

    def end(self, *, power: bool, notice: float) -> None:
        """The process is gone; peers notice within `notice` seconds. Without power its machine does not even refuse."""
        self.alive = False
        self.refuses = not power
        self.inbox.clear()
        self._waiting.clear()
        self.paused = False
        self.world.network.drop_host(self, notice)

    def _turn_soon(self) -> None:
        if not self._turn_due and not self.busy:
            self._turn_due = True
            self.after(self.world.rng.random() * self.slow, self._start_turn)

    def _wake(self, wakes: int) -> None:
        if wakes == self._wakes and not self._turn_due and not self.busy:
            self._start_turn()

    def _start_turn(self) -> None:
        self._turn_due = False
        if self.alive and not self.busy:
            self.busy = True
            self._wakes += 1
            self.turn()
