"""What must hold whatever goes wrong: an observer who sees the store, the sockets and the processes of everybody.

It knows nothing of how engines decide. Each check names the promise it guards; a promise that is broken raises
Broken with the run and task it concerns, so that their story can be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

import msgspec

from dsfast.engine.effects import MasterEffects
from dsfast.engine.states import ATTEMPT_STEPS, RUN_STEPS, Step
from dsfast.model import AttemptState, Outcome, RunState, Workflow, parse_canonical
from dsfast.rows import AttemptRow, RunRow
from dsfast.wire import commands as cmd
from dsfast.wire.commands import Attempt
from tests.simulation.workload import Behaviour, behaviour

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.master_host import MasterHost
    from tests.simulation.worker_host import WorkerHost
    from tests.simulation.world import World

A, R = AttemptState, RunState
TIMED_OUT = "timed out"
SKEW_SECONDS = 4.5  # every host's idea of the time of day is off by up to two seconds


class Broken(AssertionError):
    """A promise was broken."""

    def __init__(self, promise: str, run: int | None = None, task: int | None = None) -> None:
        super().__init__(promise)
        self.run = run
        self.task = task


S = TypeVar("S", AttemptState, RunState)


def reachable(table: Mapping[tuple[S, Step], S]) -> dict[S, set[S]]:
    """The states that a durable row may change to: those that one or more steps lead to, and its own."""
    states = {state for state, _ in table} | set(table.values())
    after = {state: {state} for state in states}
    for _ in states:
        for (state, _step), following in table.items():
            for found in after.values():
                if state in found:
                    found.add(following)
    return after


class Checks:
    """Called by hosts and store at every step; keeps what it needs to judge."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._after = reachable(ATTEMPT_STEPS)
        self._run_after = reachable(RUN_STEPS)
        self._ran: dict[Attempt, str] = {}  # every process that ever started, and where
        self._alive: dict[tuple[int, int], Attempt] = {}
        self._ends: dict[Attempt, tuple[str, Outcome]] = {}
        self._doomed: set[Attempt] = set()  # of which a worker has said that it kills them
        self._owners: dict[tuple[int, int], str] = {}
        self._workflows: dict[str, Workflow] = {}
        self.stopped: set[int] = set()  # runs whose cancel became durable

    def workflow(self, run_id: int) -> Workflow:
        """The definition of a run, as stored."""
        digest = self._world.store.runs[run_id].digest
        if digest not in self._workflows:
            self._workflows[digest] = parse_canonical(self._world.store.definitions[digest])
        return self._workflows[digest]

    # -- the store: what is durable ------------------------------------------------------------------------------

    def run_changes(self, old: RunRow | None, new: RunRow) -> None:
        self._world.story.tell("store", "has", new, new.id)
        if new.state in (R.READY_STOP, R.STOPPED):
            _hold(new.id in self._world.client.unwanted, "nobody asked for this cancel", new.id)
            self.stopped.add(new.id)
        if old is not None and old.state.final:
            _hold(old == new, f"a run that has ended never changes: {old} to {new}", new.id)
        elif old is not None:
            legal = new.state in self._run_after[old.state]
            _hold(legal, f"a run moves along its table: {old.state.name} to {new.state.name}", new.id)
            _hold(new.epoch >= old.epoch, f"epochs grow: {old.epoch} to {new.epoch}", new.id)

    def attempt_changes(self, old: AttemptRow | None, new: AttemptRow) -> None:
        key = (new.run_id, new.task, new.attempt)
        self._world.story.tell("store", "has", new, new.run_id, new.task)
        if old is None:
            self._check_number(key)
        elif old.state.final:
            _hold(old == new, f"an attempt that has ended never changes: {old} to {new}", *key[:2])
        else:
            legal = new.state in self._after[old.state]
            _hold(legal, f"an attempt moves along its table: {old.state.name} to {new.state.name}", *key[:2])
        if new.state.final and (old is None or not old.state.final):
            self._check_end(key, new)
        if new.state is A.DISPATCHED and old != new:
            self._check_dispatch(key, new)

    def _check_number(self, key: Attempt) -> None:
        run_id, task, number = key
        earlier = [row for row in self._rows(run_id, task) if row.attempt < number]
        _hold(len(earlier) == number - 1, f"attempts are numbered without gaps: {key}", run_id, task)
        _hold(all(row.state in (A.FAILED, A.FAILOVER) for row in earlier), f"{key} follows an end", run_id, task)
        failures = sum(row.state is A.FAILED for row in earlier)
        limit = self.workflow(run_id).tasks[task].retry.limit
        _hold(failures <= limit, f"{key} is retry {failures} of {limit}", run_id, task)

    def _check_dispatch(self, key: Attempt, row: AttemptRow) -> None:
        """Not in a run that stops, and not before its time; clocks differ by up to SKEW_SECONDS."""
        run_id, at, number = key
        run, task = self._world.store.runs[run_id], self.workflow(run_id).tasks[at]
        _hold(run.state is R.RUNNING, f"{key} is dispatched in a run that is {run.state.name}", run_id, at)
        due = run.created_at + task.delay
        failures = [each for each in self._rows(run_id, at) if each.attempt < number and each.state is A.FAILED]
        if failures and failures[-1].attempt == number - 1:
            due = (failures[-1].ended_at or 0.0) + task.retry.wait(len(failures))
        early = due - (row.dispatched_at or 0.0)
        _hold(early <= SKEW_SECONDS, f"{key} is dispatched {early:.1f} s too early", run_id, at)

    def _check_end(self, key: Attempt, row: AttemptRow) -> None:
        _hold(self._alive.get(key[:2]) != key, f"{key} became {row.state.name} while its process runs", *key[:2])
        where, outcome = self._ends.get(key, (None, None))
        if row.state in (A.SUCCEEDED, A.FAILED):
            _hold(outcome is not None, f"{key} became {row.state.name} though it never ended", *key[:2])
            assert outcome is not None
            _hold(where == row.worker, f"{key} ran on {where}, not on {row.worker}", *key[:2])
            _hold((outcome.outputs or None) == row.outputs, f"{key} keeps its outputs", *key[:2])
            expected = A.FAILED if row.reason.startswith(TIMED_OUT) else outcome.state
            _hold(row.state is expected, f"{key} became {row.state.name}, its worker said {expected.name}", *key[:2])
        elif row.state is A.FAILOVER:
            life = self._world.lives.get(row.worker or "")
            gone = life is None or not life.alive or life.unlisted or life.engine.stopping  # type: ignore[attr-defined]
            _hold(gone, f"{key} was given up though its worker {row.worker} lives and is listed", *key[:2])

    def _rows(self, run_id: int, task: int) -> Iterator[AttemptRow]:
        return (row for key, row in self._world.store.attempts.get(run_id, {}).items() if key[1] == task)

    # -- masters -------------------------------------------------------------------------------------------------

    def master_stepped(self, host: MasterHost, fx: MasterEffects) -> None:
        for run_id, run in host.engine.core.runs.items():
            owner = self._owners.setdefault((run_id, run.row.epoch), host.member.id)
            _hold(owner == host.member.id, f"{owner} and {host.member.id} own the run in one epoch", run_id)

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
                    _hold(durable, "a dispatch is durable before it is sent", command.run_id, command.task)
            case cmd.ResultAck():
                self._check_acknowledged(peer, (command.run_id, command.task, command.attempt))
            case cmd.Submitted():
                _hold(command.run_id in store.runs, "a run is durable before it is answered", command.run_id)
            case cmd.Done():
                run = store.runs[command.run_id]
                asked = run.state.final or run.state is R.READY_STOP
                _hold(asked, "a cancel is durable before it is answered", command.run_id)

    def _check_acknowledged(self, worker: str, key: Attempt) -> None:
        row = self._world.store.attempt(key)
        durable = row is not None and (row.state.final or row.worker != worker)
        _hold(durable, f"the result of {key} is durable before it is acknowledged", *key[:2])

    # -- workers and their processes -----------------------------------------------------------------------------

    def worker_sends(self, host: WorkerHost, command: cmd.Command) -> None:
        run_id, task = getattr(command, "run_id", None), getattr(command, "task", None)
        self._world.story.tell(host.name, "sends", command, run_id, task)
        if isinstance(command, cmd.KillAnswer) and command.known:
            self._doomed.add((command.run_id, command.task, command.attempt))

    def process_starts(self, host: WorkerHost, execute: cmd.Execute, acts: Behaviour) -> Outcome:
        """Judge a start; returns how the process will end if nobody kills it."""
        key = (execute.run_id, execute.task, execute.attempt)
        run_id, task = key[:2]
        self._world.story.tell(host.name, "starts", key, run_id, task)
        _hold(key not in self._doomed, f"{key} starts after it was killed", run_id, task)
        _hold(key not in self._ran, f"{key} starts twice, first on {self._ran.get(key)}", run_id, task)
        _hold((run_id, task) not in self._alive, f"{key} starts beside {self._alive.get((run_id, task))}", run_id, task)
        _hold(len(host.processes) < host.member.slots, f"{host.name} has no slot for {key}", run_id, task)
        self._check_rows_at_start(host, key)
        self._check_needs(key)
        self._check_inputs(execute, acts)
        self._ran[key] = host.member.id
        self._alive[run_id, task] = key
        failures = sum(row.state is A.FAILED for row in self._rows(run_id, task))
        if failures < acts.fails:
            return Outcome(A.FAILED, 1, "as told")
        return Outcome(A.SUCCEEDED, 0, "", b'{"value": "%d.%d"}' % (task, key[2]) if acts.outputs else b"")

    def _check_rows_at_start(self, host: WorkerHost, key: Attempt) -> None:
        row = self._world.store.attempt(key)
        _hold(row is not None, f"{key} starts without a row", *key[:2])
        assert row is not None
        _hold(not row.state.final, f"{key} starts though it has ended", *key[:2])
        _hold(row.worker == host.member.id, f"{key} starts on {host.member.id}, bound to {row.worker}", *key[:2])

    def _check_needs(self, key: Attempt) -> None:
        tasks = self.workflow(key[0]).tasks
        at = {task.name: position for position, task in enumerate(tasks)}
        needs = [at[need] for need in tasks[key[1]].needs]
        while needs:
            need = needs.pop()
            if tasks[need].enabled:
                done = any(row.state is A.SUCCEEDED for row in self._rows(key[0], need))
                _hold(done, f"{key} starts before {tasks[need].name} has durably succeeded", *key[:2])
            else:
                needs.extend(at[name] for name in tasks[need].needs)

    def _check_inputs(self, execute: cmd.Execute, acts: Behaviour) -> None:
        if not acts.reads:
            return
        read = acts.reads.split(".")[1]
        given = msgspec.json.decode(execute.inputs)["tasks"][read]
        tasks = self.workflow(execute.run_id).tasks
        need = next(at for at, task in enumerate(tasks) if task.name == read)
        found = [row.outputs for row in self._rows(execute.run_id, need) if row.state is A.SUCCEEDED]
        expected = msgspec.json.decode(found[0]) if found and found[0] else {}
        _hold(given == expected, f"outputs of {read}: {given}, not {expected}", execute.run_id, execute.task)

    def process_ends(self, host: WorkerHost, key: Attempt, outcome: Outcome) -> None:
        self._world.story.tell(host.name, "ends", (key, outcome), key[0], key[1])
        del self._alive[key[:2]]
        self._ends[key] = (host.member.id, outcome)

    def process_dies(self, host: WorkerHost, key: Attempt) -> None:
        self._world.story.tell(host.name, "dies with", key, key[0], key[1])
        del self._alive[key[:2]]

    # -- the end -------------------------------------------------------------------------------------------------

    def at_end(self) -> None:
        """Every run has ended as it had to, and nobody keeps anything of it."""
        for run_id, run in self._world.store.runs.items():
            _hold(run.state.final, f"the run never ended: {run.state.name} of {run.owner}", run_id)
            _hold(run.owner is None, "an ended run has no owner", run_id)
            self._check_outcome(run)
        for host in self._world.hosts():
            self.nothing_left(host)

    def _check_outcome(self, run: RunRow) -> None:
        workflow = self.workflow(run.id)
        latest: dict[int, AttemptRow] = {}
        for key, row in sorted(self._world.store.attempts.get(run.id, {}).items()):
            latest[key[1]] = row
        stuck = [row for row in latest.values() if not row.state.final]
        _hold(not stuck, f"the run ended before {stuck}", run.id, stuck[0].task if stuck else None)
        expected = expected_state(workflow, latest, self._failures(run.id), run.id in self.stopped)
        _hold(run.state is expected, f"the run ended {run.state.name}, not {expected.name}", run.id)
        if run.id not in self.stopped and run.state is not R.SUCCEEDED:
            doomed = [
                task
                for task in workflow.tasks
                if task.enabled and hopeless(task.timeout, behaviour(task), task.retry.limit)
            ]
            _hold(bool(doomed), "a run fails only by a task that had to fail", run.id)

    def _failures(self, run_id: int) -> dict[int, int]:
        failures: dict[int, int] = {}
        for key, row in self._world.store.attempts.get(run_id, {}).items():
            failures[key[1]] = failures.get(key[1], 0) + (row.state is A.FAILED)
        return failures

    def nothing_left(self, host: Host) -> None:
        """A daemon at rest remembers nothing but definitions and epochs."""
        engine = host.engine  # type: ignore[attr-defined]
        if host.member.role == "worker":
            _hold(
                not engine.held,
                f"{host.name} still holds {list(engine.held)}",
                *next(iter(engine.held), (None, None))[:2],
            )
            left = engine.bindings or engine.queue or len(engine.deadlines) or engine.busy
            _hold(not left, f"{host.name} keeps something of attempts that are gone")
            return
        core = engine.core
        _hold(not core.runs, f"{host.name} still has runs {list(core.runs)}", next(iter(core.runs), None))
        left = {
            "starts": core.starts, "refusals": core.dispatcher.refusals,
            "deadlines": len(core.deadlines),
            "queues": [group.name for group in core.dispatcher.groups.values() if group.queue],
            "live": [worker.id for worker in core.dispatcher.workers.values() if worker.live],
            "adopting": [worker.id for worker in core.dispatcher.workers.values() if worker.adopting],
            "gone": [worker.id for worker in core.dispatcher.workers.values() if not worker.linked],
        }  # fmt: skip
        kept = {name: what for name, what in left.items() if what}
        _hold(not kept, f"{host.name} keeps {kept}")


