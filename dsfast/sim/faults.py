"""What goes wrong in a world: one function for each name that a profile may choose, and how all is put right.

Whom a fault strikes and for how long is decided by the dice of its item; those who do not live are not struck.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from dsfast.sim.master_host import MasterHost
from dsfast.sim.plan import Item
from dsfast.sim.registry import LEASE_SECONDS, RENEWALS_PER_LEASE
from dsfast.sim.worker_host import WorkerHost

if TYPE_CHECKING:
    from dsfast.sim.host import Host
    from dsfast.sim.world import World

SHORT_AND_LONG = (0.5, 5.0, 20.0)  # seconds: unnoticed, noticed, beyond every lease
JUMPS = (-3600.0, -30.0, 30.0, 3600.0)  # seconds by which somebody sets a clock wrong
H = TypeVar("H", bound="Host")


class Faults:
    """The faults of one world."""

    def __init__(self, world: World) -> None:
        rng, profile = world.rng, world.profile
        self.world = world
        self.active = True
        self.store_back_at = 0.0
        self.store_slow_until = 0.0
        self.network_slow_until = 0.0
        self.answers_lost_until = 0.0
        self.answers_lost = rng.choice(profile.answers_lost)
        self.starts_refused = rng.choice(profile.starts_refused)
        self._slow = rng.choice(profile.slow)

    def strike(self, item: Item) -> None:
        """Let this item of the plan happen."""
        if self.active:
            STRIKES[item.what](self, item.dice())

    def say(self, what: str, about: object = "") -> None:
        self.world.story.tell("fault", what, about)

    def touch(self, host: Host) -> None:
        """Make a new life slow, in a slow world."""
        if self.active:
            host.slow = self.world.rng.random() * self._slow

    def end(self) -> None:
        """Repair everything; who is down comes back, who stands still goes on."""
        self.active = False
        self.world.network.heal()
        for host in self.world.hosts():
            host.slow = 0.0
            host.resume()
            if isinstance(host, MasterHost):
                host.crash_after = host.pause_after = host.strike_commit = None

    def for_a_while(self, seconds: float, undo: Callable[..., None], *args: object) -> None:
        """Put it right after so many seconds."""
        self.world.clock.after(seconds, undo, *args)

    def master(self, dice: random.Random) -> MasterHost | None:
        return pick(dice, self.world.masters())

    def worker(self, dice: random.Random) -> WorkerHost | None:
        return pick(dice, self.world.workers())

    def pair(self, dice: random.Random) -> tuple[str, str] | None:
        """A master, and a worker or another master, in this order or the other."""
        master, other = self.master(dice), pick(dice, self.world.hosts())
        if master is None or other is None or master is other:
            return None
        return (master.name, other.name) if dice.random() < 0.5 else (other.name, master.name)


def pick(dice: random.Random, hosts: Sequence[H]) -> H | None:
    """One of those that live and move."""
    awake = [host for host in hosts if not host.paused]
    return dice.choice(awake) if awake else None


# -- processes die -------------------------------------------------------------------------------------------------


def crash_master(faults: Faults, dice: random.Random) -> None:
    if master := faults.master(dice):
        faults.world.crash(master)


def crash_mid_send(faults: Faults, dice: random.Random) -> None:
    """After a commit, before all of its sends have left."""
    if master := faults.master(dice):
        master.crash_after = dice.choice((0, 0, 1, 2, 5))


def crash_mid_commit(faults: Faults, dice: random.Random) -> None:
    if master := faults.master(dice):
        master.strike_commit = faults.world.crash


def crash_worker(faults: Faults, dice: random.Random) -> None:
    if worker := faults.worker(dice):
        faults.world.crash(worker)


def power_off(faults: Faults, dice: random.Random) -> None:
    """The machine is gone, and boots after a while: nothing refuses meanwhile."""
    if host := pick(dice, faults.world.hosts()):
        faults.world.crash(host, power=True)


def restart_at_once(faults: Faults, dice: random.Random) -> None:
    """Whoever watches over the daemon starts it again under its name before anybody knows."""
    if host := pick(dice, faults.world.hosts()):
        faults.world.crash(host, back_in=0.0)


def crash_all_masters(faults: Faults, dice: random.Random) -> None:
    away = dice.choice((0.0, 3.0, 30.0))
    for master in faults.world.masters():
        faults.world.crash(master, back_in=away * dice.random())


def drain(faults: Faults, dice: random.Random) -> None:
    if worker := faults.worker(dice):
        faults.say("drains", worker.name)
        worker.drain(dice.choice((0.0, 1.0, 10.0)))


# -- the network ---------------------------------------------------------------------------------------------------


def cut(faults: Faults, dice: random.Random) -> None:
    if pair := faults.pair(dice):
        faults.say("cuts", pair)
        faults.world.network.cut(*pair, notice=dice.choice((0.001, 0.1, 6.0)))


def block(faults: Faults, dice: random.Random) -> None:
    if pair := faults.pair(dice):
        seconds = dice.choice((1.0, 8.0, 30.0))
        faults.say("blocks", (*pair, f"for {seconds} s"))
        faults.world.network.block(pair[0], pair[1], seconds)
        faults.world.network.block(pair[1], pair[0], seconds)


def block_one_way(faults: Faults, dice: random.Random) -> None:
    if pair := faults.pair(dice):
        seconds = dice.choice((1.0, 8.0, 30.0))
        faults.say("blocks", (pair[0], "to", pair[1], f"for {seconds} s"))
        faults.world.network.block(*pair, seconds)


def isolate_worker(faults: Faults, dice: random.Random) -> None:
    _isolate(faults, faults.worker(dice), dice.choice((5.0, 15.0, 40.0)))


def isolate_master(faults: Faults, dice: random.Random) -> None:
    """It reaches nobody but the database."""
    _isolate(faults, faults.master(dice), dice.choice((5.0, 15.0, 40.0)))


def _isolate(faults: Faults, host: Host | None, seconds: float) -> None:
    if host is None:
        return
    faults.say("isolates", f"{host.name} for {seconds} s")
    for name in sorted(faults.world.current):
        faults.world.network.block(name, host.name, seconds)
        faults.world.network.block(host.name, name, seconds)
    _out_of_contact(faults, host, seconds)


def slow_network(faults: Faults, dice: random.Random) -> None:
    seconds = dice.choice(SHORT_AND_LONG)
    faults.say("slows", f"the network for {seconds} s")
    faults.world.faults.network_slow_until = faults.world.clock.now + seconds


# -- the store -----------------------------------------------------------------------------------------------------


def fail_store(faults: Faults, dice: random.Random) -> None:
    seconds = dice.choice((0.3, 3.0, 12.0))
    faults.say("stops", f"the store for {seconds} s")
    faults.store_back_at = faults.world.clock.now + seconds


def slow_store(faults: Faults, dice: random.Random) -> None:
    seconds = dice.choice(SHORT_AND_LONG)
    faults.say("slows", f"the store for {seconds} s")
    faults.store_slow_until = faults.world.clock.now + seconds


def lose_answers(faults: Faults, dice: random.Random) -> None:
    """Every other commit does not say whether it was made."""
    seconds = dice.choice((0.5, 5.0))
    faults.say("silences", f"the store for {seconds} s")
    faults.answers_lost_until = faults.world.clock.now + seconds


# -- the registry --------------------------------------------------------------------------------------------------


def expire_worker(faults: Faults, dice: random.Random) -> None:
    _expire(faults, faults.worker(dice), dice)


def expire_master(faults: Faults, dice: random.Random) -> None:
    _expire(faults, faults.master(dice), dice)


def _expire(faults: Faults, host: Host | None, dice: random.Random) -> None:
    if host is not None:
        faults.say("expires", host.name)
        faults.world.registry.expire(host, dice.choice(SHORT_AND_LONG))


def wipe(faults: Faults, dice: random.Random) -> None:
    """Somebody deletes everybody's entry; who finds its own gone puts it back."""
    faults.say("wipes", "the registry")
    for host in faults.world.hosts():
        if not host.paused:
            faults.world.registry.expire(host, dice.random())


