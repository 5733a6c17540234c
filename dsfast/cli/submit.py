"""`dsfast submit`: hand a workflow to a cluster, and stay or go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import click

from dsfast.cli.exits import RUN_EXITS
from dsfast.cli.options import output_option, priority_option, read_params, run_parameters, with_config
from dsfast.cli.output import colored, end_line, note, print_json, safe, say
from dsfast.cli.remote import api_option, connect
from dsfast.client import Client
from dsfast.config import Config
from dsfast.errors import Problem, UsageError
from dsfast.views import RunView, TaskView

STDIN = "<stdin>"


@click.command()
@click.argument("file", type=click.File("rb"))
@run_parameters
@priority_option
@click.option("--idempotency-key", metavar="KEY", help="The same key again answers with the run that it started.")
@click.option("--wait", "stay", flag_value="wait", help="Wait for the end; exit as `dsfast wait` does.")
@click.option("--follow", "stay", flag_value="follow", help="Like --wait, and print what happens.")
@output_option("table", "json", "jsonl", "quiet")
@api_option
@with_config
def submit(
    config: Config,
    file: IO[bytes],
    params: tuple[str, ...],
    params_file: str | None,
    priority: str | None,
    idempotency_key: str | None,
    stay: str | None,
    output: str,
    api: str | None,
) -> None:
    """Hand a workflow to a cluster.

    FILE is a YAML or JSON file, or - for standard input. The answer comes once the run is durable.
    """
    text = _text(file)
    values = read_params(params, params_file)
    with connect(config, api) as client:
        run = client.submit_yaml(text, values, priority=priority, idempotency_key=idempotency_key, source=_name(file))
        if stay is None:
            _announce(run, output)
            return
        note(f"run {run.id}")
        ended = _follow(client, run, output) if stay == "follow" else client.wait(run.id)
    assert ended is not None
    show_end(ended, output)
    click.get_current_context().exit(RUN_EXITS[ended.state])


def _name(file: IO[bytes]) -> str:
    name = getattr(file, "name", STDIN)
    return "standard input" if name == STDIN else str(name)


def _text(file: IO[bytes]) -> str:
    try:
        return file.read().decode()
    except UnicodeDecodeError:
        raise UsageError(Problem("is not UTF-8 text", file=_name(file))) from None


def _announce(run: RunView, output: str) -> None:
    if output == "table":
        say(f"run {run.id} {colored(run.state)}")
        note(f"watch it: dsfast status {run.id}, dsfast logs {run.id}; stop it: dsfast cancel {run.id}")
    elif output == "quiet":
        say(run.id)
    else:
        print_json(run)


def show_end(run: RunView, output: str) -> None:
    """Print a run that has ended."""
    if output == "table":
        say(end_line(run))
    elif output == "quiet":
        say(run.state)
    else:
        print_json(run)


def _follow(client: Client, run: RunView, output: str) -> RunView:
    """Print what happens to tasks until the run has ended."""
    seen: dict[str, tuple[str, int | None]] = {}
    view = run
    for view in client.changes(run.id):
        for task in _news(view, seen):
            if output in ("json", "jsonl"):
                print_json(task)
            elif output == "table":
                reason = f": {safe(task.reason)}" if task.reason else ""
                say(f"{safe(task.name)} {colored(task.state)}{reason}")
    return view


def _news(view: RunView, seen: dict[str, tuple[str, int | None]]) -> Iterator[TaskView]:
    for task in view.tasks or []:
        now = (task.state, task.attempt)
        if seen.get(task.name, ("waiting", None)) != now:
            seen[task.name] = now
            yield task
