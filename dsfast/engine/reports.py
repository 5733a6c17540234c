"""What workers say to a master.

What arrives late, twice, or from before a failover is recognised in one place, `Core.awaited`: an attempt of a run of
ours that is not live on that worker under that number is acknowledged, so that the worker can forget it, and changes
nothing. The result of a run that is not ours may be all there is of it, so it is acknowledged only once the store says
that the run has ended.
That a task runs is written only if it still runs START_FLUSH_SECONDS later, together with all others that do.
"""

from __future__ import annotations

from dsfast.engine.absence import bury_former_lives
from dsfast.engine.core import Core
from dsfast.engine.credible import believed, moment, ran_under, short
from dsfast.engine.effects import MasterEffects
from dsfast.engine.events import Received, RunsEnded
from dsfast.engine.run import Live, Run
from dsfast.engine.states import ATTEMPT_STEPS, OUTCOME_STEPS, Step, next_state
from dsfast.engine.workers import Worker
from dsfast.model import AttemptState
from dsfast.wire import commands as cmd

START_FLUSH_SECONDS = 0.05  # a task that ends sooner is never written as running: a third fewer rows for short tasks
FLUSH = ("starts",)


def on_started(core: Core, e: Received, c: cmd.Started, fx: MasterEffects) -> None:
    key = (c.run_id, c.task, c.attempt)
    live = core.awaited(e.peer_id, key)
    if live is None or live.row.state is AttemptState.RUNNING:
        fx.sends.append((e.peer_id, 0, cmd.StartedAck(*key)))
        return
    live.row.state = next_state(ATTEMPT_STEPS, live.row.state, Step.START, key)
    live.row.started_at = moment(c.started_at, core.wall)
    if not core.starts:
        core.deadlines.set(FLUSH, core.now + START_FLUSH_SECONDS)
    core.starts[key] = (live, e.peer_id)


def flush_starts(core: Core, fx: MasterEffects) -> None:
    """Write down what has been running for a while, and tell its workers that we know."""
    for key, (live, worker_id) in core.starts.items():
        core.concerning = key[0]
        core.write_attempt(core.runs[key[0]], live, fx)
        fx.sends.append((worker_id, 0, cmd.StartedAck(*key)))
    core.starts.clear()


def on_result(core: Core, e: Received, c: cmd.Result, fx: MasterEffects) -> None:
    key = (c.run_id, c.task, c.attempt)
    live = core.awaited(ran_under(e.peer_id, c.life), key)
    if live is None:
        core.refused_results += 1
    if c.run_id not in core.runs:
        _ask_about(core, e.peer_id, key, fx)
        return
    fx.sends.append((e.peer_id, 0, cmd.ResultAck(*key)))
    if live is None:
        return
    row, outcome = live.row, believed(c.outcome)
    row.started_at = outcome.started_at or row.started_at
    row.exit_code = outcome.exit_code
    row.outputs = bytes(outcome.outputs) or None
    ended_at = outcome.ended_at or core.wall  # one that was killed in the queue has no times of its own
    core.settle(core.runs[c.run_id], live, OUTCOME_STEPS[outcome.state], outcome.reason, ended_at, fx)


def on_refused(core: Core, e: Received, c: cmd.Refused, fx: MasterEffects) -> None:
    live = core.awaited(e.peer_id, (c.run_id, c.task, c.attempt))
    if live is None:
        return
    run = core.runs[c.run_id]
    if live.row.state is AttemptState.RUNNING:  # it said that it runs: whatever it means, that number is used up
        core.settle(run, live, Step.LOSE, f"its worker gave it back after its start: {short(c.reason)}", core.wall, fx)
        return
    live.row.reason = short(c.reason)
    wait = core.dispatcher.refused(run, c.task, e.peer_id, retry_here=c.retry_here)
    core.give_back(run, live, wait, fx)


def on_kill_answer(core: Core, e: Received, c: cmd.KillAnswer, fx: MasterEffects) -> None:
    """A worker that does not know the attempt will never run it: our link to it carried nothing of it."""
    live = core.awaited(e.peer_id, (c.run_id, c.task, c.attempt))
    if live is not None and not c.known:
        reason = live.kill_reason or "killed before it started"
        core.settle(core.runs[c.run_id], live, Step.KILL, reason, core.wall, fx)


