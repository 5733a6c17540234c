"""Engines by hand: a master with pretended workers, and a worker with pretended masters, one step at a time."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import msgspec

from dsfast.engine import events as ev
from dsfast.engine.effects import MasterEffects, WorkerEffects
from dsfast.engine.master import MasterEngine, MasterSettings
from dsfast.engine.worker import WorkerEngine
from dsfast.model import AttemptState, Member, Outcome, RunState, Task, Workflow, canonical
from dsfast.rows import AttemptRow, Committed
from dsfast.sim.store import MemoryStore, copy_batch
from dsfast.wire import commands as cmd

WALL = 1_750_000_000.0
CLIENT = "client@1"


def task(name: str, *needs: str, **traits: Any) -> Task:
    """A noop task."""
    if "config" in traits:
        traits["config"] = msgspec.Raw(msgspec.json.encode(traits["config"]))
    return Task(name=name, type="noop", needs=needs, **traits)


def flow(*tasks: Task, **traits: Any) -> Workflow:
    """A workflow of these tasks."""
    return Workflow(name=traits.pop("name", "flow"), tasks=tasks, **traits)


def worker(name: str, *, slots: int = 4, groups: tuple[str, ...] = ("default",), weight: int = 100) -> Member:
    """A worker in its first life."""
    return Member("worker", name, "1", name, 2, groups, slots, weight)


class Desk:
    """A master engine, a store, and time that passes only when told."""

    def __init__(self, *workers: Member, name: str = "m", store: MemoryStore | None = None, **settings: Any) -> None:
        settings = {"policy": "round_robin", "absent_seconds": 10.0} | settings
        self.me = Member("master", name, "1", name, 1)
        self.engine = MasterEngine(self.me, MasterSettings(**settings), random.Random(7))
        self.core = self.engine.core
        self.store = store or MemoryStore()
        self.now = 1000.0
        self.committed = Committed()
        self.members = {self.me.id: self.me}
        self.step(ev.Members((self.me,)))
        self.step(after=self.core.settings.absent_seconds)  # it has looked for runs once more
        for each in workers:
            self.link(each)

    def step(self, *events: ev.Event, after: float = 0.0) -> MasterEffects:
        """A turn, `after` seconds after the last one; what it wants durable is durable when this returns."""
        self.now += after
        fx = self.engine.step(events, self.now, WALL + self.now)
        self.engine.sanity_check()
        self.committed = self.store.commit(copy_batch(fx.batch))
        return fx

    def link(self, member: Member, credit: int | None = None) -> MasterEffects:
        """The registry shows this worker, a link to it comes up, and it grants credit."""
        self.members[member.id] = member
        granted = self.said(member.name, cmd.Credit(member.slots if credit is None else credit))
        return self.step(self.view(), ev.LinkUp(member), granted)

    def view(self) -> ev.Members:
        """What the registry shows."""
        return ev.Members(tuple(member for _, member in sorted(self.members.items())))

    def join(self, member: Member, *events: ev.Event) -> MasterEffects:
        """The registry shows one more member."""
        self.members[member.id] = member
        return self.step(self.view(), *events)

    def leave(self, name: str) -> MasterEffects:
        """The registry shows this member no longer."""
        del self.members[f"{name}@1"]
        return self.step(self.view())

    def unlink(self, name: str) -> MasterEffects:
        return self.step(ev.LinkDown(f"{name}@1"))

    def said(self, name: str, command: cmd.Command) -> ev.Received:
        """What a worker says."""
        return ev.Received(f"{name}@1", 0, command)

    def hears(self, name: str, command: cmd.Command) -> MasterEffects:
        """A worker says something."""
        return self.step(self.said(name, command))

    def ask(self, command: cmd.Command) -> MasterEffects:
        """A client asks something."""
        return self.step(ev.Received(CLIENT, 5, command))

    def submit(self, workflow: Workflow, params: bytes = b"{}", **traits: Any) -> MasterEffects:
        """A client submits a workflow; the turn's effects."""
        return self.ask(cmd.Submit(canonical(workflow), params, **traits))

    def start(self, workflow: Workflow, params: bytes = b"{}", **traits: Any) -> int:
        """Submit a workflow; its run id."""
        fx = self.submit(workflow, params, **traits)
        answer = answers(fx)[0]
        assert isinstance(answer, cmd.Submitted), answer
        return answer.run_id

    def ended(
        self, name: str, key: cmd.Attempt, state: AttemptState = AttemptState.SUCCEEDED, **how: Any
    ) -> MasterEffects:
        """A worker reports the end of an attempt."""
        return self.step(self.end(name, key, state, **how))

    def end(self, name: str, key: cmd.Attempt, state: AttemptState = AttemptState.SUCCEEDED, **how: Any) -> ev.Received:
        how.setdefault("ended_at", WALL + self.now)
        return self.said(name, cmd.Result(*key, Outcome(state, **how)))

    def started(self, name: str, key: cmd.Attempt) -> ev.Received:
        return self.said(name, cmd.Started(*key, WALL + self.now))

    def state(self, run_id: int) -> RunState:
        """The run's durable state."""
        return self.store.runs[run_id].state

    def rows(self, run_id: int) -> dict[tuple[int, int], AttemptRow]:
        """The run's durable attempts, by task and number."""
        return {key[1:]: row for key, row in sorted(self.store.attempts.get(run_id, {}).items())}

    def states(self, run_id: int) -> dict[tuple[int, int], AttemptState]:
        return {key: row.state for key, row in self.rows(run_id).items()}

    def successor(self, *workers: Member, name: str = "n") -> Desk:
        """Another master that takes over everything from the store; this one is dead."""
        desk = Desk(*workers, name=name, store=self.store)
        desk.now = self.now
        desk.claim()
        return desk

    def claim(self) -> MasterEffects:
        """Take over what others own."""
        return self.step(ev.Claimed(self.store.claim(self.me.id, {self.me.id}, lambda run: True)))


