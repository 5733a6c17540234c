"""`dsfast logs`: what tasks wrote."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

import click

from dsfast.cli.options import with_config
from dsfast.cli.output import note, safe
from dsfast.cli.remote import api_option, connect
from dsfast.client import Client
from dsfast.config import Config
from dsfast.errors import NotFound, Problem, Unavailable, UsageError
from dsfast.views import TaskView

PART_BYTES = 1 << 20  # of one request
TAIL_LINE_BYTES = 400  # guessed length of a line; a tail reads on backwards when it is wrong
TASKS_MAX = 1000  # of a run whose logs are printed one after another


@click.command()
@click.argument("target", metavar="RUN[/TASK]")
@click.option("-f", "--follow", is_flag=True, help="Keep printing until the attempt has ended.")
@click.option("--attempt", type=click.IntRange(1), help="Which try of the task; the latest if not given.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Only the last N lines.")
@api_option
@with_config
def logs(config: Config, target: str, follow: bool, attempt: int | None, tail: int | None, api: str | None) -> None:
    """Print what a task wrote, or what all tasks of a run wrote, one after another.

    RUN is an id, a unique beginning of one, or `last`.
    """
    run, _, task = target.partition("/")
    with connect(config, api) as client:
        if task:
            _print(_bytes(client, run, task, follow, attempt, tail))
        elif follow or attempt is not None:
            raise UsageError(Problem("name one task to follow it or to choose an attempt", hint=f"{run}/TASK"))
        else:
            _print_all(client, run, tail)


def _print_all(client: Client, run: str, tail: int | None) -> None:
    for task in _started(client, run):
        try:
            parts = _bytes(client, run, task.name, False, None, tail)
            first = next(parts, b"")
            if first:
                note(f"==> {safe(task.name)} <==")
                _print(itertools.chain([first], parts))
        except NotFound:
            continue  # of a type that writes no log
        except Unavailable as error:
            note(str(error))


def _started(client: Client, run: str) -> list[TaskView]:
    tasks = [task for task in client.tasks(run) if task.attempts]
    if len(tasks) > TASKS_MAX:
        raise UsageError(f"{len(tasks)} tasks of this run have logs; name one: dsfast logs {run}/TASK")
    return tasks


def _print(parts: Iterator[bytes]) -> None:
    out = sys.stdout.buffer
    last = b"\n"
    for part in parts:
        out.write(part)
        out.flush()
        last = part[-1:] or last
    if last != b"\n" and sys.stdout.isatty():
        out.write(b"\n")
        out.flush()


def _bytes(client: Client, run: str, task: str, follow: bool, attempt: int | None, tail: int | None) -> Iterator[bytes]:
    offset = 0 if tail is None else _tail_offset(client, run, task, attempt, tail)
    if follow:
        yield from client.follow_log(run, task, attempt=attempt, offset=offset)
        return
    while True:
        part = client.log(run, task, attempt=attempt, offset=offset, limit=PART_BYTES)
        if not part.data:
            return
        yield part.data
        attempt, offset = part.attempt, part.offset + len(part.data)


def _tail_offset(client: Client, run: str, task: str, attempt: int | None, lines: int) -> int:
    """Where the last lines begin."""
    want = max(lines * TAIL_LINE_BYTES, 1)
    while True:
        part = client.log(run, task, attempt=attempt, offset=-min(want, PART_BYTES), limit=min(want, PART_BYTES))
        end = part.offset + len(part.data)
        newlines = [place for place, byte in enumerate(part.data[:-1]) if byte == 10]
        if lines == 0:
            return end
        if len(newlines) >= lines:
            return part.offset + newlines[-lines] + 1
        if part.offset == 0 or want >= PART_BYTES:
            return part.offset
        want *= 8
