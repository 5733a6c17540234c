"""A worker in the simulation: its engine, the order of dsfast.runtime.worker around it, and pretended processes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from dsfast.engine import events as ev
from dsfast.engine.effects import KillOrder, WorkerEffects
from dsfast.engine.fence import UNSURE_SECONDS
from dsfast.engine.master import MasterSettings
from dsfast.engine.worker import WorkerEngine
from dsfast.model import AttemptState, Member, Outcome
from dsfast.proof.checker import hold
from dsfast.sim.host import Host
from dsfast.sim.workload import Behaviour, behaviour_of, spec_of
from dsfast.wire.commands import Attempt, Execute

if TYPE_CHECKING:
    from dsfast.sim.world import World

STOP_GRACE_SECONDS = 5.0
FAREWELL_SECONDS = 5.0
ABSENT_SECONDS = MasterSettings().absent_seconds
RENEW_SECONDS, GUARDED_SHARE = 1.0, 0.8  # of runtime.standstill
KILL_SECONDS_MAX = 0.3  # from SIGKILL until the last of a tree is gone


@dataclass(slots=True)
class Process:
    """An attempt that runs."""

    key: Attempt
    started_at: float
    behaviour: Behaviour
    outcome: Outcome


class WorkerHost(Host):
    """One life of a worker."""

    def __init__(self, world: World, member: Member) -> None:
        super().__init__(world, member)
        self.engine = WorkerEngine(member)
        self.engine.recall(list(world.journals.get(member.name, {}).values()))
        self.processes: dict[Attempt, Process] = {}
        self.suspended = False
        self._pauses = 0
        self._frozen: list[tuple[Process, Outcome]] = []  # ends that a suspended machine has not come to
        self._stop_at: float | None = None
        self._leaving = False

    @property
    def leaving(self) -> bool:
        """See Host.leaving."""
        return self.engine.stopping

    @property
    def gone(self) -> bool:
        """See Host.gone."""
        return not self.alive and not self.processes

    def turn(self) -> None:
        events = self._distrust(self.take()) if self.stood_still >= ABSENT_SECONDS else self.take()
        while True:
            self._hurry(events)
            fx = self.engine.step(events, self.now)
            self.engine.sanity_check()
            for order in fx.kills:
                self._kill(order)
            for execute in fx.starts:
                self._start(execute)
            self._keep(fx)
            for peer, request_id, command in fx.sends:
                self.world.checks.worker_sends(self, command)
                self.send(peer, request_id, command)
            events = self.take()
            if not events:
                break
        self.flush()
        if fx.idle or self._leaving:
            self.world.leave(self)
        else:
            wakes = [at for at in (fx.wake_at, self._stop_at) if at is not None]
            self.rest(min(wakes, default=None))

    def _keep(self, fx: WorkerEffects) -> None:
        """Write down what the next life of this worker must know, as runtime.journal does."""
        journal = self.world.journals.setdefault(self.name, {})
        for kept in fx.kept:
            journal[kept[1].run_id, kept[1].task, kept[1].attempt] = kept
        for key in fx.forgotten:
            journal.pop(key, None)

    def _distrust(self, events: list[ev.Event]) -> list[ev.Event]:
        """It stood still beyond its lease: what it was told before is out of date. See runtime.worker."""
        self.stood_still = 0.0
        peers = list(self.links)
        for link in list(self.links.values()):
            link.break_off(0.0)
            link.end_at(self)
        downs: list[ev.Event] = [ev.LinkDown(peer, "stood still") for peer in peers]
        self.inbox = [event for event in self.inbox if not isinstance(event, ev.LinkDown)]
        fresh = [event for event in events if not isinstance(event, ev.Received)]
        session = self.world.registry.session(self)
        lost = ev.SessionChanged("lost", self.at(session.lease_end))
        told = lost if session.state == "lost" else ev.SessionChanged(session.state)
        return [*fresh, *downs, lost, told]

    def learn_members(self, members: tuple[Member, ...]) -> None:
        """See Host.learn_members."""
        self.put(ev.Members(members))

    # -- pretended processes ---------------------------------------------------------------------------------

    def _start(self, execute: Execute) -> None:
        world = self.world
        key = (execute.run_id, execute.task, execute.attempt)
        spec, behaviour = spec_of(execute.spec), behaviour_of(execute.spec)
        if world.start_fails():
            self.put(ev.AttemptRefused(key, "out of memory"))
            return
        outcome = world.checks.process_starts(self, execute, behaviour)
        process = self.processes[key] = Process(key, self.wall, behaviour, outcome)
        if behaviour.seconds == 0:
            self._end(process, outcome)
            return
        self.put(ev.AttemptStarted(key, process.started_at, spec.timeout, spec.runs_on))
        self._later(behaviour.seconds * world.rng.uniform(0.8, 1.2), process, outcome)

    def _kill(self, order: KillOrder) -> None:
        process = self.processes.get(order.key)
        if process is None:
            return
        wait = order.grace if process.behaviour.stubborn else order.grace * self.world.rng.random() * 0.1
        wait += self.world.rng.random() * KILL_SECONDS_MAX
        self._later(wait, process, Outcome(AttemptState.KILLED, -15, order.reason, b"", process.started_at))

    def _later(self, seconds: float, process: Process, outcome: Outcome) -> None:
        self.world.clock.after(seconds, self._end, process, outcome)

    def _end(self, process: Process, outcome: Outcome) -> None:
        if self.processes.get(process.key) is not process:
            return
        if self.suspended:
            self._frozen.append((process, outcome))
            return
        del self.processes[process.key]
        ended = msgspec.structs.replace(outcome, started_at=process.started_at, ended_at=self.wall)
        self.world.checks.process_ends(self, process.key, ended)
        self.put(ev.AttemptEnded(process.key, ended))

    def pause(self) -> None:
        """The worker stands still; what it runs goes on, until its guardians end that and the worker itself."""
        super().pause()
        left = self._deadline() - self.world.clock.now
        if left < math.inf:
            self._pauses += 1
            self.world.clock.after(max(left, 0.0), self._guardians_act, self._pauses)

    def _deadline(self) -> float:
        """By when it has to move, as runtime.standstill sets it at every move."""
        now, lease_end = self.world.clock.now, self.world.registry.listed_until(self)
        moved = self.world.rng.random() * RENEW_SECONDS  # ago
        until = lease_end + GUARDED_SHARE * ABSENT_SECONDS if lease_end > now else now - moved + UNSURE_SECONDS
        return until + self.engine.patience()

    def _guardians_act(self, pauses: int) -> None:
        if self.alive and self.paused and pauses == self._pauses and not self.suspended:
            self.world.crash(self)

    def suspend(self) -> None:
        """The whole machine stands still, guardians and processes included: nobody can end what may be replaced."""
        self.suspended = True
        super().pause()
        for key in self.processes:
            self.world.checks.unfenced(self, key)

    def resume(self) -> None:
        """See Host.resume; a process that would have ended meanwhile ends now, or soon."""
        self.suspended = False
        frozen, self._frozen = self._frozen, []
        for process, outcome in frozen:
            self._later(self.world.rng.random(), process, outcome)
        super().resume()

    def end(self, *, power: bool, notice: float) -> None:
        """Processes die with their worker: at once with the machine, else by the guardian, before the port refuses."""
        super().end(power=power, notice=notice)
        if power:
            if self.world.rng.random() < 0.5:  # nothing was synced: the machine may lose it, or a part
                self.world.journals.pop(self.name, None)
            self._bury()
        else:
            self.refuses = False
            self.world.clock.after(self.world.rng.random() * KILL_SECONDS_MAX, self._guard)

    def _guard(self) -> None:
        self._bury()
        self.refuses = True

    def _bury(self) -> None:
        for key in list(self.processes):
            self.world.checks.process_dies(self, key)
        self.processes.clear()
        self._frozen.clear()

    def nothing_left(self) -> None:
        """See Host.nothing_left."""
        engine = self.engine
        held = next(iter(engine.held), (None, None))
        hold(not engine.held, f"{self.name} still holds {list(engine.held)}", *held[:2])
        left = engine.bindings or engine.queue or len(engine.deadlines) or engine.busy or self.processes
        hold(not left, f"{self.name} keeps something of attempts that are gone")

    # -- stopping ----------------------------------------------------------------------------------------------

    def drain(self, seconds: float) -> None:
        """Take nothing new, and stop after so many seconds what still runs."""
        self._stop_at = self.now + seconds
        self.put(ev.Drain())

    def _hurry(self, events: list[ev.Event]) -> None:
        if self._stop_at is None or self.now < self._stop_at:
            return
        if self.engine.busy or not self.engine.stopping:
            events.append(ev.Stop(STOP_GRACE_SECONDS))
            self._stop_at = self.now + STOP_GRACE_SECONDS + FAREWELL_SECONDS
        else:
            self._leaving = True
