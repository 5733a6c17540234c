"""What must hold whatever goes wrong: an observer who sees the store, the sockets and the processes of everybody.

Most of it is said by the checker of `dsfast.proof`, which judges real clusters by the same rules: it is handed the
history of the world as it happens. Here is what only a simulation can see: what is about to leave a master, what a
process was given, whether a retry came too early, and what daemons keep in memory at rest. A promise that is broken
raises Broken with the run and task it concerns, so that their story can be told.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from dsfast.model import AttemptState, Outcome, RunState, Task, Workflow, parse_canonical
from dsfast.proof.checker import Checker, hold
from dsfast.proof.history import Event, Kind, plan
from dsfast.rows import AttemptRow, RunRow
from dsfast.sim.workload import Behaviour, behaviour, hopeless
from dsfast.wire import commands as cmd
from dsfast.wire.commands import Attempt

if TYPE_CHECKING:
    from dsfast.sim.master_host import MasterHost
    from dsfast.sim.worker_host import WorkerHost
    from dsfast.sim.world import World

A, R = AttemptState, RunState
SKEW_SECONDS = 6.0  # hosts differ by up to four in the time of day, and clocks drift by 2 % while a retry waits


class Checks:
    """Called by hosts, client and store at every step; keeps what it needs to judge."""

    def __init__(self, world: World) -> None:
        self.checker = Checker()
        self.history: list[Event] = []
        self._world = world
        self._doomed: set[Attempt] = set()  # of which a worker has said that it kills them
        self._believed: dict[tuple[int, int], str] = {}  # run and epoch -> the master that believes to own it
        self._workflows: dict[str, Workflow] = {}

    def workflow(self, run_id: int) -> Workflow:
        """The definition of a run, as stored."""
        digest = self._world.store.runs[run_id].digest
        if digest not in self._workflows:
            self._workflows[digest] = parse_canonical(self._world.store.definitions[digest])
        return self._workflows[digest]

    def _take(self, kind: Kind, node: str, run: int, attempt: Attempt | None = None, **more: Any) -> None:
        _, task, number = attempt or (run, None, None)
        event = Event(at=self._world.clock.now, kind=kind, node=node, run=run, task=task, attempt=number, **more)
        self.history.append(event)
        self.checker.take(event)

    # -- clients ---------------------------------------------------------------------------------------------------

    def accepted(self, run_id: int, key: str | None) -> None:
        """A client was told that its submit is this run."""
        self._take("accepted", "client", run_id, key=key)

    def cancel_asked(self, run_id: int) -> None:
        """A client is about to ask for this."""
        self._take("cancel", "client", run_id)

    # -- the store: what is durable ------------------------------------------------------------------------------

    def run_changes(self, old: RunRow | None, new: RunRow) -> None:
        """See store.Witness."""
        self._world.story.tell("store", "has", new, new.id)
        if old is None:
            workflow = parse_canonical(self._world.store.definitions[new.digest])
            event = plan(workflow, new.id, self._world.clock.now, "store")
            self.history.append(event)
            self.checker.take(event)
        key = new.idempotency_key
        self._take("run", "store", new.id, state=new.state.name, owner=new.owner, epoch=new.epoch, key=key)

    def attempt_changes(self, old: AttemptRow | None, new: AttemptRow, epoch: int) -> None:
        """See store.Witness."""
        key = (new.run_id, new.task, new.attempt)
        self._world.story.tell("store", "has", new, new.run_id, new.task)
        value = result_text(new.exit_code, new.outputs)
        self._take(
            "attempt", "store", new.run_id, key, state=new.state.name, worker=new.worker, value=value, epoch=epoch
        )
        if new.state is A.FAILOVER and old != new:
            self._check_loss(key, new)
        if new.state is A.DISPATCHED and old != new:
            self._check_dispatch(key, new)

    def _check_dispatch(self, key: Attempt, row: AttemptRow) -> None:
        """Not in a run that stops, and not before its time; clocks differ by SKEW_SECONDS if nobody sets them."""
        run_id, at, number = key
        run, task = self._world.store.runs[run_id], self.workflow(run_id).tasks[at]
        hold(run.state is R.RUNNING, f"{key} is dispatched in a run that is {run.state.name}", run_id, at)
        due = run.created_at + task.delay
        failures = [each for each in self._rows(run_id, at) if each.attempt < number and each.state is A.FAILED]
        if failures and failures[-1].attempt == number - 1:
            due = (failures[-1].ended_at or 0.0) + task.retry.wait(len(failures))
        early = due - (row.dispatched_at or 0.0)
        hold(early <= SKEW_SECONDS or self._world.jumped, f"{key} is dispatched {early:.1f} s too early", run_id, at)

    def _check_loss(self, key: Attempt, row: AttemptRow) -> None:
        """Only what its worker gave up, and what ran on a worker that others had reason to believe dead."""
        life = self._world.lives.get(row.worker or "")
        gone = life is None or not life.alive or life.leaving
        policy = self.workflow(key[0]).tasks[key[1]].on_disconnect
        ran = self.checker.runs[key[0]].attempts[key[1]][key[2]].started
        doubted = life is not None and life.doubted and (policy is None or policy.replace or not ran)
        hold(gone or doubted, f"{key} was given up though its worker {row.worker} lives and is listed", *key[:2])

    def _rows(self, run_id: int, task: int) -> Iterator[AttemptRow]:
        return (row for key, row in self._world.store.attempts.get(run_id, {}).items() if key[1] == task)

    # -- masters -------------------------------------------------------------------------------------------------

    def master_stepped(self, host: MasterHost) -> None:
        """No two believe in one epoch that a run is theirs."""
        for run_id, run in host.engine.core.runs.items():
            owner = self._believed.setdefault((run_id, run.row.epoch), host.member.id)
            hold(owner == host.member.id, f"{owner} and {host.member.id} own the run in one epoch", run_id)

    def master_sends(self, host: MasterHost, peer: str, command: cmd.Command) -> None:
        """Nothing leaves before what it promises is durable."""
        run_id = getattr(command, "run_id", None)
        self._world.story.tell(host.name, "sends", (peer, command), run_id, getattr(command, "task", None))
        store = self._world.store
        match command:
            case cmd.Execute():
                row = store.attempt((command.run_id, command.task, command.attempt))
                if store.runs[command.run_id].epoch == command.epoch:
                    durable = row is not None and row.worker == peer and row.state is A.DISPATCHED
                    hold(durable, "a dispatch is durable before it is sent", command.run_id, command.task)
            case cmd.ResultAck():
                self._check_acknowledged(peer, (command.run_id, command.task, command.attempt))
            case cmd.Submitted():
                hold(command.run_id in store.runs, "a run is durable before it is answered", command.run_id)
            case cmd.Ended():
                hold(store.runs[command.run_id].state.final, "an end is durable before it is told", command.run_id)
            case cmd.Done():
                run = store.runs[command.run_id]
                asked = run.state.final or run.state is R.READY_STOP
                hold(asked, "a cancel is durable before it is answered", command.run_id)

    def _check_acknowledged(self, worker: str, key: Attempt) -> None:
        row = self._world.store.attempt(key)
        durable = row is not None and (row.state.final or row.worker != worker)
        hold(durable, f"the result of {key} is durable before it is acknowledged", *key[:2])

    # -- workers and their processes -----------------------------------------------------------------------------

    def worker_sends(self, host: WorkerHost, command: cmd.Command) -> None:
        """Who says that it kills must not start."""
        run_id, task = getattr(command, "run_id", None), getattr(command, "task", None)
        self._world.story.tell(host.name, "sends", command, run_id, task)
        if isinstance(command, cmd.KillAnswer) and command.known:
            self._doomed.add((command.run_id, command.task, command.attempt))

    def process_starts(self, host: WorkerHost, execute: cmd.Execute, acts: Behaviour) -> Outcome:
        """Judge a start; returns how the process will end if nobody kills it."""
        key = (execute.run_id, execute.task, execute.attempt)
        run_id, task = key[:2]
        self._world.story.tell(host.name, "starts", key, run_id, task)
        hold(key not in self._doomed, f"{key} starts after it was killed", run_id, task)
        hold(len(host.processes) < host.member.slots, f"{host.name} has no slot for {key}", run_id, task)
        self._take("starts", host.name, run_id, key, worker=host.member.id)
        self._check_inputs(execute, acts)
        failures = sum(row.state is A.FAILED for row in self._rows(run_id, task))
        if failures < acts.fails:
            return Outcome(A.FAILED, 1, "as told")
        return Outcome(A.SUCCEEDED, 0, "", b'{"value": "%d.%d"}' % (task, key[2]) if acts.outputs else b"")

    def _check_inputs(self, execute: cmd.Execute, acts: Behaviour) -> None:
        if not acts.reads:
            return
        read = acts.reads.split(".")[1]
        given = msgspec.json.decode(execute.inputs)["tasks"][read]
        tasks = self.workflow(execute.run_id).tasks
        need = next(at for at, task in enumerate(tasks) if task.name == read)
        found = [row.outputs for row in self._rows(execute.run_id, need) if row.state is A.SUCCEEDED]
        expected = msgspec.json.decode(found[0]) if found and found[0] else {}
        hold(given == expected, f"outputs of {read}: {given}, not {expected}", execute.run_id, execute.task)

    def process_ends(self, host: WorkerHost, key: Attempt, outcome: Outcome) -> None:
        """Nothing of it runs any more, and it has come to something."""
        self._world.story.tell(host.name, "ends", (key, outcome), key[0], key[1])
        self._take("ends", host.name, key[0], key, value=result_text(outcome.exit_code, outcome.outputs))

    def process_dies(self, host: WorkerHost, key: Attempt) -> None:
        """It has ended with its worker, or its machine."""
        self._world.story.tell(host.name, "dies with", key, key[0], key[1])
        self._take("ends", host.name, key[0], key)

    def unfenced(self, host: WorkerHost, key: Attempt) -> None:
        """Its worker stands still: nobody can end it."""
        self._world.story.tell(host.name, "unfences", key, key[0], key[1])
        self._take("unfenced", host.name, key[0], key)

    # -- the end -------------------------------------------------------------------------------------------------

    def at_end(self) -> None:
        """Every run has ended as it had to, and nobody keeps anything of it."""
        self.checker.finish()
        for run_id, run in self.checker.runs.items():
            if run.state is R.FAILED and not run.cancelled:
                hold(self._may_fail(run_id), "a run fails only by a task that had to fail", run_id)
        for host in self._world.hosts():
            host.nothing_left()

    def _may_fail(self, run_id: int) -> bool:
        tasks = [(at, task) for at, task in enumerate(self.workflow(run_id).tasks) if task.enabled]
        return any(
            hopeless(task.timeout, behaviour(task), task.retry.limit) or self._overslept(run_id, at, task)
            for at, task in tasks
        )

    def _overslept(self, run_id: int, at: int, task: Task) -> bool:
        """Whether the time of a task ran out while its machine stood still, and that was its last try."""
        run = self.checker.runs[run_id]
        late = task.timeout is not None and any(each.unfenced and each.state is A.FAILED for each in run.of(at))
        return late and run.failures(at) > task.retry.limit


def result_text(exit_code: int | None, outputs: bytes | None) -> str | None:
    """What an attempt came to, as histories compare it; None if it came to nothing."""
    return None if exit_code is None else f"{exit_code} {(outputs or b'').decode()}".rstrip()
