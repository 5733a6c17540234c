"""The master: the list of what can happen to it, one handler each.

Theory of operation. A turn takes all events that arrived, changes state in memory, and ends by pairing ready
tasks with workers. Everything it wants done leaves as effects: one batch of rows, then commands, so that nothing
is sent before what it promises is durable. A slower disk makes bigger turns, not a longer queue of waits.
If the batch cannot be made durable nothing leaves, and the next turn waits: memory never runs ahead of the store
by more than the turn that is being written.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from dsfast.engine import absence, membership, reports, requests, takeover
from dsfast.engine import events as ev
from dsfast.engine.core import Core, MasterSettings
from dsfast.engine.effects import MasterEffects
from dsfast.model import Member
from dsfast.rows import Batch
from dsfast.wire import commands as cmd

__all__ = ["MasterEngine", "MasterSettings"]


class MasterEngine:
    """Decides for all runs that this master owns."""

    def __init__(self, me: Member, settings: MasterSettings, rng: random.Random) -> None:
        self.core = Core(me, settings, rng)

    def step(self, events: Iterable[ev.Event], now: float, wall: float) -> MasterEffects:
        """Take in what happened; say what must be done about it. `now` is monotonic, `wall` seconds since 1970."""
        core = self.core
        core.now, core.wall = now, wall
        fx = MasterEffects(Batch(core.me.id))
        if core.submits:
            core.submits.clear()
        for event in events:
            core.concerning, core.hearing = 0, event
            EVENTS[type(event)](core, event, fx)
        core.concerning, core.hearing = 0, None
        for key in core.deadlines.due(now):
            _on_due(core, key, fx)
        core.dispatch(fx)
        fx.wake_at = core.deadlines.earliest()
        return fx

    @property
    def concerning(self) -> int | ev.Received:
        """What was being decided on when `step` failed: a run that other masters know, else a command, else 0."""
        core = self.core
        if core.concerning:
            return core.submits.get(core.concerning, core.concerning)
        return core.hearing if isinstance(core.hearing, ev.Received) else 0

    def sanity_check(self) -> None:
        """Raise AssertionError if what this master believes contradicts itself."""
        self.core.sanity_check()


def _on_received(core: Core, e: ev.Received, fx: MasterEffects) -> None:
    run_id = getattr(e.command, "run_id", 0)
    core.concerning = run_id if run_id in core.runs else 0
    handler = COMMANDS.get(type(e.command))
    if handler is not None:
        handler(core, e, e.command, fx)
    elif e.request_id:
        fx.sends.append((e.peer_id, e.request_id, cmd.Failed("usage", f"a master takes no {type(e.command).__name__}")))


def _on_due(core: Core, key: object, fx: MasterEffects) -> None:
    match key:
        case ("open", int(run_id), int(task)):
            core.concerning = run_id
            run = core.runs[run_id]
            run.delayed.discard(task)
            core.dispatcher.push(run, task)
        case ("absent", str(worker_id)):
            absence.on_absent(core, worker_id, fx)
        case ("stray", str(worker_id), (int(run_id), int(task), int(attempt))):
            reports.ask_again(core, worker_id, (run_id, task, attempt), fx)
        case reports.FLUSH:
            reports.flush_starts(core, fx)
        case takeover.MISSING:
            takeover.on_missing(core, fx)
        case takeover.FOLLOW_UP:
            takeover.claim_rest(core, fx)


EVENTS: dict[type, Callable[..., None]] = {
    ev.Received: _on_received,
    ev.LinkUp: membership.on_link_up,
    ev.LinkDown: membership.on_link_down,
    ev.PeerDead: membership.on_peer_dead,
    ev.Members: membership.on_members,
    ev.Claimed: membership.on_claimed,
    ev.RunsLost: takeover.on_runs_lost,
    ev.RunsEnded: reports.on_runs_ended,
    ev.SessionChanged: membership.on_session,
    ev.Tick: lambda core, e, fx: None,
}

COMMANDS: dict[type, Callable[..., None]] = {
    cmd.Result: reports.on_result,
    cmd.Started: reports.on_started,
    cmd.Credit: reports.on_credit,
    cmd.Refused: reports.on_refused,
    cmd.KillAnswer: reports.on_kill_answer,
    cmd.Holding: reports.on_holding,
    cmd.Draining: reports.on_draining,
    cmd.Deposed: reports.on_deposed,
    cmd.Recheck: reports.on_recheck,
    cmd.Submit: requests.on_submit,
    cmd.SubmitBatch: requests.on_submit_batch,
    cmd.Cancel: requests.on_cancel,
    cmd.Explain: requests.on_explain,
    cmd.Bury: absence.on_bury,
    cmd.Probe: requests.on_probe,
    cmd.Watch: requests.on_watch,
}
