"""The checker is checked: engines with one thing broken on purpose must be caught, each within a few dozen seeds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from dsfast.engine import absence, fence, membership, reports
from dsfast.engine import events as ev
from dsfast.engine import master as master_engine
from dsfast.engine import worker as worker_engine
from dsfast.engine.core import Core
from dsfast.engine.dispatch import Dispatcher
from dsfast.engine.effects import MasterEffects
from dsfast.engine.held import Phase
from dsfast.engine.run import Run
from dsfast.engine.states import Step
from dsfast.engine.worker import WorkerEngine
from dsfast.engine.workers import Worker
from dsfast.model import AttemptState, Retry, RunState
from dsfast.rows import Committed
from dsfast.sim import master_host
from dsfast.sim.master_host import MasterHost
from dsfast.sim.store import MemoryStore
from dsfast.sim.worker_host import WorkerHost
from dsfast.sim.world import Failure, World
from dsfast.wire import commands as cmd

SEEDS = 100
Patch = pytest.MonkeyPatch


def obey_any_epoch(patch: Patch) -> None:
    patch.setattr(WorkerEngine, "_admit", lambda self, peer, run_id, epoch, fx: True)


def write_without_fence(patch: Patch) -> None:
    patch.setattr(MemoryStore, "_fence", lambda self, batch, unchecked: (set(), set()))


def send_before_commit(patch: Patch) -> None:
    def commit(host: MasterHost, fx: MasterEffects, batch: Any) -> None:
        for peer, request_id, command in fx.sends:
            host.world.checks.master_sends(host, peer, command)
            host.send(peer, request_id, command)
        host.flush()
        fx.sends = []
        original(host, fx, batch)

    original = MasterHost._commit
    patch.setattr(MasterHost, "_commit", commit)


def say_what_was_not_written(patch: Patch) -> None:
    patch.setattr(master_host, "amend", lambda fx, committed: {run: fx.batch.epochs[run] for run in committed.lost})


def keep_lost_runs(patch: Patch) -> None:
    patch.setitem(master_engine.EVENTS, ev.RunsLost, lambda core, e, fx: None)


def forget_results_before_they_are_acknowledged(patch: Patch) -> None:
    def end(self: WorkerEngine, held: Any, outcome: Any, fx: Any) -> None:
        original(self, held, outcome, fx)
        self._forget(held)

    original = WorkerEngine._end
    patch.setattr(WorkerEngine, "_end", end)


def acknowledge_what_is_not_ours(patch: Patch) -> None:
    def on_result(core: Core, e: ev.Received, c: cmd.Result, fx: MasterEffects) -> None:
        if c.run_id not in core.runs:
            fx.sends.append((e.peer_id, 0, cmd.ResultAck(c.run_id, c.task, c.attempt)))
        else:
            original(core, e, c, fx)

    original = reports.on_result
    patch.setitem(master_engine.COMMANDS, cmd.Result, on_result)


def believe_any_attempt(patch: Patch) -> None:
    patch.setattr(Run, "awaits", lambda self, worker, key: self.live.get(key[1]))


def start_without_slots(patch: Patch) -> None:
    def start(self: WorkerEngine, fx: Any) -> None:
        slots = self.me.slots
        self.me = msgspec.structs.replace(self.me, slots=slots + 1)
        original(self, fx)
        self.me = msgspec.structs.replace(self.me, slots=slots)

    original = WorkerEngine._start
    patch.setattr(WorkerEngine, "_start", start)
    patch.setattr(WorkerEngine, "sanity_check", lambda self: None)


def retry_once_too_often(patch: Patch) -> None:
    patch.setattr(Retry, "wait", lambda self, failures: 0.0)

    def may_retry(self: Run, task: int) -> float | None:
        failures = self.failures[task] = self.failures.get(task, 0) + 1
        return 0.0 if failures <= self.plan.traits[task].retry.limit + 1 else None

    patch.setattr(Run, "may_retry", may_retry)


def count_a_failover_as_a_failure(patch: Patch) -> None:
    def follow(self: Core, run: Run, task: int, state: AttemptState, outputs: Any, fx: Any) -> None:
        original(self, run, task, AttemptState.FAILED if state is AttemptState.FAILOVER else state, outputs, fx)

    original = Core._follow
    patch.setattr(Core, "_follow", follow)


def cancel_without_writing_it(patch: Patch) -> None:
    def cancel(self: Core, run: Run, reason: str, grace: float | None, fx: MasterEffects) -> None:
        original(self, run, reason, grace, fx)
        if run.id in self.runs:
            fx.batch.runs.pop(run.id, None)

    original = Core.cancel
    patch.setattr(Core, "cancel", cancel)


def settle_kills_at_once(patch: Patch) -> None:
    def send_kill(self: Core, run: Run, live: Any, fx: MasterEffects, grace: float | None = None) -> None:
        original(self, run, live, fx, grace)
        self.settle(run, live, Step.KILL, "killed", self.wall, fx)

    original = Core.send_kill
    patch.setattr(Core, "send_kill", send_kill)


def take_a_lost_link_for_a_death(patch: Patch) -> None:
    def on_link_down(core: Core, e: ev.LinkDown, fx: MasterEffects) -> None:
        membership.on_peer_dead(core, ev.PeerDead(e.peer_id), fx)

    patch.setitem(master_engine.EVENTS, ev.LinkDown, on_link_down)


def replace_what_lives_after_a_takeover(patch: Patch) -> None:
    def restore(self: Run, rows: Any) -> Any:
        restored = original(self, rows)
        for live in restored.adopt:
            del self.live[live.row.task]
            restored.open.append((live.row.task, 0.0))
        restored.adopt = []
        return restored

    original = Run.restore
    patch.setattr(Run, "restore", restore)


def ask_nobody_after_a_takeover(patch: Patch) -> None:
    patch.setattr(membership, "_adopt", lambda core, worker, run_ids, fx: None)


def believe_any_answer(patch: Patch) -> None:
    def on_holding(core: Core, e: ev.Received, c: cmd.Holding, fx: MasterEffects) -> None:
        worker = core.dispatcher.workers.get(e.peer_id)
        if worker is not None:
            worker.adopting = dict.fromkeys(worker.live, c.serial)
        original(core, e, c, fx)

    original = reports.on_holding
    patch.setitem(master_engine.COMMANDS, cmd.Holding, on_holding)


def keep_quiet_about_higher_epochs(patch: Patch) -> None:
    patch.setitem(master_engine.COMMANDS, cmd.Deposed, lambda core, e, c, fx: None)


def say_a_kill_only_once(patch: Patch) -> None:
    patch.setattr(reports, "_on_held", lambda core, worker, key, fx: None)


def ignore_shortages(patch: Patch) -> None:
    patch.setitem(master_engine.COMMANDS, cmd.Refused, lambda core, e, c, fx: None)


def keep_the_queue_of_a_stopping_run(patch: Patch) -> None:
    patch.setattr(Dispatcher, "discard", lambda self, run: None)


def start_what_is_killed_in_the_queue(patch: Patch) -> None:
    def kill(self: WorkerEngine, held: Any, *args: Any) -> None:
        if held.phase is not Phase.QUEUED:
            original(self, held, *args)

    original = WorkerEngine.kill
    patch.setattr(WorkerEngine, "kill", kill)


def hand_over_no_outputs(patch: Patch) -> None:
    original = Run.succeed
    patch.setattr(Run, "succeed", lambda self, task, outputs: original(self, task, None))


def claim_from_the_living(patch: Patch) -> None:
    original = MemoryStore.claim
    patch.setattr(MemoryStore, "claim", lambda self, owner, alive, share: _without_epoch(self, original, owner, share))


def _without_epoch(store: MemoryStore, claim: Any, owner: str, share: Any) -> Any:
    """Everybody's runs, under the epoch that they had."""
    epochs = {run_id: run.epoch for run_id, run in store.runs.items()}
    taken = claim(store, owner, {owner}, share)
    for owned in taken:
        owned.run.epoch = store.runs[owned.run.id].epoch = epochs[owned.run.id]
    return taken


