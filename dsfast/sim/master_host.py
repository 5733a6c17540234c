"""A master in the simulation: its engine, and the order of dsfast.runtime.master around it.

Step, commit, send. A commit travels to the store and its answer back; either may be lost, and a master that dies
meanwhile leaves a commit behind that may still be made. Claims and look-ups are made beside the turns.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from dsfast.engine import events as ev
from dsfast.engine.effects import Claim, MasterEffects
from dsfast.engine.master import MasterEngine, MasterSettings
from dsfast.engine.turns import DOUBT_SECONDS, amend
from dsfast.model import Member
from dsfast.proof.checker import hold
from dsfast.rows import Batch, Committed, OwnedRun
from dsfast.sim.host import Host
from dsfast.sim.store import copy_batch

if TYPE_CHECKING:
    from dsfast.sim.network import Link
    from dsfast.sim.world import World

RETRY_SECONDS = 0.05


class MasterHost(Host):
    """One life of a master. `crash_after` is the number of sends of its next commit after which it dies."""

    def __init__(self, world: World, member: Member, settings: MasterSettings) -> None:
        super().__init__(world, member)
        self.engine = MasterEngine(member, settings, random.Random(world.rng.getrandbits(32)))
        self.crash_after: int | None = None
        self.pause_after: tuple[int, float] | None = None  # as crash_after, with the seconds for which it stands still
        self.strike_commit: Callable[[MasterHost], None] | None = None  # what happens while its next commit travels
        self._decided_at: float | None = None  # when the turn was decided that is being committed; None the second time
        self._next_claim: Claim | None = None
        self._claiming = False

    def turn(self) -> None:
        fx = self.engine.step(self.take(), self.now, self.wall)
        self.engine.sanity_check()
        self.world.checks.master_stepped(self)
        if not fx.batch:
            self._perform(fx, Committed())
            return
        for row in fx.batch.runs.values():
            self.world.story.tell(self.name, "writes", row, row.id)
        for (run, task, _), attempt in fx.batch.attempts.items():
            self.world.story.tell(self.name, "writes", attempt, run, task)
        self._decided_at = self.now
        self._commit(fx, copy_batch(fx.batch))

    # -- the commit's way to the store and back --------------------------------------------------------------

    def _commit(self, fx: MasterEffects, batch: Batch) -> None:
        self.world.clock.after(self.world.store_latency(), self._arrive, fx, batch)
        if self.strike_commit is not None:
            strike, self.strike_commit = self.strike_commit, None
            self.world.clock.after(self.world.store_latency(), strike, self)

    def _arrive(self, fx: MasterEffects, batch: Batch) -> None:
        world = self.world
        if not self.alive and world.rng.random() < 0.5:
            return  # it died before the store had all of it
        if world.store_fails():
            self.after(RETRY_SECONDS, self._retry, fx, batch)
            return
        committed = world.store.commit(batch)
        if world.answer_lost():
            world.story.tell(self.name, "loses", "the answer to its commit")
            self.after(RETRY_SECONDS, self._retry, fx, batch)
            return
        self.after(world.store_latency(), self._confirmed, fx, batch, committed)

    def _retry(self, fx: MasterEffects, batch: Batch) -> None:
        if self.alive:
            self._commit(fx, batch)

    def _confirmed(self, fx: MasterEffects, batch: Batch, committed: Committed) -> None:
        decided_at, self._decided_at = self._decided_at, None
        if self.alive and decided_at is not None and self.now - decided_at > DOUBT_SECONDS:
            self._commit(fx, batch)
        else:
            self._perform(fx, committed)

    # -- what follows it -------------------------------------------------------------------------------------

    def _perform(self, fx: MasterEffects, committed: Committed) -> None:
        if not self.alive:
            return
        gone = amend(fx, committed)
        if gone:
            self.put_first(ev.RunsLost(gone))
        self._send(fx, 0, self.links)

    def _send(self, fx: MasterEffects, first: int, links: Mapping[str, Link]) -> None:
        """Let what the turn says leave, from this send on; its host may fail between any two.

        A daemon does this without looking up: what it says after it stood still goes to the links from before.
        """
        world = self.world
        for count in range(first, len(fx.sends)):
            if count == self.crash_after and fx.batch:
                self.flush()
                world.crash(self)
                return
            if self.pause_after is not None and count == self.pause_after[0] and fx.batch:
                self.flush()
                links = dict(self.links)
                world.pause(self, self.pause_after[1])
                self.pause_after = None
                self.after(0.0, self._send, fx, count, links)
                return
            peer, request_id, command = fx.sends[count]
            world.checks.master_sends(self, peer, command)
            self.send(peer, request_id, command, links)
            world.client.hear(peer, request_id, command)
        self.flush()
        self._finish(fx)

    def _finish(self, fx: MasterEffects) -> None:
        if fx.claim is not None:
            self._request_claim(fx.claim)
        if fx.lookups:
            self.after(self.world.store_latency(), self._look_up, fx.lookups)
        self.rest(fx.wake_at)

    def _request_claim(self, claim: Claim) -> None:
        self._next_claim = claim
        if not self._claiming:
            self._claiming = True
            self._claim_next()

    def _claim_next(self) -> None:
        claim, self._next_claim = self._next_claim, None
        if claim is None:
            self._claiming = False
        else:
            self.world.clock.after(self.world.store_latency(), self._claim, claim, claim.alive)

    def _claim(self, claim: Claim, alive: frozenset[str]) -> None:
        world, mine = self.world, self.engine.core.runs
        if not self.alive and world.rng.random() < 0.5:
            return
        if not world.store_fails():
            runs = world.store.claim(self.member.id, alive, lambda run: run not in mine and claim.share(run))
            if not world.answer_lost():
                self.after(world.store_latency(), self._claimed, runs)
                return
        alive -= {self.member.id}  # the failed try may have taken runs without our learning of it
        self.after(RETRY_SECONDS, self._claim, claim, alive)

    def _claimed(self, runs: list[OwnedRun]) -> None:
        if runs:
            self.put(ev.Claimed(runs))
        self._claim_next()

    def _look_up(self, strays: list[ev.Stray]) -> None:
        ended = {}
        for _, (run_id, _, _) in strays:
            row = self.world.store.runs.get(run_id)
            if row is None or row.state.final:
                ended[run_id] = 0 if row is None else row.epoch
        self.after(self.world.store_latency(), self.put, ev.RunsEnded(strays, ended))

    # -- members ------------------------------------------------------------------------------------------------

    def learn_members(self, members: tuple[Member, ...]) -> None:
        """The registry's view has changed: dial every worker, and the masters with a greater id."""
        if not self.alive:
            return
        for member in members:
            if member.role == "worker" or (member.role == "master" and member.id > self.member.id):
                self.world.network.dial(self, member)
        self.put(ev.Members(members))

    def nothing_left(self) -> None:
        """See Host.nothing_left."""
        core = self.engine.core
        hold(not core.runs, f"{self.name} still has runs {list(core.runs)}", next(iter(core.runs), None))
        workers = core.dispatcher.workers.values()
        left = {
            "starts": core.starts,
            "watchers": core.watchers,
            "refusals": core.dispatcher.refusals,
            "deadlines": len(core.deadlines),
            "queues": [group.name for group in core.dispatcher.groups.values() if group.queue],
            "live": [worker.id for worker in workers if worker.live],
            "adopting": [worker.id for worker in workers if worker.adopting],
            "gone": [worker.id for worker in workers if not worker.linked],
        }
        kept = {name: what for name, what in left.items() if what}
        hold(not kept, f"{self.name} keeps {kept}")
