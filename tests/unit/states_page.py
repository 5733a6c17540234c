"""docs/states.md, drawn from the transition tables: `python -m tests.unit.states_page` writes it anew."""

from __future__ import annotations

from pathlib import Path

from dsfast.engine.states import ATTEMPT_STEPS, RUN_STEPS, mermaid

PAGE = Path(__file__).parents[2] / "docs" / "states.md"

TEXT = """\
# States

Both diagrams are drawn from the tables in `dsfast/engine/states.py`, which are all there is: a step that is not
here stops the daemon before anything half-decided leaves it. `python -m tests.unit.states_page` draws them anew.

## Runs

{runs}
A run is SUBMITTED until its first task is dispatched. READY_STOP is a cancel that is durable: from then on nothing
new starts, what is live is killed, and no crash can undo it. How such a run ends depends on what the cancel did:

| at the end of a cancelled run | state |
|---|---|
| something was killed, or held back (a task that never started, a retry that was due) | STOPPED |
| otherwise, a task failed for good | FAILED |
| otherwise: everything had succeeded already | SUCCEEDED |

Without a cancel a run is FAILED when a task failed for good, or ended KILLED without being asked to; else SUCCEEDED.
With `on_failure: stop` the first task that fails for good also kills the others, and the run is FAILED.

## Attempts

{attempts}
An attempt is one try of a task, bound to one life of one worker.

- *return*: the worker gave it back, or never got it. Nothing of it ran, so it is bound anew under its number.
- *lose*: its worker died or stopped. FAILOVER is final, uses up no retry, and is followed by the next attempt.
- *fail*: the task failed. While retries are left the next attempt follows after the wait that the task asks for.
- RUNNING is recorded only of attempts that run for longer than a moment; a short one goes from DISPATCHED to its end.
"""


def markdown() -> str:
    """The page."""
    return TEXT.format(runs=_fenced(mermaid(RUN_STEPS)), attempts=_fenced(mermaid(ATTEMPT_STEPS)))


def _fenced(diagram: str) -> str:
    return f"```mermaid\n{diagram}```\n"


if __name__ == "__main__":
    PAGE.write_text(markdown())
