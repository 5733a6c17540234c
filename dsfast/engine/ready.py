"""Tasks that are ready to go, in order: run priority, then run order, then task priority, then arrival.

Two levels, because the order has two: a queue of runs, and in each run a queue of its tasks. A run's urgency
is its id, which grows with time, plus AGEING for each step of lower priority: so a run of the next lower
priority goes first once it has waited AGEING longer, and LOWEST still moves. Dropping a run is one removal.
"""

from __future__ import annotations

from dsfast._core.queue import PriorityQueue
from dsfast.model import Priority

AGEING_MS = 600_000  # what one step of priority is worth in waiting: ten minutes, the scale of a batch window
ID_TIME_SHIFT = 22  # a run id counts milliseconds above this bit (ids.py)


def urgency(run_id: int, priority: Priority) -> int:
    """A run's place among runs; the lower goes first."""
    return run_id + (int(priority) * AGEING_MS << ID_TIME_SHIFT)


class ReadyQueue:
    """The ready tasks of one worker group, of all runs."""

    __slots__ = ("_count", "_runs", "_tasks")

    def __init__(self) -> None:
        self._runs: PriorityQueue[int] = PriorityQueue()
        self._tasks: dict[int, PriorityQueue[int]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, run_id: int, priority: Priority, task: int, task_priority: Priority) -> None:
        tasks = self._tasks.get(run_id)
        if tasks is None:
            tasks = self._tasks[run_id] = PriorityQueue()
            self._runs.push(run_id, urgency(run_id, priority))
        tasks.push(task, int(task_priority))
        self._count += 1

    def pop(self) -> tuple[int, int]:
        """The run and task that go next. Raises IndexError when there is none."""
        run_id = self._runs.peek()[0]
        tasks = self._tasks[run_id]
        task = tasks.pop()
        self._count -= 1
        if not tasks:
            self._drop(run_id)
        return run_id, task

    def urgency(self) -> int:
        """That of the run that goes next. Raises IndexError when there is none."""
        return self._runs.peek()[1]

    def discard(self, run_id: int) -> None:
        """Forget all tasks of a run."""
        if run_id in self._tasks:
            self._count -= len(self._tasks[run_id])
            self._drop(run_id)

    def waiting(self, run_id: int) -> int:
        """How many tasks of this run are queued here."""
        return len(self._tasks.get(run_id, ()))

    def _drop(self, run_id: int) -> None:
        del self._tasks[run_id]
        self._runs.remove(run_id)
