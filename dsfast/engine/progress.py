"""How far a run is, for those who watch it in the same process."""

from __future__ import annotations

from dataclasses import dataclass

from dsfast.engine.run import Run
from dsfast.model import AttemptState, RunState


@dataclass(frozen=True, slots=True)
class Progress:
    """A run at one moment. `counts` by word: succeeded, failed, killed, running, dispatched, delayed, remaining."""

    state: RunState
    total: int
    counts: dict[str, int]
    running: list[tuple[str, int, float]]  # name, attempt, start (wall clock)


RUNNING_SHOWN_MAX = 32  # a terminal shows no more lines than this


def progress(run: Run) -> Progress:
    """What the run has done and is doing."""
    live = list(run.live.values())
    running = [each.row for each in live if each.row.state is AttemptState.RUNNING]
    dispatched = sum(each.row.state is AttemptState.DISPATCHED for each in live)
    counts = {state.name.lower(): count for state, count in run.counts.items()}
    counts |= {"running": len(running), "dispatched": dispatched, "delayed": len(run.delayed)}
    counts["remaining"] = run.dag.remaining
    shown = [(run.plan.names[row.task], row.attempt, row.started_at or 0.0) for row in running[:RUNNING_SHOWN_MAX]]
    return Progress(run.row.state, len(run.plan), counts, shown)
