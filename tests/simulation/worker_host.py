"""A worker in the simulation: its engine, the order of dsfast.runtime.worker around it, and pretended processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsfast.engine import events as ev
from dsfast.engine.effects import KillOrder
from dsfast.engine.worker import WorkerEngine
from dsfast.model import AttemptState, Member, Outcome
from dsfast.wire.commands import Attempt, Execute
from tests.simulation.host import Host
from tests.simulation.workload import Behaviour, behaviour_of

if TYPE_CHECKING:
    from tests.simulation.world import World

STOP_GRACE_SECONDS = 5.0
FAREWELL_SECONDS = 5.0


@dataclass(slots=True)
class Process:
    """An attempt that runs."""

    key: Attempt
    started_at: float
    behaviour: Behaviour
    outcome: Outcome
    killed: bool = False


class WorkerHost(Host):
    """One life of a worker."""

    def __init__(self, world: World, member: Member) -> None:
        super().__init__(world, member)
        self.engine = WorkerEngine(member)
        self.processes: dict[Attempt, Process] = {}
        self._stop_at: float | None = None
        self._leaving = False

    def turn(self) -> None:
        events = self.take()
        while True:
            self._hurry(events)
            fx = self.engine.step(events, self.now)
            self.engine.sanity_check()
            for order in fx.kills:
                self._kill(order)
            for execute in fx.starts:
                self._start(execute)
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

    def learn_members(self, members: tuple[Member, ...]) -> None:
        """The registry's view has changed; a worker that is not listed has no view."""
        if self.alive and not self.unlisted_now:
            self.put(ev.Members(members))

    # -- pretended processes ---------------------------------------------------------------------------------

    def _start(self, execute: Execute) -> None:
        world = self.world
        key = (execute.run_id, execute.task, execute.attempt)
        behaviour = behaviour_of(execute.spec)
        if world.start_fails():
            self.put(ev.AttemptRefused(key, "out of memory"))
            return
        outcome = world.checks.process_starts(self, execute, behaviour)
        process = self.processes[key] = Process(key, self.wall, behaviour, outcome)
        if behaviour.seconds == 0:
            self._end(process, outcome)
            return
        self.put(ev.AttemptStarted(key, process.started_at, behaviour.timeout))
        world.clock.after(behaviour.seconds * world.rng.uniform(0.8, 1.2), self._end, process, outcome)

    def _kill(self, order: KillOrder) -> None:
        process = self.processes.get(order.key)
        if process is None:
            return
        wait = order.grace if process.behaviour.stubborn else order.grace * self.world.rng.random() * 0.1
        wait += self.world.rng.random() * 0.3  # to be gone, with all that it has started
        outcome = Outcome(AttemptState.KILLED, -15, order.reason, b"", process.started_at, self.wall + wait)
        self.world.clock.after(wait, self._end, process, outcome)

    def _end(self, process: Process, outcome: Outcome) -> None:
        if self.processes.get(process.key) is not process:
            return
        del self.processes[process.key]
        ended = Outcome(
            outcome.state, outcome.exit_code, outcome.reason, outcome.outputs, process.started_at, self.wall
        )
        self.world.checks.process_ends(self, process.key, ended)
        self.put(ev.AttemptEnded(process.key, ended))

    def end(self, *, refuses: bool, notice: float) -> None:
        """Processes die with their worker."""
        for key in list(self.processes):
            self.world.checks.process_dies(self, key)
        self.processes.clear()
        super().end(refuses=refuses, notice=notice)

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
