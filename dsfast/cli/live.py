"""Showing a run on a terminal: counts, a bar, and what runs at the moment, redrawn in place."""

from __future__ import annotations

import time

from rich.console import Console, Group, RenderableType
from rich.live import Live as Display
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dsfast.cli.output import safe, span
from dsfast.cli.watch import say_end
from dsfast.engine.progress import Progress
from dsfast.ids import run_text
from dsfast.model import Workflow
from dsfast.rows import RunRow
from dsfast.runtime.embedded import Embedded
from dsfast.views import RUN_WORDS, RunView

SHOWN_MAX = 10  # running tasks; more would scroll
BAR_WIDTH = 40
FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"  # of the sign that a task runs
FRAMES_PER_SECOND = 10
_STYLES = {"succeeded": "green", "failed": "red", "killed": "yellow", "running": "cyan", "delayed": "magenta"}


class Live:
    """A display of one run that keeps to a few lines."""

    def __init__(self, workflow: Workflow) -> None:
        self._name = workflow.name
        self._started = time.monotonic()
        self._display: Display | None = None

    async def look(self, embedded: Embedded, run_id: int) -> None:
        progress = embedded.progress(run_id)
        if progress is None:
            return
        if self._display is None:
            self._display = Display(console=Console(highlight=False), auto_refresh=False, transient=True)
            self._display.start()
        self._display.update(self._picture(progress, run_id), refresh=True)

    async def finish(self, embedded: Embedded, run: RunRow, view: RunView) -> None:
        if self._display is not None:
            self._display.stop()
        say_end(embedded, run, view)

    def _picture(self, progress: Progress, run_id: int) -> RenderableType:
        done = progress.total - progress.counts["remaining"]
        head = Table.grid(padding=(0, 1))
        head.add_row(
            Text(safe(self._name), style="bold"),
            Text(run_text(run_id), style="dim"),
            Text(RUN_WORDS[progress.state]),
            ProgressBar(total=max(progress.total, 1), completed=done, width=BAR_WIDTH),
            f"{done}/{progress.total}",
            Text(span(time.monotonic() - self._started), style="dim"),
        )
        return Group(head, self._counts(progress), *self._running(progress))

    def _counts(self, progress: Progress) -> Text:
        parts = [
            Text(f"{progress.counts[word]} {word}", style)
            for word, style in _STYLES.items()
            if progress.counts.get(word)
        ]
        return Text("  ").join(parts)

    def _running(self, progress: Progress) -> list[RenderableType]:
        now = time.time()
        frame = FRAMES[int(now * FRAMES_PER_SECOND) % len(FRAMES)]
        rows: list[RenderableType] = []
        for name, attempt, started_at in progress.running[:SHOWN_MAX]:
            again = f" (attempt {attempt})" if attempt > 1 else ""
            rows.append(Text(f"{frame} {safe(name)}{again}  {span(max(now - started_at, 0))}", style="cyan"))
        more = progress.counts["running"] - len(rows)
        return [*rows, Text(f"  and {more} more", style="dim")] if more > 0 else rows
