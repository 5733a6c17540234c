"""Runs change hands: which masters live, which runs are ours to claim, and how a run read back is continued.

Theory of operation. A master that is gone leaves its runs to the others: each claims its share by compare-and-set on
owner and epoch, which makes claiming too early harmless, and looks once more later for what a share left behind.
"""

from __future__ import annotations

from dsfast.engine import absence, requests
from dsfast.engine import events as ev
from dsfast.engine.core import Core
from dsfast.engine.credible import short
from dsfast.engine.deadlines import TICK_SECONDS
from dsfast.engine.effects import Claim, MasterEffects
from dsfast.engine.plan import Plan
from dsfast.engine.run import Live, Run
from dsfast.engine.states import RUN_STEPS, Step
from dsfast.errors import UsageError
from dsfast.model import FINAL_ATTEMPT, AttemptState, Member, RunState
from dsfast.rows import OwnedRun
from dsfast.wire import commands as cmd

FOLLOW_UP = ("claim",)
MISSING = ("missing",)


def claim_share(core: Core, fx: MasterEffects) -> None:
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
    claim_share(core, fx)


def claim_rest(core: Core, fx: MasterEffects) -> None:
    """Look for runs without a living owner that whoever had them in its share did not take."""
    if not core.registered:  # we do not see who has come since: a living master's runs would change hands for nothing
        core.deadlines.set(FOLLOW_UP, core.now + core.settings.absent_seconds)
        return
    fx.claim = fx.claim or Claim(core.masters or frozenset({core.me.id}))


def on_runs_lost(core: Core, e: ev.RunsLost, fx: MasterEffects) -> None:
    """Another master owns these runs: stop thinking about them at once; and should that one be dead, take them back."""
    for run_id, epoch in e.epochs.items():
        run = core.runs.get(run_id)
        if run is not None and run.row.epoch == epoch:
            core.answer_watchers(run_id, requests.not_owner(core), fx)
            core.forget(run)
    if core.deadlines.at(FOLLOW_UP) is None:
        core.deadlines.set(FOLLOW_UP, core.now + core.settings.absent_seconds)


def take(core: Core, owned: OwnedRun, quarantined: str | None, fx: MasterEffects) -> None:
    """Continue a run read back from the store: what may still run is bound again, what is ready is open."""
    core.concerning = owned.run.id
    _retract(core, owned.run.id, fx)
    if quarantined is not None:
        _abandon(core, owned, f"quarantined: masters have ended over it, the last one with: {quarantined}", fx)
        return
    try:
        _restore(core, owned, fx)
    except UsageError as error:
        _abandon(core, owned, f"this version cannot continue it: {error}", fx)


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
    core.answer_watchers(row.id, cmd.Ended(row.id), fx)


def _bind_restored(core: Core, live: Live) -> None:
    worker_id = live.row.worker or ""
    worker = core.dispatcher.workers.get(worker_id)
    if worker is None:
        name, _, boot = worker_id.rpartition("@")
        worker = core.dispatcher.add_worker(core.members.get(worker_id) or Member("worker", name, boot))
    worker.absent_since = None  # it has all its time from now: it may just have been told
    absence.look_out_for(core, worker)
    worker.live[live.key] = live
