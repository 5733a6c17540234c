"""What all simulated daemons have: one life, an inbox, links, a clock that may go wrong, and turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsfast.engine.events import Event
from dsfast.model import Member
from dsfast.wire.commands import Command
from tests.simulation.clock import WALL_AT_START

if TYPE_CHECKING:
    from tests.simulation.network import Link
    from tests.simulation.world import World


class Host:
    """One life of a daemon. `refuses`: it is gone, and its machine says so to who dials."""

    def __init__(self, world: World, member: Member) -> None:
        self.world = world
        self.member = member
        self.name = member.name
        self.alive = True
        self.refuses = True
        self.unlisted = False  # the registry has given it up at some time
        self.unlisted_now = False
        self.links: dict[str, Link] = {}
        self.busy = False  # a turn is under way
        self.inbox: list[Event] = []
        self.slow = 0.0  # seconds that a turn may wait for the processor
        self._wakes = 0
        self._turn_due = False
        self._skew = world.rng.uniform(-2.0, 2.0)
        self._monotonic_at_start = world.rng.uniform(0.0, 1e6)

    @property
    def now(self) -> float:
        """This host's monotonic clock."""
        return self._monotonic_at_start + self.world.clock.now

    @property
    def wall(self) -> float:
        """This host's idea of the time of day."""
        return WALL_AT_START + self._skew + self.world.clock.now

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
            self.world.clock.after(max(wake_at - self.now, 0.0), self._wake, self._wakes)

    def take(self) -> list[Event]:
        """Everything that has arrived."""
        events, self.inbox = self.inbox, []
        for event in events:
            self.world.story.hear(self.name, event)
        return events

    def send(self, peer_id: str, request_id: int, command: Command) -> None:
        """Queue a command on the link of this moment, if there is one."""
        link = self.links.get(peer_id)
        if link is not None:
            link.streams[self.member.id].queue(command, request_id)

    def flush(self) -> None:
        for link in list(self.links.values()):
            link.streams[self.member.id].flush()

    def turn(self) -> None:
        """Let the engine take in what has arrived."""
        raise NotImplementedError

    def end(self, *, refuses: bool, notice: float) -> None:
        """The process is gone; peers notice within `notice` seconds."""
        self.alive = False
        self.refuses = refuses
        self.inbox.clear()
        self.world.network.drop_host(self, notice)

    def _turn_soon(self) -> None:
        if not self._turn_due and not self.busy:
            self._turn_due = True
            self.world.clock.after(self.world.rng.random() * self.slow, self._start_turn)

    def _wake(self, wakes: int) -> None:
        if wakes == self._wakes and not self._turn_due and not self.busy:
            self._start_turn()

    def _start_turn(self) -> None:
        self._turn_due = False
        if self.alive and not self.busy:
            self.busy = True
            self._wakes += 1
            self.turn()
