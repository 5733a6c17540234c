"""The simulated registry: sessions on two clocks, and views that reach everybody in their time."""

from __future__ import annotations

import pytest

from dsfast.sim.master_host import MasterHost
from dsfast.sim.registry import LEASE_SECONDS, RENEWALS_PER_LEASE
from dsfast.sim.worker_host import WorkerHost
from dsfast.sim.world import World

SEEDS = range(8)
SAFE_SECONDS = LEASE_SECONDS * (1 - 1 / RENEWALS_PER_LEASE)  # that every lease still lasts, whenever it was renewed


class Quiet:
    """A world in which nothing is planned, after everybody has joined."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed, "calm", [])
        self.world._set_up()
        self.live(5.0)

    def live(self, seconds: float) -> None:
        self.world.clock.run(self.world.clock.now + seconds, 1_000_000)
        assert self.world.clock.calls < 1_000_000

    @property
    def worker(self) -> WorkerHost:
        return self.world.workers()[0]

    @property
    def master(self) -> MasterHost:
        return self.world.masters()[0]

    def heard(self, name: str, since: float) -> list[str]:
        """The states of its session that it was told since then."""
        lines = [line.split(None, 3) for line in self.world.story.lines()]
        told = [line for line in lines if len(line) == 4 and line[1] == name and float(line[0]) >= since]
        return [line[3].split("'")[1] for line in told if line[3].startswith("SessionChanged")]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_short_outage_is_noticed_by_nobody_else(seed: int) -> None:
    quiet = Quiet(seed)
    worker, since = quiet.worker, quiet.world.clock.now
    quiet.world.registry.lose_contact(worker)
    quiet.live(SAFE_SECONDS - 0.1)
    assert worker.member.id in quiet.world.registry.members
    quiet.world.registry.regain_contact(worker)
    quiet.live(60.0)
    assert worker.member.id in quiet.master.engine.core.members
    assert "lost" not in quiet.heard(worker.name, since)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_member_knows_of_the_end_of_its_session_no_later_than_others(seed: int) -> None:
    quiet = Quiet(seed)
    worker = quiet.worker
    quiet.world.registry.lose_contact(worker)
    for _ in range(1000):
        quiet.live(LEASE_SECONDS / 500)
        if worker.member.id not in quiet.world.registry.members:
            break
    assert worker.member.id not in quiet.world.registry.members
    assert not worker.engine.listed


@pytest.mark.parametrize("seed", SEEDS)
def test_a_long_outage_loses_the_session_and_heals_by_itself(seed: int) -> None:
    quiet = Quiet(seed)
    worker, since = quiet.worker, quiet.world.clock.now
    quiet.world.registry.lose_contact(worker)
    quiet.live(LEASE_SECONDS + 5.0)
    assert worker.member.id not in quiet.master.engine.core.members
    quiet.world.registry.regain_contact(worker)
    quiet.live(5.0)
    assert worker.member.id in quiet.master.engine.core.members
    assert quiet.heard(worker.name, since)[-2:] == ["lost", "connected"]


@pytest.mark.parametrize("seed", SEEDS)
def test_who_stood_still_finds_itself_lost_before_it_is_connected(seed: int) -> None:
    quiet = Quiet(seed)
    worker = quiet.worker
    quiet.world.pause(worker, 3 * LEASE_SECONDS)
    since = quiet.world.clock.now
    quiet.live(3 * LEASE_SECONDS - 0.1)
    assert worker.member.id not in quiet.world.registry.members
    assert quiet.heard(worker.name, since) == []
    quiet.live(10.0)
    heard = quiet.heard(worker.name, since)
    assert heard[0] == "lost"
    assert heard[-1] == "connected"
    assert worker.member.id in quiet.world.registry.members


@pytest.mark.parametrize("seed", SEEDS)
def test_out_of_contact_the_last_known_members_stay(seed: int) -> None:
    quiet = Quiet(seed)
    master, worker = quiet.master, quiet.worker
    quiet.world.registry.lose_contact(master)
    quiet.world.leave(worker)
    quiet.live(0.5)
    assert worker.member.id in master.engine.core.members
    quiet.world.registry.regain_contact(master)
    quiet.live(5.0)
    assert worker.member.id not in master.engine.core.members


def test_a_session_that_is_ended_by_force_is_seen_by_others_first() -> None:
    quiet = Quiet(1)
    worker, since = quiet.worker, quiet.world.clock.now
    quiet.world.registry.expire(worker, 1.0)
    assert worker.member.id not in quiet.world.registry.members
    assert worker.engine.listed
    quiet.live(LEASE_SECONDS)
    assert quiet.heard(worker.name, since) == ["lost", "connected"]


@pytest.mark.parametrize("seed", SEEDS)
def test_who_leaves_without_contact_is_seen_until_its_session_ends(seed: int) -> None:
    quiet = Quiet(seed)
    worker = quiet.worker
    quiet.world.registry.lose_contact(worker)
    quiet.world.leave(worker)
    quiet.live(SAFE_SECONDS - 0.1)
    assert worker.member.id in quiet.world.registry.members
    quiet.live(LEASE_SECONDS)
    assert worker.member.id not in quiet.world.registry.members


@pytest.mark.parametrize("seed", SEEDS)
def test_a_life_that_begins_without_contact_is_connected_once_others_see_it(seed: int) -> None:
    quiet = Quiet(seed)
    worker, registry = quiet.worker, quiet.world.registry
    registry.remove(worker)
    registry.lose_contact(worker)
    registry.join(worker)
    assert worker.member.id not in registry.members
    registry.regain_contact(worker)
    quiet.live(5.0)
    assert worker.member.id in registry.members
