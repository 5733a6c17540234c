"""Workers that nobody sees: from when, for how long, and what becomes of what is bound to them.

Theory of operation. A link that goes down changes nothing by itself. That a worker is gone is said by PeerDead (its
port refuses, and its guardian keeps the port until all tasks are dead), or by registry and link together: with neither
lease nor link for `absent_seconds` its attempts fail over, because by then it has ended them itself (engine/fence.py).
"""

from __future__ import annotations

import math

from dsfast.engine import events as ev
from dsfast.engine.core import Core
from dsfast.engine.deadlines import TICK_SECONDS
from dsfast.engine.effects import MasterEffects
from dsfast.engine.run import Live
from dsfast.engine.states import Step
from dsfast.engine.workers import Worker
from dsfast.wire import commands as cmd

DIED = "its worker died"
GONE = "its worker is gone: no link and no lease"


def look_out_for(core: Core, worker: Worker) -> None:
    """A worker with neither link nor lease has `absent_seconds` to come back, or to end its own tasks if it cannot.

    That it has no lease is the registry's word, and must be its last one: the view that we had when we lost contact may
    be that of a moment at which everybody was missing.
    """
    if not worker.dead and (worker.linked or worker.id in core.members or not core.in_contact):
        worker.absent_since = None
        core.deadlines.cancel(("absent", worker.id))
    elif worker.absent_since is None:
        worker.absent_since = core.now
        core.deadlines.set(("absent", worker.id), core.now + core.settings.absent_seconds)


def look_at_former_lives(core: Core, worker: Worker) -> None:
    """What is bound to them may have waited for nothing but this."""
    for former in core.dispatcher.workers.values():
        if former.member.name == worker.member.name and former.absent_since is not None:
            core.deadlines.set(("absent", former.id), former.absent_since + core.settings.absent_seconds)


def on_absent(core: Core, worker_id: str, fx: MasterEffects) -> None:
    """Nobody has seen this worker for long enough to be sure that it has ended what it may not run on with."""
    worker = core.dispatcher.workers.get(worker_id)
    if worker is None or worker.absent_since is None:
        return
    if worker.dead:
        _bury(core, worker, DIED, fx)
        return
    later = []
    for live in list(worker.live.values()):
        at = worker.absent_since + _patience(core, worker, live)
        if at - core.now < TICK_SECONDS:
            core.concerning = live.row.run_id
            core.settle(core.runs[live.row.run_id], live, Step.LOSE, GONE, core.wall, fx)
        else:
            later.append(at)
    if not worker.live:
        _bury(core, worker, GONE, fx)
    elif min(later) < math.inf:
        core.deadlines.set(("absent", worker.id), min(later))


def on_bury(core: Core, e: ev.Received, c: cmd.Bury, fx: MasterEffects) -> None:
    """A person vouches for the death of a worker that nobody can see."""
    lives = [worker for worker in core.dispatcher.workers.values() if worker.member.name == c.worker]
    if any(worker.linked or worker.id in core.members for worker in lives):
        sentence = f"worker {c.worker} is alive: master {core.me.name} sees it; stop it first"
        fx.sends.append((e.peer_id, e.request_id, cmd.Failed("usage", sentence)))
        return
    fx.sends.append((e.peer_id, e.request_id, cmd.Buried(sum(len(worker.live) for worker in lives))))
    for worker in lives:
        _bury(core, worker, "its worker was declared lost", fx)


def _patience(core: Core, worker: Worker, live: Live) -> float:
    """How many seconds its worker must be absent before this attempt may be replaced.

    What may not be replaced waits for proof of its worker's death, such as another life under its name, which does not
    begin before nothing of the former runs.
    """
    policy = core.runs[live.row.run_id].plan.traits[live.row.task].on_disconnect
    if not policy.replace:
        lives = core.dispatcher.workers.values()
        followed = any(other.linked and other.member.name == worker.member.name for other in lives)
        return core.settings.absent_seconds if followed else math.inf
    return max(policy.replace_after, (policy.runs_on or 0.0) + core.settings.absent_seconds)


def mourn(core: Core, worker: Worker, fx: MasterEffects) -> None:
    """It is dead. If its next life is in sight, hear that one first: results may have outlived the process."""
    worker.dead, worker.linked = True, False
    heirs = [
        member.id
        for member in core.members.values()
        if member.role == "worker" and member.name == worker.member.name and member.id not in core.dead | {worker.id}
    ]
    if not worker.live or all(_has_answered(core, heir) for heir in heirs):
        _bury(core, worker, DIED, fx)
    else:
        look_out_for(core, worker)


def _has_answered(core: Core, worker_id: str) -> bool:
    """Whether it has said all that it keeps of our runs."""
    worker = core.dispatcher.workers.get(worker_id)
    return worker is not None and worker.linked and worker.answered == worker.asked


def bury_former_lives(core: Core, worker: Worker, fx: MasterEffects) -> None:
    """This worker has said what it keeps: nothing more will be heard of its dead former lives."""
    if worker.answered != worker.asked:
        return
    for other in list(core.dispatcher.workers.values()):
        if other.dead and other.member.name == worker.member.name:
            _bury(core, other, DIED, fx)


def _bury(core: Core, worker: Worker, reason: str, fx: MasterEffects) -> None:
    """Everything bound to this worker is lost with it and gets a new attempt elsewhere."""
    worker.linked = False
    for live in list(worker.live.values()):
        core.concerning = live.row.run_id
        core.settle(core.runs[live.row.run_id], live, Step.LOSE, reason, core.wall, fx)
    core.deadlines.cancel(("absent", worker.id))
    core.dispatcher.remove_worker(worker)