def go_on_without_lease_and_link(patch: Patch) -> None:
    patch.setattr(fence, "check", lambda worker, fx: None)


def replace_at_once_what_nobody_sees(patch: Patch) -> None:
    def look_out_for(core: Core, worker: Worker) -> None:
        original(core, worker)
        if core.deadlines.cancel(("absent", worker.id)):
            core.deadlines.set(("absent", worker.id), core.now)

    original = absence.look_out_for
    patch.setattr(absence, "look_out_for", look_out_for)
    patch.setattr(absence, "_patience", lambda core, worker, live: 0.0)


def start_again_what_is_held(patch: Patch) -> None:
    def on_adopt(self: WorkerEngine, peer: str, c: cmd.Adopt, fx: Any) -> None:
        original(self, peer, c, fx)
        for held in self.held.values():
            if held.phase is Phase.ENDED and held.execute.spec:
                held.phase = Phase.QUEUED
                self.queue.append(held.key)

    original = WorkerEngine._on_adopt
    patch.setitem(worker_engine.COMMANDS, cmd.Adopt, on_adopt)


def leak_a_slot(patch: Patch) -> None:
    def on_ended(self: WorkerEngine, e: ev.AttemptEnded, fx: Any) -> None:
        busy = self.busy
        original(self, e, fx)
        self.busy = busy

    original = WorkerEngine._on_attempt_ended
    patch.setitem(worker_engine.EVENTS, ev.AttemptEnded, on_ended)
    patch.setattr(WorkerEngine, "sanity_check", lambda self: None)


def open_what_follows_a_failure(patch: Patch) -> None:
    def follow(self: Core, run: Run, task: int, state: AttemptState, outputs: Any, fx: Any) -> None:
        original(self, run, task, AttemptState.SUCCEEDED if state is AttemptState.FAILED else state, outputs, fx)

    original = Core._follow
    patch.setattr(Core, "_follow", follow)