def lose_registry(faults: Faults, dice: random.Random) -> None:
    if host := pick(dice, faults.world.hosts()):
        seconds = dice.choice(SHORT_AND_LONG)
        faults.say("parts", f"{host.name} and the registry for {seconds} s")
        _out_of_contact(faults, host, seconds)


def lose_registry_for_all(faults: Faults, dice: random.Random) -> None:
    """It is down. Sessions go on where they were when it is back, as those of ZooKeeper do, or have ended."""
    seconds = dice.choice(SHORT_AND_LONG)
    faults.say("stops", f"the registry for {seconds} s")
    for host in faults.world.hosts():
        _out_of_contact(faults, host, seconds)


def flap(faults: Faults, dice: random.Random) -> None:
    """In and out of reach, just about as long as a lease each time."""
    if host := pick(dice, faults.world.hosts()):
        faults.say("flaps", host.name)
        begin = 0.0
        for _ in range(5):
            away = LEASE_SECONDS * dice.uniform(0.5, 1.1)
            faults.world.clock.after(begin, _out_of_contact, faults, host, away)
            begin += away + dice.random()


def _out_of_contact(faults: Faults, host: Host, seconds: float) -> None:
    if faults.active and host.alive:
        faults.world.registry.lose_contact(host)
        faults.for_a_while(seconds, faults.world.registry.regain_contact, host)