def on_credit(core: Core, e: Received, c: cmd.Credit, fx: MasterEffects) -> None:
    worker = core.dispatcher.workers.get(e.peer_id)
    if worker is not None and not worker.draining:
        worker.limit = c.limit
        core.dispatcher.gained(worker)


def on_draining(core: Core, e: Received, c: cmd.Draining, fx: MasterEffects) -> None:
    worker = core.dispatcher.workers.get(e.peer_id)
    if worker is not None:
        worker.draining = True
        worker.limit = 0


def on_deposed(core: Core, e: Received, c: cmd.Deposed, fx: MasterEffects) -> None:
    """A worker obeys another master for this run: a write will tell whether the run is still ours."""
    run = core.runs.get(c.run_id)
    if run is not None and c.epoch > run.row.epoch:
        core.write_run(run, fx)


def on_recheck(core: Core, e: Received, c: cmd.Recheck, fx: MasterEffects) -> None:
    """Whoever takes a run over cannot see this worker: a write tells whether somebody has. If so, no answer leaves."""
    for run_id in c.runs:
        run = core.runs.get(run_id)
        if run is not None:
            core.write_run(run, fx)
            fx.sends.append((e.peer_id, 0, cmd.Owned(run_id, c.asked_at)))
        else:
            fx.sends.append((e.peer_id, 0, cmd.Disown(run_id)))


def on_holding(core: Core, e: Received, c: cmd.Holding, fx: MasterEffects) -> None:
    """What was bound to this worker when we asked, and it does not hold, never started there."""
    worker = core.dispatcher.workers.get(e.peer_id)
    if worker is None:
        return
    runs, held = set(c.runs), set(c.attempts)
    for key in [key for key, serial in worker.adopting.items() if serial == c.serial and key[0] in runs]:
        core.concerning = key[0]
        del worker.adopting[key]
        live = core.awaited(worker.id, key)
        if key not in held and live is not None:
            _never_ended(core, core.runs[key[0]], live, fx)
    for key in c.attempts:
        _on_held(core, worker, key, fx)
    if c.serial:
        worker.answered = c.serial
        bury_former_lives(core, worker, fx)


def _never_ended(core: Core, run: Run, live: Live, fx: MasterEffects) -> None:
    if live.row.state is AttemptState.RUNNING:  # it did run there, and how it ended is lost: that number is used up
        core.settle(run, live, Step.LOSE, "its worker no longer knows it", core.wall, fx)
    else:
        core.give_back(run, live, 0.0, fx)


def _on_held(core: Core, worker: Worker, key: cmd.Attempt, fx: MasterEffects) -> None:
    run = core.runs.get(key[0])
    core.concerning = 0 if run is None else run.id
    if run is None:
        _ask_about(core, worker.id, key, fx)
        return
    live = run.awaits(worker.id, key)
    if live is None:
        fx.sends.append((worker.id, 0, cmd.Kill(*key, run.row.epoch, 0.0, "another attempt has taken its place")))
    elif live.kill_reason is not None:
        core.send_kill(run, live, fx)


def _ask_about(core: Core, worker_id: str, key: cmd.Attempt, fx: MasterEffects) -> None:
    """A worker holds an attempt of a run that is not ours: another master waits for it, or its run has ended.

    Ask now and once more later: a commit of a master that has died may take effect after the first answer.
    """
    fx.lookups.append((worker_id, key))
    core.deadlines.set(("stray", worker_id, key), core.now + core.settings.absent_seconds)


def ask_again(core: Core, worker_id: str, key: cmd.Attempt, fx: MasterEffects) -> None:
    """Should the run be ours by now, its worker has been asked about it."""
    worker = core.dispatcher.workers.get(worker_id)
    if worker is not None and worker.linked and key[0] not in core.runs:
        fx.lookups.append((worker_id, key))


def on_runs_ended(core: Core, e: RunsEnded, fx: MasterEffects) -> None:
    """Let workers forget, or kill, what they hold of runs that are over; the others' owners will ask for theirs."""
    for worker_id, key in e.strays:
        if key[0] in e.epochs:
            core.deadlines.cancel(("stray", worker_id, key))
            fx.sends.append((worker_id, 0, cmd.ResultAck(*key)))
            fx.sends.append((worker_id, 0, cmd.Kill(*key, e.epochs[key[0]], 0.0, "its run has ended")))
