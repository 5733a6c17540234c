"""One run: its plan, its readiness, its attempts, and what they make of it.

Theory of operation. Readiness (`dag`) holds for every task whether it is decided. A task is decided when it
succeeded, when it is disabled (its successors see through it), or when it will never succeed: then everything
that depends on it is decided with it and gets no record. An undecided task is exactly one of: waiting for its
needs, ready (queued, delayed or waiting for a retry; the dispatcher and the deadlines know), or live, which
means that it has an attempt in `live`. Nothing here knows of workers, queues or time beyond what it is handed.
A run read back from the store is rebuilt by walking the same decisions over the recorded attempts.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from dsfast.engine.plan import Plan
from dsfast.engine.states import Step
from dsfast.model import AttemptState, OnFailure, RunState
from dsfast.rows import AttemptRow, RunRow
from dsfast.wire.commands import Attempt


class Live:
    """An attempt that has not ended. Without a worker it was given back unstarted and waits in the queue."""

    __slots__ = ("key", "kill_reason", "row")

    def __init__(self, row: AttemptRow) -> None:
        self.row = row
        self.key: Attempt = (row.run_id, row.task, row.attempt)
        self.kill_reason: str | None = None


@dataclass(slots=True)
class Restored:
    """What a run read back needs next: tasks to open (with the wall time they wait for), attempts to adopt."""

    open: list[tuple[int, float]]
    adopt: list[Live]


class Run:
    """The state of one run, and the decisions that concern it alone."""

    __slots__ = (
        "_inputs", "counts", "dag", "delayed", "failing", "failovers", "failures", "id", "live", "numbers", "outputs",
        "plan", "row",
    )  # fmt: skip

    def __init__(self, row: RunRow, plan: Plan) -> None:
        self.id = row.id
        self.row = row
        self.plan = plan
        self.dag = plan.dag()
        self.live: dict[int, Live] = {}
        self.numbers = array("i", bytes(4 * len(plan)))  # the last attempt's number, 0 for none
        self.failures: dict[int, int] = {}
        self.failovers: dict[int, int] = {}
        self.outputs: dict[int, bytes] = {}
        self.delayed: set[int] = set()
        self.counts: dict[AttemptState, int] = {}
        self.failing = False  # a task has failed for good and the workflow says to stop then
        self._inputs: bytes | None = None

    @property
    def stopping(self) -> bool:
        """Nothing new may start."""
        return self.failing or self.row.state is RunState.READY_STOP

    @property
    def over(self) -> bool:
        return not self.live and (self.stopping or self.dag.remaining == 0)

    def begin(self) -> list[int]:
        """The tasks that are ready at the start."""
        return self.see_through(self.dag.ready())

    def see_through(self, ready: list[int]) -> list[int]:
        """Of these ready tasks, and of those behind disabled ones, the ones to run."""
        traits = self.plan.traits
        if all(traits[task].enabled for task in ready):
            return ready
        found, frontier = [], list(ready)
        while frontier:
            task = frontier.pop()
            if traits[task].enabled:
                found.append(task)
            else:
                frontier.extend(self.dag.settle(task))
        return sorted(found)

    def bind(self, task: int, worker: str, wall: float) -> Live:
        """A new attempt of the task on this worker, or the one that was given back, bound anew."""
        live = self.live.get(task)
        if live is None:
            self.numbers[task] += 1
            live = Live(AttemptRow(self.id, task, self.numbers[task], AttemptState.SUBMITTED))
            self.live[task] = live
        live.row.worker = worker
        live.row.dispatched_at = wall
        live.row.reason = ""
        return live

    def awaits(self, worker: str, key: Attempt) -> Live | None:
        """The live attempt with this key if it is bound to this worker; None for echoes, repeats and strangers."""
        live = self.live.get(key[1])
        return live if live is not None and live.row.attempt == key[2] and live.row.worker == worker else None

    def succeed(self, task: int, outputs: bytes | None) -> list[int]:
        """The task is done; the tasks to run that became ready."""
        if outputs and self.plan.names[task] in self.plan.positions:
            self.outputs[task] = outputs
        return self.see_through(self.dag.settle(task))

    def may_retry(self, task: int) -> float | None:
        """Count a failure; seconds until the next try, or None if it has failed for good."""
        failures = self.failures[task] = self.failures.get(task, 0) + 1
        retry = self.plan.traits[task].retry
        return retry.wait(failures) if failures <= retry.limit else None

    def wait_max(self, task: int) -> float:
        """Seconds that the task may wait for its next try, however wrong the clock of a master is or was."""
        failures, traits = self.failures.get(task, 0), self.plan.traits[task]
        return traits.retry.wait(failures) if failures else traits.delay

    def may_fail_over(self, task: int, limit: int) -> bool:
        """Count a loss; whether the task may go to another worker without that being a failure of its own."""
        losses = self.failovers[task] = self.failovers.get(task, 0) + 1
        return losses <= limit

    def give_up(self, task: int) -> bool:
        """The task will never succeed, nor will anything that depends on it; whether the run must stop now for it."""
        self.dag.skip(task)
        stops = self.plan.on_failure is OnFailure.STOP and not self.stopping
        self.failing = self.failing or stops
        return stops

    def count(self, state: AttemptState, change: int = 1) -> None:
        self.counts[state] = self.counts.get(state, 0) + change

    def end_step(self) -> Step:
        """How a run that is over has ended: a cancel counts only if something was killed or held back by it."""
        killed, failed = self.counts.get(AttemptState.KILLED, 0), self.counts.get(AttemptState.FAILED, 0)
        if self.row.state is RunState.READY_STOP and (killed or self.dag.remaining):
            return Step.KILL
        return Step.FAIL if failed or killed else Step.SUCCEED

    def inputs(self, task: int) -> bytes:
        """What the task's templates and environment are filled from, as JSON; empty if there is nothing."""
        if task in self.plan.uses:
            return self._inputs_with_outputs(task)
        if self._inputs is None:
            params = self.plan.merged_params(msgspec.json.decode(self.row.params))
            self._inputs = msgspec.json.encode({"params": params}) if params else b""
        return self._inputs

    def _inputs_with_outputs(self, task: int) -> bytes:
        params: dict[str, Any] = self.plan.merged_params(msgspec.json.decode(self.row.params))
        tasks = {name: msgspec.Raw(self.outputs.get(self.plan.positions[name], b"{}")) for name in self.plan.uses[task]}
        return msgspec.json.encode({"params": params, "tasks": tasks})

    def restore(self, rows: Iterable[AttemptRow]) -> Restored:
        """Rebuild from the recorded attempts, which come by task and attempt."""
        latest: dict[int, AttemptRow] = {}
        for row in rows:
            latest[row.task] = row
            self.numbers[row.task] = row.attempt
            if row.state is AttemptState.FAILED:
                self.failures[row.task] = self.failures.get(row.task, 0) + 1
            elif row.state is AttemptState.FAILOVER:
                self.failovers[row.task] = self.failovers.get(row.task, 0) + 1
        restored = Restored([], [])
        frontier = self.dag.ready()
        while frontier:
            frontier.extend(self._restore_task(frontier.pop(), latest, restored))
        return restored

    def _restore_task(self, task: int, latest: dict[int, AttemptRow], restored: Restored) -> list[int]:
        row, traits = latest.get(task), self.plan.traits[task]
        if not traits.enabled:
            return self.dag.settle(task)
        if row is None:
            restored.open.append((task, self._ready_since(task, latest) + traits.delay if traits.delay else 0.0))
        elif row.state is AttemptState.SUCCEEDED:
            self.count(row.state)
            if row.outputs and self.plan.names[task] in self.plan.positions:
                self.outputs[task] = row.outputs
            return self.dag.settle(task)
        elif row.state is AttemptState.FAILOVER:
            restored.open.append((task, 0.0))
        elif row.state is AttemptState.FAILED and self.failures[task] <= traits.retry.limit:
            restored.open.append((task, (row.ended_at or 0.0) + traits.retry.wait(self.failures[task])))
        elif row.state.final:
            self.count(row.state)
            self.give_up(task)
        else:
            self.live[task] = Live(row)
            restored.adopt.append(self.live[task])
        return []

    def _ready_since(self, task: int, latest: dict[int, AttemptRow]) -> float:
        """When the last of its needs ended; disabled ones are seen through."""
        since, frontier, seen = self.row.created_at, [task], {task}
        while frontier:
            for need in self.dag.predecessors(frontier.pop()):
                if need in latest:
                    since = max(since, latest[need].ended_at or 0.0)
                elif need not in seen:
                    seen.add(need)
                    frontier.append(need)
        return since