def _hold(promise_kept: bool, promise: str, run: int | None = None, task: int | None = None) -> None:
    if not promise_kept:
        raise Broken(promise, run, task)


def hopeless(timeout: float | None, acts: Behaviour, retries: int) -> bool:
    """Whether the task may fail for good by its own doing."""
    slow = timeout is not None and acts.seconds * 1.2 >= timeout
    return slow or acts.fails > retries


def expected_state(
    workflow: Workflow, latest: dict[int, AttemptRow], failures: dict[int, int], stopped: bool
) -> RunState:
    """How a run with these last attempts must end, by the documented rules."""
    lost = {
        at for at, row in latest.items()
        if row.state is A.KILLED or (row.state is A.FAILED and failures[at] > workflow.tasks[at].retry.limit)
    }  # fmt: skip
    decided = lost | {at for at, row in latest.items() if row.state is A.SUCCEEDED}
    names = {workflow.tasks[at].name for at in lost}
    for at, task in enumerate(workflow.tasks):  # needs come before who needs them
        if names & set(task.needs):
            names.add(task.name)
            decided.add(at)
    for at, task in enumerate(workflow.tasks):
        if not task.enabled and all(need in {workflow.tasks[each].name for each in decided} for need in task.needs):
            decided.add(at)
    undecided = len(workflow.tasks) - len(decided)
    killed = any(latest[at].state is A.KILLED for at in lost)
    if stopped and (killed or undecided):
        return R.STOPPED
    if lost:
        return R.FAILED
    return R.SUCCEEDED
