"""A master in the simulation: its engine, and the order of dsfast.runtime.master around it.

Step, commit, send. A commit travels to the store and its answer back; either may be lost, and a master that dies
meanwhile leaves a commit behind that may still be made. Claims and look-ups are made beside the turns.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from dsfast.engine import events as ev
from dsfast.engine.effects import Claim, MasterEffects
from dsfast.engine.master import MasterEngine, MasterSettings
from dsfast.model import Member
from dsfast.rows import Batch, Committed, OwnedRun
from dsfast.runtime.turns import amend
from tests.simulation.host import Host
from tests.simulation.memory import copy_batch

if TYPE_CHECKING:
    from tests.simulation.world import World

RETRY_SECONDS = 0.05


class MasterHost(Host):
    """One life of a master. `crash_after` is the number of sends of its next commit after which it dies."""

    def __init__(self, world: World, member: Member, settings: MasterSettings) -> None:
        super().__init__(world, member)
        self.engine = MasterEngine(member, settings, random.Random(world.rng.getrandbits(32)))
        self.crash_after: int | None = None
        self._next_claim: Claim | None = None
        self._claiming = False

    def turn(self) -> None:
        fx = self.engine.step(self.take(), self.now, self.wall)
        self.engine.sanity_check()
        self.world.checks.master_stepped(self, fx)
        if not fx.batch:
            self._perform(fx, Committed())
            return
        for row in fx.batch.runs.values():
            self.world.story.tell(self.name, "writes", row, row.id)
        for (run, task, _), attempt in fx.batch.attempts.items():
            self.world.story.tell(self.name, "writes", attempt, run, task)
        self._commit(fx, copy_batch(fx.batch))

    # -- the commit's way to the store and back --------------------------------------------------------------

    def _commit(self, fx: MasterEffects, batch: Batch) -> None:
        self.world.clock.after(self.world.store_latency(), self._arrive, fx, batch)

    def _arrive(self, fx: MasterEffects, batch: Batch) -> None:
        world = self.world
        if not self.alive and world.rng.random() < 0.5:
            return  # it died before the store had all of it
        if world.store_fails():
            world.clock.after(RETRY_SECONDS, self._retry, fx, batch)
            return
        committed = world.store.commit(batch)
        if world.answer_lost():
            world.story.tell(self.name, "loses", "the answer to its commit")
            world.clock.after(RETRY_SECONDS, self._retry, fx, batch)
            return
        world.clock.after(world.store_latency(), self._perform, fx, committed)

    def _retry(self, fx: MasterEffects, batch: Batch) -> None:
        if self.alive:
            self._commit(fx, batch)

    # -- what follows it -------------------------------------------------------------------------------------

    def _perform(self, fx: MasterEffects, committed: Committed) -> None:
        if not self.alive:
            return
        world = self.world
        gone = amend(fx, committed)
        if gone:
            self.put_first(ev.RunsLost(gone))
        for count, (peer, request_id, command) in enumerate(fx.sends):
            if count == self.crash_after and fx.batch:
                self.flush()
                world.crash(self)
                return
            world.checks.master_sends(self, peer, command)
            self.send(peer, request_id, command)
            world.client.hear(peer, request_id, command, self)
        self.flush()
        if fx.claim is not None:
            self._request_claim(fx.claim)
        if fx.lookups:
            world.clock.after(world.store_latency(), self._look_up, fx.lookups)
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
                world.clock.after(world.store_latency(), self._claimed, runs)
                return
        alive -= {self.member.id}  # the failed try may have taken runs without our learning of it
        world.clock.after(RETRY_SECONDS, self._claim, claim, alive)

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
        self.world.clock.after(self.world.store_latency(), self.put, ev.RunsEnded(strays, ended))

    # -- members ------------------------------------------------------------------------------------------------

    def learn_members(self, members: tuple[Member, ...]) -> None:
        """The registry's view has changed: dial every worker, and the masters with a greater id."""
        if not self.alive:
            return
        for member in members:
            if member.role == "worker" or (member.role == "master" and member.id > self.member.id):
                self.world.network.dial(self, member)
        self.put(ev.Members(members))
