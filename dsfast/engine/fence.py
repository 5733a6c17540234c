"""A worker without a lease: what it ends by itself, before a master that cannot reach it replaces it.

Theory of operation. A master that takes a run over, and has no link to us, replaces what we run of it once we have
been without a lease for a while (absence.on_absent). So from the moment our lease is lost we end what no master
with a link to us answers for. If any master that the registry showed last has no link to us, it may have taken over
what the linked ones believe to be theirs: then a run goes on only if the store has confirmed its owner since we asked.
As long as all masters are linked nothing ends, because whoever takes a run over says so: should registry and store be
gone for everybody, all goes on. "Ends" is after the time that the task's `on_disconnect` grants.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dsfast.engine import events as ev
from dsfast.engine.effects import WorkerEffects
from dsfast.engine.held import Binding, Held, Phase
from dsfast.model import AttemptState
from dsfast.wire import commands as cmd

if TYPE_CHECKING:
    from dsfast.engine.worker import WorkerEngine

FENCE = ("fence",)
FENCED = "its worker had no lease, and no link to a master that owns the run"
RECHECK_SECONDS = 1.0  # how often masters make sure that they own what a worker without a lease runs
UNSURE_SECONDS = 2.5  # how long a run goes on without that, at a worker that some master cannot reach: two questions
ENDING_SECONDS = 1.0  # from the decision to end a task until nothing of it is left, on a busy machine


def absent_seconds(heartbeat_timeout: float) -> float:
    """How long a worker may run on what is bound to it after a master sees neither a link to it nor its lease.

    Its own side of a link notices later by a heartbeat that stays unanswered, at most. Until then it may believe that
    all masters are linked, so only from then on does it have to be sure of a run's owner.
    """
    return heartbeat_timeout + UNSURE_SECONDS + ENDING_SECONDS


def on_session(worker: WorkerEngine, e: ev.SessionChanged, fx: WorkerEffects) -> None:
    if e.state == "connected":
        worker.listed = True
        worker.deadlines.cancel(FENCE)
        _stay_with(worker, worker.held.values())
    elif e.state == "lost" and worker.listed:
        worker.listed = False
        for binding in worker.bindings.values():
            binding.sure_at = worker.now if e.since is None else min(e.since, worker.now)
        check(worker, fx)


def on_members(worker: WorkerEngine, e: ev.Members, fx: WorkerEffects) -> None:
    worker.known = frozenset(member.id for member in e.members if member.role == "master")


def check(worker: WorkerEngine, fx: WorkerEffects) -> None:
    """Without a lease: end what nobody answers for, and have linked masters make sure that they own the rest."""
    if worker.listed:
        return
    all_linked = worker.known <= worker.masters.keys()
    asked: dict[str, list[int]] = {}
    for run_id, binding in worker.bindings.items():
        if binding.master in worker.masters:
            asked.setdefault(binding.master, []).append(run_id)
            if all_linked and not binding.disowned:
                binding.sure_at = worker.now
    for held in list(worker.held.values()):
        if _is_sure(worker, worker.bindings[held.execute.run_id]):
            worker.deadlines.cancel(held.parting)
        else:
            _part_with(worker, held, fx)
    fx.sends += [(master, 0, cmd.Recheck(tuple(runs), worker.now)) for master, runs in asked.items()]
    worker.deadlines.set(FENCE, min(worker.now + RECHECK_SECONDS, _unsure_at(worker)))


def _unsure_at(worker: WorkerEngine) -> float:
    """When the next run of which we are sure is one no longer, unless its owner answers."""
    sure = (binding.sure_at for binding in worker.bindings.values() if _is_sure(worker, binding))
    return min(sure, default=math.inf) + UNSURE_SECONDS


def _is_sure(worker: WorkerEngine, binding: Binding) -> bool:
    answered = binding.master in worker.masters and not binding.disowned
    return answered and worker.now - binding.sure_at < UNSURE_SECONDS


def on_due(worker: WorkerEngine, key: cmd.Attempt, fx: WorkerEffects) -> None:
    """The attempt has run on for as long as it may."""
    worker.kill(worker.held[key], 0.0, AttemptState.FAILOVER, FENCED, fx)


def on_owned(worker: WorkerEngine, peer: str, c: cmd.Owned, fx: WorkerEffects) -> None:
    binding = worker.bindings.get(c.run_id)
    if binding is not None and binding.master == peer and binding.sure_at < c.asked_at <= worker.now:
        binding.sure_at = c.asked_at
        if _is_sure(worker, binding):
            _stay_with(worker, _held_of(worker, c.run_id))


def on_disown(worker: WorkerEngine, peer: str, c: cmd.Disown, fx: WorkerEffects) -> None:
    binding = worker.bindings.get(c.run_id)
    if binding is not None and binding.master == peer and not worker.listed:
        binding.disowned = True
        for held in _held_of(worker, c.run_id):
            _part_with(worker, held, fx)


def _held_of(worker: WorkerEngine, run_id: int) -> list[Held]:
    return [held for held in worker.held.values() if held.execute.run_id == run_id]


def _part_with(worker: WorkerEngine, held: Held, fx: WorkerEffects) -> None:
    """End it, now or when it has run on for as long as its `on_disconnect` says since its owner was sure."""
    if held.phase is Phase.RUNNING and held.runs_on != 0:
        if held.runs_on is not None:
            worker.deadlines.set(held.parting, worker.bindings[held.execute.run_id].sure_at + held.runs_on)
    elif held.phase is not Phase.ENDED:
        worker.kill(held, 0.0, AttemptState.FAILOVER, FENCED, fx)


def _stay_with(worker: WorkerEngine, helds: Iterable[Held]) -> None:
    """Somebody who may answer for these is back: in time, unless we stood still for longer than they may run on."""
    for held in helds:
        parting = worker.deadlines.at(held.parting)
        if parting is not None and parting > worker.now:
            worker.deadlines.cancel(held.parting)