def sent(fx: MasterEffects | WorkerEffects, kind: type[Any], to: str | None = None) -> list[Any]:
    """The commands of this kind in a turn's sends, to anyone or to one peer by name."""
    return [c for peer, _, c in fx.sends if isinstance(c, kind) and (to is None or peer.partition("@")[0] == to)]


def answers(fx: MasterEffects) -> list[cmd.Command]:
    """What a turn answers to the client."""
    return [command for peer, request_id, command in fx.sends if peer == CLIENT and request_id == 5]


def dispatched(fx: MasterEffects) -> list[tuple[str, str, int]]:
    """(worker, task name, attempt) of all dispatches in a turn, in order."""
    return [
        (peer.partition("@")[0], command.name, command.attempt)
        for peer, _, command in fx.sends
        if isinstance(command, cmd.Execute)
    ]


def keys(fx: MasterEffects) -> list[cmd.Attempt]:
    """The attempts dispatched in a turn, in order."""
    return [(c.run_id, c.task, c.attempt) for c in sent(fx, cmd.Execute)]


class Bench:
    """A worker engine and time that passes only when told."""

    def __init__(self, *masters: str, slots: int = 2, groups: tuple[str, ...] = ("default",)) -> None:
        self.me = worker("w", slots=slots, groups=groups)
        self.engine = WorkerEngine(self.me)
        self.now = 50.0
        for name in masters:
            self.link(name)

    def step(self, *events: ev.Event, after: float = 0.0) -> WorkerEffects:
        self.now += after
        fx = self.engine.step(events, self.now)
        self.engine.sanity_check()
        return fx

    def link(self, name: str) -> WorkerEffects:
        return self.step(ev.LinkUp(Member("master", name, "1", name, 1)))

    def unlink(self, name: str) -> WorkerEffects:
        return self.step(ev.LinkDown(f"{name}@1"))

    def hears(self, name: str, *commands: cmd.Command) -> WorkerEffects:
        """A master says something."""
        return self.step(*(ev.Received(f"{name}@1", 0, command) for command in commands))

    def started(self, key: cmd.Attempt, timeout: float | None = None) -> WorkerEffects:
        return self.step(ev.AttemptStarted(key, WALL + self.now, timeout))

    def ended(self, key: cmd.Attempt, state: AttemptState = AttemptState.SUCCEEDED, **how: Any) -> WorkerEffects:
        return self.step(ev.AttemptEnded(key, Outcome(state, ended_at=WALL + self.now, **how)))


def execute(run_id: int = 1, position: int = 0, attempt: int = 1, epoch: int = 1) -> cmd.Execute:
    """A dispatch as a worker gets it."""
    return cmd.Execute(run_id, position, attempt, epoch, f"t{position}", b'{"type":"noop"}')


def positions(started: Iterable[cmd.Execute]) -> list[int]:
    """The tasks of these dispatches."""
    return [each.task for each in started]
