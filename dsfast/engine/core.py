"""A master's state, and the decisions that every handler shares.

Theory of operation. Handlers (requests.py, reports.py, membership.py, absence.py, takeover.py) validate what arrived
and call the decisions here; decisions change state through the tables in states.py and append effects. The rows of a
task on its fast path are two: bound to a worker, and ended; several changes of one row in a turn are one write, since
the batch holds the row itself. A slot is taken when a task is bound and given back in the same turn that ends it.

Invariants, checked by `sanity_check`: an attempt with a worker is in that worker's `live` and the other way
round; a worker with a free slot is in the room of its groups; a stopping run has nothing queued or delayed; every
run in memory is unfinished and ours.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from dsfast.engine.balance import POLICIES
from dsfast.engine.deadlines import Deadlines
from dsfast.engine.dispatch import Dispatcher
from dsfast.engine.effects import MasterEffects
from dsfast.engine.events import Event, Received
from dsfast.engine.plan import Plan, compile_body
from dsfast.engine.run import Live, Run
from dsfast.engine.states import ATTEMPT_STEPS, RUN_STEPS, Step, next_state
from dsfast.ids import RunIds
from dsfast.model import REPLACE, AttemptState, Member, OnDisconnect, RunState
from dsfast.wire import commands as cmd

PLANS_MAX = 256  # compiled definitions kept for runs to come


@dataclass(frozen=True, slots=True)
class MasterSettings:
    """What a master may be told to do differently."""

    policy: str = "least_loaded"
    kill_grace_seconds: float = 10.0
    absent_seconds: float = 6.5  # that a worker without link and lease may run on: fence.absent_seconds
    failovers_max: int = (
        10  # of one task: one that takes its worker down would else take down all, one by one, for ever
    )
    on_disconnect: OnDisconnect = REPLACE  # of tasks that do not say; the same on all masters of a cluster


class Core:
    """Everything a master knows. `now` (monotonic) and `wall` are those of the turn under way."""

    def __init__(self, me: Member, settings: MasterSettings, rng: random.Random) -> None:
        self.me = me
        self.settings = settings
        self.runs: dict[int, Run] = {}
        self.dispatcher = Dispatcher(self.runs, POLICIES[settings.policy], rng)
        self.deadlines = Deadlines()
        self.members: dict[str, Member] = {}
        self.dead: set[str] = set()  # members the registry still lists though their process is gone
        self.masters: frozenset[str] | None = None
        self.linked_masters: set[str] = set()
        self.missing: dict[str, float] = {}  # linked masters that the registry shows no longer, and since when
        self.registered = True  # others see us; if they do not, new runs wait and running ones go on
        self.in_contact = True  # with the registry: `members` is what it says now
        self.starts: dict[cmd.Attempt, tuple[Live, str]] = {}  # running, but not written down yet
        self.concerning = 0  # the run that is being decided on: to be blamed should this be the end of us
        self.hearing: Event | None = None  # the event that is being decided on: likewise, if it is about no run of ours
        self.submits: dict[int, Received] = {}  # of this turn, by run: no other master will know the run
        self.watchers: dict[int, list[tuple[str, int]]] = {}  # run -> peers and requests that wait for its end
        self.adopts = 0  # how often a worker was asked what it holds
        self.refused_results = 0  # late, repeated or outdated results that changed nothing
        self.ids = RunIds(rng)
        self.now = self.wall = 0.0
        self._plans: OrderedDict[str, Plan] = OrderedDict()

    # -- definitions --------------------------------------------------------------------------------------

    def compile(self, body: bytes) -> Plan:
        """The plan of a definition that is not known yet. Raises UsageError when it is not a workflow."""
        return compile_body(body, self.settings.on_disconnect)

    def known_plan(self, digest: str) -> Plan | None:
        return self._plans.get(digest)

    def remember(self, plan: Plan) -> Plan:
        """Keep a plan for runs to come; the one kept already, if there is one."""
        plan = self._plans.setdefault(plan.digest, plan)
        self._plans.move_to_end(plan.digest)
        if len(self._plans) > PLANS_MAX:
            self._plans.popitem(last=False)
        return plan

    # -- tasks open and go ----------------------------------------------------------------------------------

    def open(self, run: Run, tasks: Sequence[int]) -> None:
        """These tasks have nothing left to wait for but their own delay."""
        traits = run.plan.traits
        for task in tasks:
            self.open_later(run, task, traits[task].delay)

    def open_later(self, run: Run, task: int, wait: float) -> None:
        """The task may go in `wait` seconds, unless its run is stopping."""
        if run.stopping:
            return
        if wait <= 0:
            self.dispatcher.push(run, task)
            return
        run.delayed.add(task)
        self.deadlines.set(("open", run.id, task), self.now + wait)

    def dispatch(self, fx: MasterEffects) -> None:
        """Pair what is ready with workers that have room, until one of them runs out."""
        for run, task, worker in self.dispatcher.assignments():
            self.concerning = run.id
            live = run.bind(task, worker.id, self.wall)
            row, plan, key = live.row, run.plan, live.key
            row.state = next_state(ATTEMPT_STEPS, row.state, Step.DISPATCH, key)
            worker.live[key] = live
            if run.row.state is RunState.SUBMITTED:
                run.row.state = next_state(RUN_STEPS, run.row.state, Step.DISPATCH, run.id)
                run.row.started_at = self.wall
                self.write_run(run, fx)
            self.write_attempt(run, live, fx)
            execute = cmd.Execute(*key, run.row.epoch, plan.names[task], plan.specs[task], run.inputs(task))
            fx.sends.append((worker.id, 0, execute))
        self._tell_demand(fx)

    def _tell_demand(self, fx: MasterEffects) -> None:
        """Tell workers when tasks begin or cease to wait for their credit."""
        for group in self.dispatcher.groups.values():
            if not (group.hungry or group.queue):
                continue
            group.hungry = bool(group.queue)
            for worker in group.workers.values():
                hungry = any(self.dispatcher.group(name).queue for name in worker.member.groups)
                if worker.linked and worker.hungry != hungry:
                    worker.hungry = hungry
                    fx.sends.append((worker.id, 0, cmd.Demand(hungry)))

    # -- attempts end -----------------------------------------------------------------------------------------

    def settle(self, run: Run, live: Live, step: Step, reason: str, ended_at: float, fx: MasterEffects) -> None:
        """An attempt has ended: record it, give its credit back, and decide what follows from it."""
        row = live.row
        if step is Step.LOSE and not run.may_fail_over(row.task, self.settings.failovers_max):
            step, reason = Step.FAIL, f"{reason}; it counts as a failure after {self.settings.failovers_max} losses"
        row.state = next_state(ATTEMPT_STEPS, row.state, step, live.key)
        row.reason = reason
        row.ended_at = ended_at
        self.unbind(live)
        del run.live[row.task]
        self.dispatcher.accepted(run.id, row.task)
        self.write_attempt(run, live, fx)
        self._follow(run, row.task, row.state, row.outputs, fx)
        self.end_if_over(run, fx)

    def _follow(self, run: Run, task: int, state: AttemptState, outputs: bytes | None, fx: MasterEffects) -> None:
        if state is AttemptState.SUCCEEDED:
            run.count(state)
            self.open(run, run.succeed(task, outputs))
        elif state is AttemptState.FAILOVER:
            self.open_later(run, task, 0.0)
        elif state is AttemptState.FAILED and (wait := run.may_retry(task)) is not None:
            self.open_later(run, task, wait)
        else:
            run.count(state)
            if run.give_up(task):
                self.halt(run, f"task {run.plan.names[task]!r} failed", fx)

    def give_back(self, run: Run, live: Live, wait: float, fx: MasterEffects) -> None:
        """A worker returned the attempt unstarted: queue it again in `wait` seconds, or end it with its run."""
        live.row.state = next_state(ATTEMPT_STEPS, live.row.state, Step.RETURN, live.key)
        self.unbind(live)
        live.row.worker = None
        if run.stopping:
            self.settle(run, live, Step.KILL, live.kill_reason or "cancelled", self.wall, fx)
        else:
            self.open_later(run, live.row.task, wait)

    def unbind(self, live: Live) -> None:
        """Give the credit of the attempt's worker back; what it holds of the attempt matters no longer."""
        key = live.key
        if live.row.worker is not None:
            worker = self.dispatcher.workers[live.row.worker]
            del worker.live[key]
            worker.adopting.pop(key, None)
            self.dispatcher.gained(worker)
        self.starts.pop(key, None)

    # -- runs stop and end --------------------------------------------------------------------------------------

    def cancel(self, run: Run, reason: str, grace: float | None, fx: MasterEffects) -> None:
        """Make the run stop: the intent becomes durable first, then everything live is killed. Repeating is safe."""
        if run.row.state is not RunState.READY_STOP:
            run.row.state = next_state(RUN_STEPS, run.row.state, Step.CANCEL, run.id)
            run.row.reason = reason or "cancelled"
            self.write_run(run, fx)
        self.halt(run, run.row.reason, fx, grace)
        self.end_if_over(run, fx)

    def halt(self, run: Run, reason: str, fx: MasterEffects, grace: float | None = None) -> None:
        """Nothing more of this run starts, and what is live is killed."""
        self._unqueue(run)
        for live in list(run.live.values()):
            live.kill_reason = reason
            if live.row.worker is None:
                self.settle(run, live, Step.KILL, reason, self.wall, fx)
            else:
                self.send_kill(run, live, fx, grace)

    def send_kill(self, run: Run, live: Live, fx: MasterEffects, grace: float | None = None) -> None:
        """Tell the attempt's worker to end it; said again whenever a link to that worker comes up."""
        worker = self.dispatcher.workers[live.row.worker or ""]
        if worker.linked:
            grace = self.settings.kill_grace_seconds if grace is None else grace
            fx.sends.append((worker.id, 0, cmd.Kill(*live.key, run.row.epoch, grace, live.kill_reason or "")))

    def end_if_over(self, run: Run, fx: MasterEffects) -> None:
        """Write the run's final state once nothing of it is left to do, and let go of it."""
        if not run.over or run.id not in self.runs:
            return
        row = run.row
        row.state = next_state(RUN_STEPS, row.state, run.end_step(), run.id)
        row.owner = None
        row.ended_at = self.wall
        self.write_run(run, fx)
        fx.ended.append(run.id)
        self.answer_watchers(run.id, cmd.Ended(run.id), fx)
        self.forget(run)

    def answer_watchers(self, run_id: int, answer: cmd.Command, fx: MasterEffects) -> None:
        """Tell those who wait for the end of a run."""
        if self.watchers:
            fx.sends += [(peer, request_id, answer) for peer, request_id in self.watchers.pop(run_id, ())]

    def forget(self, run: Run) -> None:
        """Drop a run from memory: it has ended, or another master owns it."""
        self._unqueue(run)
        for live in run.live.values():
            self.unbind(live)
        del self.runs[run.id]

    def _unqueue(self, run: Run) -> None:
        self.dispatcher.discard(run)
        for task in run.delayed:
            self.deadlines.cancel(("open", run.id, task))
        run.delayed.clear()

    # -- rows ---------------------------------------------------------------------------------------------------

    def write_run(self, run: Run, fx: MasterEffects) -> None:
        fx.batch.runs[run.id] = run.row
        fx.batch.epochs[run.id] = run.row.epoch

    def write_attempt(self, run: Run, live: Live, fx: MasterEffects) -> None:
        fx.batch.attempts[live.key] = live.row
        fx.batch.epochs[run.id] = run.row.epoch

    # -- truth ----------------------------------------------------------------------------------------------------

    def awaited(self, worker_id: str, key: cmd.Attempt) -> Live | None:
        """The live attempt with this key on this worker; None for echoes, repeats and what is not ours."""
        run = self.runs.get(key[0])
        return run.awaits(worker_id, key) if run is not None else None

    def sanity_check(self) -> None:
        """Raise AssertionError if the invariants above do not hold."""
        bound = {
            live.key: live.row.worker for run in self.runs.values() for live in run.live.values() if live.row.worker
        }
        held = {key: worker.id for worker in self.dispatcher.workers.values() for key in worker.live}
        assert bound == held, f"attempts and workers disagree: {bound.items() ^ held.items()}"
        for group in self.dispatcher.groups.values():
            free = {worker.id for worker in group.workers.values() if worker.has_slot}
            overlooked = free - {worker.id for worker in group.slots.workers}
            assert not overlooked, f"workers of {group.name} have slots that nobody knows of: {overlooked}"
        for run in self.runs.values():
            assert run.row.owner == self.me.id, f"run {run.id} is not ours"
            assert not run.row.state.final, f"run {run.id} has ended and is still here"
            assert not (run.stopping and run.delayed), f"run {run.id} is stopping and has delayed tasks"
            assert not run.over, f"run {run.id} is over and still here"