def stale_view(faults: Faults, dice: random.Random) -> None:
    """One that hears of no change until it next renews its lease: views differ."""
    if host := pick(dice, faults.world.hosts()):
        seconds = dice.choice((1.0, LEASE_SECONDS / RENEWALS_PER_LEASE))
        faults.say("deafens", f"{host.name} to the registry for {seconds} s")
        faults.world.registry.session(host).deaf += 1
        faults.for_a_while(seconds, _hear_again, faults, host)


def _hear_again(faults: Faults, host: Host) -> None:
    faults.world.registry.session(host).deaf -= 1
    faults.world.registry.show(host)


def split_brain(faults: Faults, dice: random.Random) -> None:
    """A master that is out of the registry and not told so, nor shown at first that others take over.

    Its view is no older than a renewal of its lease: what it believes of workers must be the registry's word.
    """
    if master := faults.master(dice):
        session, seconds = faults.world.registry.session(master), dice.choice((3.0, 20.0))
        if session.over or session.barriers:
            return
        faults.say("deceives", f"{master.name} for {seconds} s")
        session.blind = session.over = True
        session.deaf += 1
        faults.world.registry.remove(master)
        faults.for_a_while(min(seconds, LEASE_SECONDS / RENEWALS_PER_LEASE), _hear_again, faults, master)
        faults.for_a_while(seconds, _undeceive, faults, master)


def _undeceive(faults: Faults, master: Host) -> None:
    session = faults.world.registry.session(master)
    session.blind = False
    faults.world.registry.join(master)


# -- standing still, and clocks --------------------------------------------------------------------------------------


def pause_worker(faults: Faults, dice: random.Random) -> None:
    if worker := faults.worker(dice):
        faults.world.pause(worker, _pause_seconds(dice))


def pause_master(faults: Faults, dice: random.Random) -> None:
    if master := faults.master(dice):
        faults.world.pause(master, _pause_seconds(dice))


def pause_mid_send(faults: Faults, dice: random.Random) -> None:
    """In the middle of a dispatch: what it decided is durable, and part of it has left."""
    if master := faults.master(dice):
        master.pause_after = dice.choice((0, 0, 1, 2, 5)), _pause_seconds(dice)


def pause_mid_commit(faults: Faults, dice: random.Random) -> None:
    if master := faults.master(dice):
        seconds = _pause_seconds(dice)
        master.strike_commit = lambda host: faults.world.pause(host, seconds)


def suspend_worker(faults: Faults, dice: random.Random) -> None:
    if worker := faults.worker(dice):
        faults.world.pause(worker, _pause_seconds(dice), suspend=True)


def suspend_all(faults: Faults, dice: random.Random) -> None:
    """All machines but those of store and registry, as if they were guests of one that is put to sleep."""
    seconds = _pause_seconds(dice)
    for host in faults.world.hosts():
        faults.world.pause(host, seconds + dice.random(), suspend=True)


def _pause_seconds(dice: random.Random) -> float:
    return dice.choice((0.2, 2.0, 7.0, 1.5 * LEASE_SECONDS, 3 * LEASE_SECONDS))


def jump_clock(faults: Faults, dice: random.Random) -> None:
    if host := pick(dice, faults.world.hosts()):
        seconds = dice.choice(JUMPS)
        faults.say("sets", f"the clock of {host.name} by {seconds:+.0f} s")
        host.skew += seconds
        faults.world.jumped = True


STRIKES: Mapping[str, Callable[[Faults, random.Random], None]] = {
    strike.__name__: strike
    for strike in (
        crash_master, crash_mid_send, crash_mid_commit, crash_worker, power_off, restart_at_once, crash_all_masters,
        drain, cut, block, block_one_way, isolate_worker, isolate_master, slow_network, fail_store, slow_store,
        lose_answers, expire_worker, expire_master, wipe, lose_registry, lose_registry_for_all, flap, stale_view,
        split_brain, pause_worker, pause_master, pause_mid_send, pause_mid_commit, suspend_worker, suspend_all,
        jump_clock,
    )
}  # fmt: skip