def lose_a_timer(patch: Patch) -> None:
    def open_later(self: Core, run: Run, task: int, wait: float) -> None:
        if wait <= 0:
            original(self, run, task, wait)

    original = Core.open_later
    patch.setattr(Core, "open_later", open_later)


def wait_for_nothing(patch: Patch) -> None:
    original = Core.open_later
    patch.setattr(Core, "open_later", lambda self, run, task, wait: original(self, run, task, 0.0))


def forget_keys(patch: Patch) -> None:
    def insert(self: MemoryStore, batch: Any) -> Any:
        self.keys.clear()
        return original(self, batch)

    original = MemoryStore._insert
    patch.setattr(MemoryStore, "_insert", insert)


def take_an_unknown_commit_for_done(patch: Patch) -> None:
    patch.setattr(MasterHost, "_retry", lambda self, fx, batch: self._perform(fx, Committed()))


def take_an_unknown_commit_for_undone(patch: Patch) -> None:
    def retry(self: MasterHost, fx: MasterEffects, batch: Any) -> None:
        fx.sends = []
        self._perform(fx, Committed())

    patch.setattr(MasterHost, "_retry", retry)


def trust_what_was_said_before_standing_still(patch: Patch) -> None:
    patch.setattr(WorkerHost, "_distrust", lambda self, events: events)


def give_a_number_twice(patch: Patch) -> None:
    def bind(self: Run, task: int, worker: str, wall: float) -> Any:
        if task not in self.live and self.failovers.get(task):
            self.numbers[task] -= 1
        return original(self, task, worker, wall)

    original = Run.bind
    patch.setattr(Run, "bind", bind)


def wait_for_the_dead(patch: Patch) -> None:
    patch.setitem(master_engine.EVENTS, ev.PeerDead, lambda core, e, fx: None)
    patch.setattr(absence, "on_absent", lambda core, worker_id, fx: None)


def forget_a_cancel_at_a_takeover(patch: Patch) -> None:
    def restore(self: Run, rows: Any) -> Any:
        if self.row.state is RunState.READY_STOP:
            self.row.state = RunState.RUNNING
        return original(self, rows)

    original = Run.restore
    patch.setattr(Run, "restore", restore)


def wait_for_proof_that_nobody_has(patch: Patch) -> None:
    """As it was until crash 49: what may not be replaced ignores the next life of its worker."""

    def patience(core: Core, worker: Worker, live: Any) -> float:
        policy = core.runs[live.row.run_id].plan.traits[live.row.task].on_disconnect
        return original(core, worker, live) if policy.replace else math.inf

    original = absence._patience
    patch.setattr(absence, "_patience", patience)


BROKEN: list[Callable[[Patch], None]] = [
    obey_any_epoch,
    write_without_fence,
    send_before_commit,
    say_what_was_not_written,
    keep_lost_runs,
    forget_results_before_they_are_acknowledged,
    acknowledge_what_is_not_ours,
    believe_any_attempt,
    start_without_slots,
    retry_once_too_often,
    count_a_failover_as_a_failure,
    cancel_without_writing_it,
    settle_kills_at_once,
    take_a_lost_link_for_a_death,
    replace_what_lives_after_a_takeover,
    ask_nobody_after_a_takeover,
    believe_any_answer,
    keep_quiet_about_higher_epochs,
    say_a_kill_only_once,
    ignore_shortages,
    keep_the_queue_of_a_stopping_run,
    start_what_is_killed_in_the_queue,
    hand_over_no_outputs,
    claim_from_the_living,
    go_on_without_lease_and_link,
    replace_at_once_what_nobody_sees,
    start_again_what_is_held,
    leak_a_slot,
    open_what_follows_a_failure,
    lose_a_timer,
    wait_for_nothing,
    forget_keys,
    take_an_unknown_commit_for_done,
    take_an_unknown_commit_for_undone,
    trust_what_was_said_before_standing_still,
    give_a_number_twice,
    wait_for_the_dead,
    forget_a_cancel_at_a_takeover,
    wait_for_proof_that_nobody_has,
]


PROFILES_TRIED = ("mixed", "storm", "pauses", "network")


@pytest.mark.parametrize("break_it", BROKEN, ids=lambda break_it: break_it.__name__)
def test_what_is_broken_is_caught(break_it: Callable[[Patch], None], monkeypatch: Patch) -> None:
    break_it(monkeypatch)
    worlds = [(profile, seed) for seed in range(SEEDS) for profile in PROFILES_TRIED]
    for profile, seed in worlds:
        try:
            World(seed, profile).run()
        except Failure as failure:
            if isinstance(failure.__cause__, TypeError | AttributeError):
                raise  # what is broken here has changed its form
            return
    pytest.fail(f"nobody noticed in {len(worlds)} worlds")
