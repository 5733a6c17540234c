"""What happened in a world, line by line, kept cheaply and told only when a check fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dsfast.engine import events as ev
from dsfast.rows import AttemptRow, RunRow
from dsfast.sim.clock import Clock

LINES_TOLD = 400  # of the tale of a failure: the last ones matter
_BY_KEY = (ev.AttemptStarted, ev.AttemptEnded, ev.AttemptRefused)


class Story:
    """All that happened, in order. A line concerns one run, one task of it, or everybody (run None)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lines: list[tuple[float, str, str, Any, int | None, int | None]] = []

    def tell(self, who: str, what: str, about: Any = "", run: int | None = None, task: int | None = None) -> None:
        """Note a line. `about` is turned into text now if it may change later, that is, if it is a row."""
        if isinstance(about, (RunRow, AttemptRow)):
            about = brief(about)
        self._lines.append((self._clock.now, who, what, about, run, task))

    def hear(self, who: str, event: object) -> None:
        """Note an event that an engine is told."""
        if isinstance(event, ev.Received):
            command = event.command
            self.tell(who, "hears", (event.peer_id, command), *concerns(command))
        elif isinstance(event, _BY_KEY):
            self.tell(who, "hears", event, event.key[0], event.key[1])
        elif not isinstance(event, (ev.Members, ev.Claimed)):
            self.tell(who, "hears", event)
        elif isinstance(event, ev.Claimed):
            self.tell(who, "hears", f"Claimed {[owned.run.id for owned in event.runs]}")
        else:
            self.tell(who, "hears", f"Members {[member.id for member in event.members]}")

    def lines(self, run: int | None = None, task: int | None = None) -> Iterator[str]:
        """The lines that concern this task of this run; all without a run."""
        for at, who, what, about, its_run, its_task in self._lines:
            if task is not None and its_task not in (None, task):
                continue
            line = f"{at:11.6f} {who:14} {what:10} {about}"
            if run in (None, its_run) or (its_run is None and (_is_fate(what, about) or str(run) in line)):
                yield line

    def last_lines(self, run: int | None, task: int | None) -> str:
        """The end of the tale."""
        return "\n".join(list(self.lines(run, task))[-LINES_TOLD:])


def _is_fate(what: str, about: object) -> bool:
    """Whether this decides about everybody: daemons and links that come and go."""
    return what not in ("hears", "sends") or isinstance(about, (ev.LinkDown, ev.PeerDead, ev.SessionChanged))


def concerns(command: object) -> tuple[int | None, int | None]:
    """The run and task that a command is about."""
    return getattr(command, "run_id", None), getattr(command, "task", None)


def brief(row: RunRow | AttemptRow) -> str:
    """A row in one short line."""
    if isinstance(row, RunRow):
        return f"run {row.id} {row.state.name} of {row.owner} in epoch {row.epoch}: {row.reason}"
    return f"attempt {row.run_id}.{row.task}.{row.attempt} {row.state.name} on {row.worker}: {row.reason}"
