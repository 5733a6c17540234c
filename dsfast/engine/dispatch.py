"""From ready tasks to workers with credit.

Theory of operation. Every worker group has its own ready queue, so a group without workers delays nobody else.
`assignments` pairs the next task with a worker until tasks or credit run out; the caller binds each pair, which
is what takes the credit. A task that a worker refused is tried DISPATCH_TRIES times there, then elsewhere; when
every worker of the group has refused it, it waits out a growing back-off and starts afresh. While it waits it is
in no queue: the caller holds its deadline, and the tasks behind it go on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from dsfast.engine.balance import Policy
from dsfast.engine.ready import ReadyQueue
from dsfast.engine.run import Run
from dsfast.engine.workers import Worker
from dsfast.model import Member

DISPATCH_TRIES = 3  # refusals by one worker before the task is offered to the next
RETRY_HERE_SECONDS = 0.1  # between tries on one worker: long enough for a burst of processes to pass
BACKOFF_SECONDS = 1.0  # after a whole group has refused, doubling
BACKOFF_SECONDS_MAX = 60.0


@dataclass(slots=True)
class Refusals:
    """Who has refused a task since it was last put off, and how often all have."""

    counts: dict[str, int] = field(default_factory=dict)
    rounds: int = 0
    prefer: str = ""

    def excludes(self, worker_id: str) -> bool:
        return self.counts.get(worker_id, 0) >= DISPATCH_TRIES


class Room:
    """Workers that may take one more attempt. Those that have filled up since leave when they are met.

    So a task among a thousand workers that wait for one costs two looks, and not a thousand.
    """

    __slots__ = ("_fits", "_ids", "workers")

    def __init__(self, fits: Callable[[Worker], bool], workers: Iterable[Worker] = ()) -> None:
        self._fits = fits
        self.workers = list(workers)
        self._ids = {worker.id for worker in self.workers}

    def add(self, worker: Worker) -> None:
        if worker.id not in self._ids:
            self._ids.add(worker.id)
            self.workers.append(worker)

    def discard(self, worker: Worker) -> None:
        if worker.id in self._ids:
            self._ids.discard(worker.id)
            self.workers.remove(worker)

    def choose(self, policy: Policy) -> Worker | None:
        """One that does take one more, by the policy; None if there is none."""
        workers = self.workers
        while workers:
            worker = policy.choose(workers) if len(workers) > 1 else workers[0]
            if self._fits(worker):
                return worker
            self.discard(worker)
        return None

    def willing(self, refusals: Refusals) -> list[Worker]:
        """Those that have room and have not refused too often."""
        return [each for each in self.workers if self._fits(each) and not refusals.excludes(each.id)]


class Group:
    """One worker group: its ready tasks, its workers, those of them that may have a free slot, its policy."""

    __slots__ = ("hungry", "name", "policy", "queue", "slots", "workers")

    def __init__(self, name: str, policy: Policy) -> None:
        self.name = name
        self.policy = policy
        self.queue = ReadyQueue()
        self.workers: dict[str, Worker] = {}
        self.slots = Room(_has_slot)
        self.hungry = False

    def urgency(self) -> int:
        """That of its next task: on workers that groups share, the most urgent is served first."""
        return self.queue.urgency()

    def usable(self) -> list[Worker]:
        """Workers that could be given tasks if they had credit."""
        return [worker for worker in self.workers.values() if worker.linked and not worker.draining]


class Dispatcher:
    """All groups and workers of a master."""

    def __init__(self, runs: Mapping[int, Run], policy: Callable[[random.Random], Policy], rng: random.Random) -> None:
        self._runs = runs
        self._new_policy = policy
        self._rng = rng
        self.groups: dict[str, Group] = {}
        self.workers: dict[str, Worker] = {}
        self.refusals: dict[tuple[int, int], Refusals] = {}

    def group(self, name: str) -> Group:
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = Group(name, self._new_policy(self._rng))
        return group

    def add_worker(self, member: Member) -> Worker:
        """The worker with this identity, made known to its groups."""
        worker = self.workers.get(member.id)
        if worker is None:
            worker = self.workers[member.id] = Worker(member)
        worker.member = member
        for name in member.groups:
            self.group(name).workers[worker.id] = worker
        self.gained(worker)
        return worker

    def remove_worker(self, worker: Worker) -> None:
        del self.workers[worker.id]
        for name in worker.member.groups:
            group = self.group(name)
            group.workers.pop(worker.id, None)
            group.slots.discard(worker)

    def gained(self, worker: Worker) -> None:
        """It may have a free slot now: more credit, or an attempt less."""
        for name in worker.member.groups:
            self.groups[name].slots.add(worker)

    def push(self, run: Run, task: int) -> None:
        """The task may go as soon as a worker of its group has room."""
        traits = run.plan.traits[task]
        self.group(traits.group).queue.push(run.id, run.row.priority, task, traits.priority)

    def discard(self, run: Run) -> None:
        """Take a run's tasks out of all queues."""
        for group in self.groups.values():
            group.queue.discard(run.id)
        if self.refusals:
            self.refusals = {key: value for key, value in self.refusals.items() if key[0] != run.id}

    def assignments(self) -> Iterator[tuple[Run, int, Worker]]:
        """Yield (run, task, worker) while there are tasks and room; the caller binds each before the next."""
        waiting = [group for group in self.groups.values() if group.queue]
        for group in sorted(waiting, key=Group.urgency) if len(waiting) > 1 else waiting:
            yield from self._assign_group(group)

    def _assign_group(self, group: Group) -> Iterator[tuple[Run, int, Worker]]:
        """Free slots everywhere come first; only then is what is left sent ahead, to wait at a worker."""
        yield from self._fill(group, group.slots)
        if group.queue:
            yield from self._fill(group, Room(_has_credit, filter(_has_credit, group.workers.values())))

    def _fill(self, group: Group, room: Room) -> Iterator[tuple[Run, int, Worker]]:
        unwilling: list[tuple[Run, int]] = []
        while group.queue and (worker := room.choose(group.policy)) is not None:
            run_id, task = group.queue.pop()
            run = self._runs[run_id]
            refusals = self.refusals.get((run_id, task)) if self.refusals else None
            if refusals is None:
                yield run, task, worker
            elif (willing := self._choose_willing(group, room, refusals)) is not None:
                yield run, task, willing
            else:
                unwilling.append((run, task))
        for run, task in unwilling:
            self.push(run, task)

    def _choose_willing(self, group: Group, room: Room, refusals: Refusals) -> Worker | None:
        willing = room.willing(refusals)
        if not willing and all(refusals.excludes(worker.id) for worker in group.usable()):
            refusals.counts.clear()  # whoever had not refused it is gone
            willing = room.willing(refusals)
        preferred = [worker for worker in willing if worker.id == refusals.prefer]
        return group.policy.choose(preferred or willing) if willing else None

    def refused(self, run: Run, task: int, worker_id: str, *, retry_here: bool) -> float:
        """Note that a worker gave the task back; seconds to wait before it is queued again."""
        refusals = self.refusals.setdefault((run.id, task), Refusals())
        refusals.counts[worker_id] = refusals.counts.get(worker_id, 0) + 1 if retry_here else DISPATCH_TRIES
        refusals.prefer = worker_id
        if not refusals.excludes(worker_id):
            return RETRY_HERE_SECONDS
        usable = self.group(run.plan.traits[task].group).usable()
        if any(not refusals.excludes(worker.id) for worker in usable):
            return 0.0
        refusals.counts.clear()
        refusals.rounds += 1
        return float(min(BACKOFF_SECONDS * 2 ** (refusals.rounds - 1), BACKOFF_SECONDS_MAX))

    def accepted(self, run_id: int, task: int) -> None:
        """The task runs: what was refused before no longer matters."""
        if self.refusals:
            self.refusals.pop((run_id, task), None)


def _has_slot(worker: Worker) -> bool:
    return worker.has_slot


def _has_credit(worker: Worker) -> bool:
    return worker.free > 0
