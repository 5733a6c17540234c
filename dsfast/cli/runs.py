"""`dsfast ps`, `status`, `wait`, `cancel`: runs as the api shows them."""

from __future__ import annotations

import time

import click

from dsfast.cli.exits import RUN_EXITS, Exit
from dsfast.cli.options import output_option, with_config
from dsfast.cli.output import colored, counted, local, note, print_json, print_json_lines, safe, say, span, table
from dsfast.cli.remote import api_option, connect
from dsfast.cli.submit import show_end
from dsfast.client import Client
from dsfast.config import Config
from dsfast.config.kinds import seconds
from dsfast.views import RUN_WORDS, RunView, TaskView

_WORDS = list(RUN_WORDS.values())


@click.command()
@click.option(
    "--state", "states", multiple=True, type=click.Choice(_WORDS), help="Only runs in this state; repeatable."
)
@click.option("--workflow", metavar="NAME", help="Only runs of this workflow.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 500), help="How many.")
@output_option("table", "json", "jsonl", "quiet")
@api_option
@with_config
def ps(config: Config, states: tuple[str, ...], workflow: str | None, limit: int, output: str, api: str | None) -> None:
    """List runs, newest first."""
    with connect(config, api) as client:
        page = client.runs(states=states, workflow=workflow, limit=limit)
    if output == "json":
        print_json(page)
    elif output == "jsonl":
        print_json_lines(page.runs)
    elif output == "quiet":
        for run in page.runs:
            say(run.id)
    else:
        table(("RUN", "WORKFLOW", "STATE", "TASKS", "CREATED", "TOOK", "REASON"), map(_row, page.runs))


def _row(run: RunView) -> tuple[object, ...]:
    done = run.tasks_total - sum(run.counts.get(word, 0) for word in ("waiting", "queued", "delayed", "running"))
    return (
        run.id,
        run.workflow,
        run.state,
        f"{done}/{run.tasks_total}",
        local(run.created_at),
        span(run.duration_seconds),
        run.reason,
    )


@click.command()
@click.argument("run")
@output_option("table", "json", "jsonl", "quiet")
@api_option
@with_config
def status(config: Config, run: str, output: str, api: str | None) -> None:
    """Show a run and its tasks.

    RUN is an id, a unique beginning of one, or `last`.
    """
    with connect(config, api) as client:
        view = client.run(run, tasks=output != "quiet")
        if output == "json":
            print_json(view)
        elif output == "quiet":
            say(view.state)
        elif output == "jsonl":
            print_json_lines(_tasks(client, view))
        else:
            _show(client, view)


def _tasks(client: Client, view: RunView) -> list[TaskView]:
    return view.tasks if isinstance(view.tasks, list) else list(client.tasks(view.id))


def _show(client: Client, view: RunView) -> None:
    word = "in" if view.ended_at else "for"
    took = f" {word} {span(view.duration_seconds)}" if view.duration_seconds is not None else ""
    why = f" ({safe(view.reason)})" if view.reason else ""
    say(f"run {view.id} of {safe(view.workflow)}: {colored(view.state)}{took}{why}: {counted(view.counts)}")
    if isinstance(view.note, str):
        note(view.note)
    rows = (
        (task.name, task.state, task.attempt, task.worker, span(task.duration_seconds), task.reason)
        for task in _tasks(client, view)
    )
    table(("TASK", "STATE", "ATTEMPT", "WORKER", "TOOK", "REASON"), rows)
    if view.counts.get("failed"):
        name = next(task.name for task in _tasks(client, view) if task.state == "failed")
        note(f"see why: dsfast logs {view.id}/{name}")


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--timeout", metavar="DURATION", help="Give up after this time, such as 90s or 1h; exits with 6.")
@output_option("table", "json", "quiet")
@api_option
@with_config
def wait(config: Config, runs: tuple[str, ...], timeout: str | None, output: str, api: str | None) -> None:
    """Wait until runs have ended.

    Exits with 0 if all succeeded, 3 if one failed, 4 if one was cancelled, 6 if time was up first.
    """
    deadline = None if timeout is None else time.monotonic() + _seconds(timeout)
    codes = []
    with connect(config, api) as client:
        for run in runs:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            view = client.wait(run, left)
            if view is None:
                note(f"run {run} has not ended within {timeout}; it goes on: dsfast status {run}")
            else:
                show_end(view, output)
            codes.append(Exit.TIMEOUT if view is None else RUN_EXITS[view.state])
    order = [Exit.RUN_FAILED, Exit.RUN_CANCELLED, Exit.TIMEOUT, Exit.OK]
    click.get_current_context().exit(min(codes, key=order.index))


def _seconds(text: str) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--timeout") from None


@click.command()
@click.argument("run")
@click.option("--reason", default="", help="For those who look at the run later.")
@output_option("table", "json", "quiet")
@api_option
@with_config
def cancel(config: Config, run: str, reason: str, output: str, api: str | None) -> None:
    """Stop a run: its tasks are asked to end, and killed if they do not."""
    with connect(config, api) as client:
        answer = client.cancel(run, reason)
    if output == "json":
        print_json(answer)
    elif output == "quiet":
        say(answer.run.id)
    elif answer.changed:
        say(f"run {answer.run.id} {colored(answer.run.state)}")
        note(f"wait for its end: dsfast wait {answer.run.id}")
    else:
        say(f"run {answer.run.id} had ended already: {colored(answer.run.state)}")
