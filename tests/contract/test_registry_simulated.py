"""The simulation's registry keeps the contract that real ones keep: the same tests, on the simulation's clock."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from inspect import signature

import pytest

from dsfast.engine.events import Event, SessionChanged
from dsfast.model import Member
from dsfast.registry import Registry, Session
from dsfast.registry.base import SessionWatcher, Watcher
from dsfast.sim.host import Host
from dsfast.sim.world import World
from tests.contract import test_registry
from tests.contract.registries import Cluster, Seen

STEP_SECONDS = 0.05  # of virtual time for each round of the loop
CALLS_MAX = 1_000_000
NOT_SIMULATED = {
    "test_joining_as_another_member_takes_the_first_one_away": "a life there is one member",
    "test_a_member_that_is_too_large_is_refused_with_a_sentence": "it holds any member",
    "test_a_leave_in_an_outage_returns_and_holds": "who leaves has ended, and has no contact to regain",
    "test_callbacks_run_on_the_loop_and_one_that_fails_stops_nothing": "hosts are told through their inbox",
}
SHARED = [
    test
    for name, test in vars(test_registry).items()
    if name.startswith("test_") and name not in NOT_SIMULATED and list(signature(test).parameters) == ["cluster"]
]


class Watching(Host):
    """A daemon that is nothing but a member: it hands on what it is told, each thing once."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, Member("api", f"watcher{number}", "1"))
        self.on_members: Watcher = lambda members: None
        self.on_session: SessionWatcher = lambda session: None
        self._told: tuple[str, tuple[Member, ...] | None] = ("", None)

    def put(self, event: Event) -> None:
        session, members = self._told
        if self.alive and isinstance(event, SessionChanged) and event.state != session:
            self._told = (event.state, members)
            self.on_session(Session(event.state))

    def learn_members(self, members: tuple[Member, ...]) -> None:
        session, known = self._told
        if self.alive and members != known:
            self._told = (session, members)
            self.on_members(members)

    def turn(self) -> None:
        """It has no engine."""

    def nothing_left(self) -> None:
        """It keeps nothing."""


class Field(World):
    """A world without daemons but these, in which nothing is planned."""

    def __init__(self) -> None:
        super().__init__(1, "calm", [])
        self.watching: list[Host] = []

    def hosts(self) -> list[Host]:
        return [host for host in self.watching if host.alive]


class Asked:
    """The simulated registry as a daemon asks a real one."""

    def __init__(self, world: Field) -> None:
        self._world = world
        self._joined = False
        self.host = Watching(world, len(world.watching))
        world.watching.append(self.host)

    @property
    def listed_until(self) -> float:
        if not self._joined:
            return -math.inf
        return time.monotonic() + self._world.registry.listed_until(self.host) - self._world.clock.now

    async def start(self, on_members: Watcher, on_session: SessionWatcher) -> None:
        """Who only looks on has contact from the beginning; the simulation knows no other but those that join."""
        self.host.on_members, self.host.on_session = on_members, on_session
        self.host.put(SessionChanged("connected"))
        self.host.learn_members(self._world.registry.view())

    async def join(self, member: Member) -> None:
        self.host.member, self._joined = member, True
        self._world.registry.join(self.host)
        while self._world.registry.members.get(member.id) != member:  # noqa: ASYNC110 - see below
            await asyncio.sleep(0)  # it is the loop itself that lets time pass

    async def leave(self) -> None:
        self._joined = False
        self._world.registry.leave(self.host)

    async def stop(self) -> None:
        self._world.registry.leave(self.host)
        self.host.alive = False


class Simulated:
    """A ground on which time passes by rounds of the loop."""

    def __init__(self) -> None:
        self._world = Field()
        self._time = asyncio.create_task(self._pass())

    async def _pass(self) -> None:
        while True:
            self._world.clock.run(self._world.clock.now + STEP_SECONDS, CALLS_MAX)
            await asyncio.sleep(0)

    async def open(self, session: float) -> Asked:
        return Asked(self._world)

    async def suspend(self, registry: Registry) -> None:
        assert isinstance(registry, Asked)
        self._world.registry.lose_contact(registry.host)

    async def outlast(self, registry: Registry, seen: Seen) -> None:
        await seen.until_session(Session.LOST)

    async def resume(self, registry: Registry) -> None:
        assert isinstance(registry, Asked)
        self._world.registry.regain_contact(registry.host)

    async def heal(self) -> None:
        """Nothing of it hinders a shutdown."""

    async def close(self) -> None:
        self._time.cancel()


@pytest.mark.parametrize("test", SHARED, ids=lambda test: test.__name__.removeprefix("test_"))
async def test_the_simulated_registry_keeps_the_contract(test: Callable[[Cluster], Awaitable[None]]) -> None:
    cluster = Cluster(Simulated())  # type: ignore[arg-type]
    try:
        await test(cluster)
    finally:
        await cluster.close()


def test_most_of_the_contract_is_shared() -> None:
    assert len(SHARED) >= 12
