"""Why a task does not run: for every task of a run that has not ended, one word and one sentence."""

from __future__ import annotations

from collections.abc import Iterator

from dsfast.engine.deadlines import Deadlines
from dsfast.engine.dispatch import Dispatcher, Group
from dsfast.engine.run import Live, Run
from dsfast.engine.workers import Worker
from dsfast.model import AttemptState, OnDisconnect
from dsfast.wire.commands import Explained

NEEDS_SHOWN = 3  # of the tasks that one waits for; the rest is a number


def explain(run: Run, dispatcher: Dispatcher, deadlines: Deadlines, now: float, limit: int) -> Explained:
    """Explain up to `limit` unfinished tasks, in order of position."""
    tasks = []
    for task in range(len(run.plan)):
        if not run.dag.decided(task):
            tasks.append((task, *_why(run, task, dispatcher, deadlines, now)))
            if len(tasks) == limit:
                break
    return Explained(tuple(tasks), run.row.reason)


def _why(run: Run, task: int, dispatcher: Dispatcher, deadlines: Deadlines, now: float) -> tuple[str, str]:
    live = run.live.get(task)
    if live is not None and live.row.worker is not None:
        return _why_live(run, live, dispatcher, now)
    needs = [need for need in run.dag.predecessors(task) if not run.dag.decided(need)]
    if needs:
        return "waiting", f"waits for {_some(run, needs)}"
    if task in run.delayed:
        return "delayed", _why_delayed(run, task, (deadlines.at(("open", run.id, task)) or now) - now)
    if run.stopping:
        return "waiting", "its run is stopping"
    return "queued", _why_queued(run, dispatcher.group(run.plan.traits[task].group))


def _why_live(run: Run, live: Live, dispatcher: Dispatcher, now: float) -> tuple[str, str]:
    worker = dispatcher.workers[live.row.worker or ""]
    if not worker.linked:
        state = "running" if live.row.state is AttemptState.RUNNING else "dispatched"
        return state, _why_out_of_reach(worker, run.plan.traits[live.row.task].on_disconnect, now)
    if live.kill_reason is not None:
        return "killing", f"being killed on worker {worker.member.name}: {live.kill_reason}"
    if live.row.state is AttemptState.RUNNING:
        return "running", f"runs on worker {worker.member.name}"
    return "dispatched", f"sent to worker {worker.member.name}, which has not said yet that it runs"


def _why_out_of_reach(worker: Worker, policy: OnDisconnect, now: float) -> str:
    since = f" for {now - worker.absent_since:.0f} s" if worker.absent_since is not None else ""
    if policy.replace:
        then = "once it must have ended the task, the task is replaced"
    else:
        then = "the task is not replaced before its worker is back or known to be dead (on_disconnect)"
    return f"worker {worker.member.name} is out of reach{since}; {then}"


def _some(run: Run, needs: list[int]) -> str:
    names = [run.plan.names[need] for need in needs[:NEEDS_SHOWN]]
    more = f" and {len(needs) - NEEDS_SHOWN} more" if len(needs) > NEEDS_SHOWN else ""
    return ", ".join(names) + more


def _why_delayed(run: Run, task: int, seconds: float) -> str:
    if task in run.live:
        return f"workers refused it ({run.live[task].row.reason}); offered again in {max(seconds, 0):.1f} s"
    if task in run.failures:
        return f"retry {run.failures[task]} of {run.plan.traits[task].retry.limit} in {max(seconds, 0):.1f} s"
    return f"starts in {max(seconds, 0):.1f} s (its delay)"


def _why_queued(run: Run, group: Group) -> str:
    if not group.workers:
        known = "no worker has joined it"
        return f"worker group {group.name!r}: {known}; start one with: dsfast worker --group {group.name}"
    return "; ".join(_why_group(group))


def _why_group(group: Group) -> Iterator[str]:
    usable = group.usable()
    if not usable:
        yield f"worker group {group.name!r}: none of its {len(group.workers)} workers is reachable and taking tasks"
        return
    slots, bound = sum(worker.member.slots for worker in usable), sum(len(worker.live) for worker in usable)
    yield f"worker group {group.name!r}: {bound} attempts on {len(usable)} workers with {slots} slots"
    yield f"{len(group.queue)} tasks queued"
