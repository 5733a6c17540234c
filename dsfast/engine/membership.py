"""What links and the registry say: workers and masters come, go and die; runs change hands.

Theory of operation. A link to a worker that comes up is answered with Adopt: all our runs, because the worker may
hold, for a former owner, a result that no row shows any more. The worker repeats what was not acknowledged, then says
what it holds (reports.on_holding). The same exchange serves a link that was cut, a master that was restarted and runs
taken over from a dead one, of which all workers are told. A link that goes down changes nothing by itself. That a
worker is gone is said by PeerDead (its port refuses, and its guardian keeps the port until all tasks are dead), or by
registry and link together: with neither lease nor link for `absent_seconds` its attempts fail over, because by then
it has ended them itself (engine/fence.py). A master that is gone leaves its runs to the others: each claims
its share by compare-and-set on owner and epoch, which makes claiming too early harmless, and looks once more later
for what a share left behind.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from dsfast.engine import events as ev
from dsfast.engine.core import Core
from dsfast.engine.credible import short
from dsfast.engine.deadlines import TICK_SECONDS
from dsfast.engine.effects import Claim, MasterEffects
from dsfast.engine.plan import Plan
from dsfast.engine.run import Live, Run
from dsfast.engine.states import RUN_STEPS, Step
from dsfast.engine.workers import Worker
from dsfast.errors import UsageError
from dsfast.model import FINAL_ATTEMPT, AttemptState, Member, RunState
from dsfast.rows import OwnedRun
from dsfast.wire import commands as cmd

FOLLOW_UP = ("claim",)
MISSING = ("missing",)
DIED = "its worker died"
GONE = "its worker is gone: no link and no lease"


def on_link_up(core: Core, e: ev.LinkUp, fx: MasterEffects) -> None:
    if e.peer.role == "master":
        core.linked_masters.add(e.peer.id)
    if e.peer.role != "worker":
        return
    worker = core.dispatcher.add_worker(e.peer)
    worker.linked = True
    worker.limit, worker.hungry, worker.draining = 0, False, False
    _look_out_for(core, worker)
    _look_at_former_lives(core, worker)
    _adopt(core, worker, core.runs.keys(), fx)


def _adopt(core: Core, worker: Worker, run_ids: Iterable[int], fx: MasterEffects) -> None:
    """Tell a worker that we own these runs, and ask what it holds of them.

    Questions are numbered: one that was computed under a former link may leave on the present one, and its answer
    says nothing of what was sent after it.
    """
    core.adopts += 1
    run_ids = sorted(run_ids)
    mine = set(run_ids)
    worker.adopting.update((key, core.adopts) for key in worker.live if key[0] in mine)
    worker.asked = core.adopts
    runs = tuple((run_id, core.runs[run_id].row.epoch) for run_id in run_ids)
    fx.sends.append((worker.id, 0, cmd.Adopt(runs, core.adopts)))


def on_link_down(core: Core, e: ev.LinkDown, fx: MasterEffects) -> None:
    if e.peer_id in core.linked_masters:
        core.linked_masters.discard(e.peer_id)
        _claim_share(core, fx)
    worker = core.dispatcher.workers.get(e.peer_id)
    if worker is None:
        return
    worker.linked = False
    worker.limit = 0
    worker.adopting.clear()
    _look_out_for(core, worker)


def on_peer_dead(core: Core, e: ev.PeerDead, fx: MasterEffects) -> None:
    core.dead.add(e.peer_id)
    worker = core.dispatcher.workers.get(e.peer_id)
    if worker is not None:
        _mourn(core, worker, fx)
    elif core.masters and e.peer_id in core.masters:
        _claim_share(core, fx)


def on_members(core: Core, e: ev.Members, fx: MasterEffects) -> None:
    core.members = {member.id: member for member in e.members}
    core.dead &= core.members.keys()
    for worker in list(core.dispatcher.workers.values()):
        _look_out_for(core, worker)
    _claim_share(core, fx)


def on_session(core: Core, e: ev.SessionChanged, fx: MasterEffects) -> None:
    """A lost session pauses new runs; it kills nothing. Out of contact we do not know who is listed."""
    core.registered = e.state != "lost"
    core.in_contact = e.state == "connected"
    for worker in core.dispatcher.workers.values():
        _look_out_for(core, worker)


def _look_out_for(core: Core, worker: Worker) -> None:
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


def _look_at_former_lives(core: Core, worker: Worker) -> None:
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


def _mourn(core: Core, worker: Worker, fx: MasterEffects) -> None:
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
        _look_out_for(core, worker)


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


def _claim_share(core: Core, fx: MasterEffects) -> None:
    """When masters came or went: take our share of the runs that nobody alive owns, and later look again."""
    masters = _alive_masters(core)
    if masters == core.masters:
        return
    core.masters = masters
    fx.claim = Claim(masters, sorted(masters).index(core.me.id), len(masters))
    core.deadlines.set(FOLLOW_UP, core.now + core.settings.absent_seconds)


def _alive_masters(core: Core) -> frozenset[str]:
    """Those that the registry shows, and for a while those that it shows no longer though their link is healthy.

    They live. When the registry itself was down they are back in it in a moment, and taking their runs over would be
    all that happened; should they be cut off from registry and store for longer, somebody has to.
    """
    listed = {member.id for member in core.members.values() if member.role == "master"} - core.dead
    missing = ((core.masters or frozenset()) & core.linked_masters) - listed - core.dead
    core.missing = {master: core.missing.get(master, core.now) for master in missing}
    ends = {master: since + core.settings.absent_seconds for master, since in core.missing.items()}
    waiting = {master: end for master, end in ends.items() if end - core.now >= TICK_SECONDS}
    if waiting:
        core.deadlines.set(MISSING, min(waiting.values()))
    else:
        core.deadlines.cancel(MISSING)
    return frozenset(listed | waiting.keys() | {core.me.id})


def on_missing(core: Core, fx: MasterEffects) -> None:
    """A master has been out of the registry for long enough, or is back in it."""
    _claim_share(core, fx)


def claim_rest(core: Core, fx: MasterEffects) -> None:
    """Look for runs without a living owner that whoever had them in its share did not take."""
    if not core.registered:  # we do not see who has come since: a living master's runs would change hands for nothing
        core.deadlines.set(FOLLOW_UP, core.now + core.settings.absent_seconds)
        return
    fx.claim = fx.claim or Claim(core.masters or frozenset({core.me.id}))


def on_claimed(core: Core, e: ev.Claimed, fx: MasterEffects) -> None:
    """Continue runs read back from the store: adopt what may still run, open what is ready."""
    claimed = {owned.run.id for owned in e.runs}
    for owned in e.runs:
        core.concerning = owned.run.id
        _retract(core, owned.run.id, fx)
        if (reason := e.quarantined.get(owned.run.id)) is not None:
            _abandon(core, owned, f"quarantined: masters have ended over it, the last one with: {reason}", fx)
            continue
        try:
            _restore(core, owned, fx)
        except UsageError as error:
            _abandon(core, owned, f"this version cannot continue it: {error}", fx)
    for worker in list(core.dispatcher.workers.values()):
        if worker.linked:
            _adopt(core, worker, claimed & core.runs.keys(), fx)
    for worker in list(core.dispatcher.workers.values()):
        if worker.id in core.dead and not worker.linked:
            _mourn(core, worker, fx)


def _retract(core: Core, run_id: int, fx: MasterEffects) -> None:
    """Forget what we believed of a run under a former epoch, and what this turn was going to write and say of it."""
    run = core.runs.get(run_id)
    if run is not None:
        core.forget(run)
    batch = fx.batch
    batch.runs.pop(run_id, None)
    batch.attempts = {key: row for key, row in batch.attempts.items() if key[0] != run_id}
    fx.sends = [send for send in fx.sends if getattr(send[2], "run_id", None) != run_id]
    fx.ended = [ended for ended in fx.ended if ended != run_id]


def _restore(core: Core, owned: OwnedRun, fx: MasterEffects) -> None:
    plan = core.known_plan(owned.run.digest)
    if plan is None:
        plan = core.remember(core.compile(owned.body))
    _refuse_damaged(owned, plan)
    run = core.runs[owned.run.id] = Run(owned.run, plan)
    restored = run.restore(owned.attempts)
    for live in restored.adopt:
        _bind_restored(core, live)
    if run.stopping:
        core.halt(run, run.row.reason or "a task failed", fx)
    for task, due in restored.open:
        core.open_later(run, task, min(due - core.wall, run.wait_max(task)))
    core.end_if_over(run, fx)


def _refuse_damaged(owned: OwnedRun, plan: Plan) -> None:
    """Raise UsageError for rows that no release before this one has written."""
    unknown = {state for state in (owned.run.state, *(row.state for row in owned.attempts)) if state.__class__ is int}
    if unknown:
        raise UsageError(f"its rows have states that are unknown here: {unknown}")
    if owned.attempts and not 0 <= min(row.task for row in owned.attempts) <= owned.attempts[-1].task < len(plan):
        raise UsageError("it has attempts of tasks that its definition does not have")


def _abandon(core: Core, owned: OwnedRun, reason: str, fx: MasterEffects) -> None:
    """Fail a run that nobody can continue, rather than the master; what runs of it is killed as a stray."""
    row = owned.run
    row.state = RUN_STEPS.get((row.state, Step.FAIL), RunState.FAILED)  # its present one may be damaged
    row.owner, row.ended_at, row.reason = None, core.wall, short(reason)
    fx.batch.runs[row.id] = row
    fx.batch.epochs[row.id] = row.epoch
    for attempt in owned.attempts:
        if attempt.state not in FINAL_ATTEMPT:
            attempt.state, attempt.ended_at, attempt.reason = AttemptState.FAILOVER, core.wall, "its run has failed"
            fx.batch.attempts[row.id, attempt.task, attempt.attempt] = attempt
    fx.ended.append(row.id)


def _bind_restored(core: Core, live: Live) -> None:
    worker_id = live.row.worker or ""
    worker = core.dispatcher.workers.get(worker_id)
    if worker is None:
        name, _, boot = worker_id.rpartition("@")
        worker = core.dispatcher.add_worker(core.members.get(worker_id) or Member("worker", name, boot))
    worker.absent_since = None  # it has all its time from now: it may just have been told
    _look_out_for(core, worker)
    worker.live[live.key] = live


def on_runs_lost(core: Core, e: ev.RunsLost, fx: MasterEffects) -> None:
    """Another master owns these runs: stop thinking about them at once; and should that one be dead, take them back."""
    for run_id, epoch in e.epochs.items():
        run = core.runs.get(run_id)
        if run is not None and run.row.epoch == epoch:
            core.forget(run)
    if core.deadlines.at(FOLLOW_UP) is None:
        core.deadlines.set(FOLLOW_UP, core.now + core.settings.absent_seconds)
