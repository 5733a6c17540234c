"""Showing a run without a terminal: nothing, one line per event, or one JSON object per event."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec

from dsfast.cli.output import colored, end_line, note, safe, say
from dsfast.ids import run_text
from dsfast.model import Workflow
from dsfast.rows import RunRow
from dsfast.runtime.embedded import Embedded
from dsfast.views import ATTEMPT_WORDS, RunView, timestamp

FAILURES_SHOWN_MAX = 5  # tasks whose log is quoted; who has more failures looks at the first ones first
TAIL_LINES = 20


class TaskEvent(msgspec.Struct, frozen=True):
    """A task of the run has come to a state."""

    event: str
    run: str
    task: str
    attempt: int
    state: str
    exit_code: int | None
    reason: str
    at: str | None


class RunEvent(msgspec.Struct, frozen=True):
    """The run has ended; `run` is all that is known of it."""

    event: str
    run: RunView


class Silent:
    """-o json: one document at the end."""

    async def look(self, embedded: Embedded, run_id: int) -> None:
        pass

    async def finish(self, embedded: Embedded, run: RunRow, view: RunView) -> None:
        say(msgspec.json.encode(view).decode())


class News:
    """Finds out what has happened since the last look. States that lasted less than a look may be left out."""

    def __init__(self, workflow: Workflow) -> None:
        self._names = [task.name for task in workflow.tasks]
        self._seen: dict[tuple[int, int], str] = {}

    def since(self, embedded: Embedded, run_id: int) -> Iterator[TaskEvent]:
        """What attempts have come to."""
        for row in embedded.news(run_id):
            word = ATTEMPT_WORDS[row.state]
            if self._seen.get((row.task, row.attempt)) != word:
                self._seen[row.task, row.attempt] = word
                at = timestamp(row.ended_at or row.started_at or row.dispatched_at)
                yield TaskEvent(
                    "task", run_text(run_id), self._names[row.task], row.attempt, word, row.exit_code, row.reason, at
                )


class Events:
    """-o jsonl: one JSON object per event, the last one being the whole run."""

    def __init__(self, workflow: Workflow) -> None:
        self._news = News(workflow)

    async def look(self, embedded: Embedded, run_id: int) -> None:
        self._print(embedded, run_id)

    async def finish(self, embedded: Embedded, run: RunRow, view: RunView) -> None:
        self._print(embedded, run.id)
        say(msgspec.json.encode(RunEvent("run", view)).decode())

    def _print(self, embedded: Embedded, run_id: int) -> None:
        for event in self._news.since(embedded, run_id):
            say(msgspec.json.encode(event).decode())


class Lines:
    """-o table without a terminal: a line when a task starts and when it ends, for logs of cron and CI."""

    def __init__(self, workflow: Workflow) -> None:
        self._news = News(workflow)
        self._announced = False

    async def look(self, embedded: Embedded, run_id: int) -> None:
        if not self._announced:
            self._announced = True
            say(f"run {run_text(run_id)}")
        self._print(embedded, run_id)

    async def finish(self, embedded: Embedded, run: RunRow, view: RunView) -> None:
        self._print(embedded, run.id)
        say_end(embedded, run, view)

    def _print(self, embedded: Embedded, run_id: int) -> None:
        for event in self._news.since(embedded, run_id):
            if event.state not in ("queued", "dispatched"):
                again = f" (attempt {event.attempt})" if event.attempt > 1 else ""
                reason = f": {safe(event.reason)}" if event.reason else ""
                clock = datetime.now().astimezone().strftime("%H:%M:%S")
                say(f"{clock} {safe(event.task)} {colored(event.state)}{again}{reason}")


def say_end(embedded: Embedded, run: RunRow, view: RunView) -> None:
    """Why it failed, with the last lines of logs, then one line about the whole run."""
    assert isinstance(view.tasks, list)
    failed = [(place, task) for place, task in enumerate(view.tasks) if task.state == "failed"]
    for place, task in failed[:FAILURES_SHOWN_MAX]:
        assert task.attempt is not None
        note(f"\n{safe(task.name)} {colored('failed')}: {safe(task.reason)}")
        for line in _tail(embedded, (run.id, place, task.attempt)):
            note(f"  | {line}")
    if len(failed) > FAILURES_SHOWN_MAX:
        note(f"\n{len(failed) - FAILURES_SHOWN_MAX} more tasks failed")
    say(end_line(view))


def _tail(embedded: Embedded, key: tuple[int, int, int]) -> list[str]:
    from dsfast.errors import NotFound

    try:
        return [safe_line(line) for line in embedded.logs.tail_lines(key, TAIL_LINES)]
    except NotFound:
        return []


def safe_line(line: str) -> str:
    """A line of a log without what could steer a terminal."""
    import click

    return "".join(letter if letter.isprintable() or letter == "\t" else "" for letter in click.unstyle(line))
