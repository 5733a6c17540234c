"""`dsfast run`: a whole workflow, from file to exit code, in this terminal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from dsfast.cli.exits import RUN_EXITS
from dsfast.cli.options import (
    output_option,
    priority_option,
    read_params,
    run_parameters,
    setting_option,
    with_config,
)
from dsfast.cli.output import note
from dsfast.config import Config, make_state_dir
from dsfast.config.sources import near
from dsfast.errors import Problem, UsageError

if TYPE_CHECKING:
    from dsfast.model import Workflow
    from dsfast.rows import RunRow
    from dsfast.runtime.embedded import Embedded
    from dsfast.views import RunView

LOOK_SECONDS = 0.1  # between two looks at the run, for people's eyes; nothing waits for them
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for."""

    workflow: Workflow
    params: dict[str, Any]
    priority: str | None


class Watcher(Protocol):
    """Shows a run while it runs, and what became of it."""

    async def look(self, embedded: Embedded, run_id: int) -> None:
        """Show how things stand; called every LOOK_SECONDS."""

    async def finish(self, embedded: Embedded, run: RunRow, view: RunView) -> None:
        """Show the end."""


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@run_parameters
@output_option("table", "json", "jsonl")
@priority_option
@setting_option("--slots", key="worker.slots", about="Tasks that may run at a time.")
@with_config
def run(
    config: Config,
    file: Path,
    params: tuple[str, ...],
    params_file: str | None,
    output: str,
    priority: str | None,
) -> None:
    """Run a workflow to its end, on this machine.

    Needs no cluster: a master and a worker live in this process for as long as the run does. Ctrl-C cancels the
    run; a second Ctrl-C kills its tasks at once. Exits with 0 if the run succeeded, 3 if it failed, 4 if it was
    cancelled.
    """
    from dsfast.formats.yaml_workflow import load_file

    workflow = load_file(file)
    order = Order(workflow, _known_params(workflow, read_params(params, params_file)), priority)
    make_state_dir(config)
    _guard()
    import uvloop

    state = uvloop.run(_run(_local(config), order, output))
    click.get_current_context().exit(RUN_EXITS[state])


def _guard() -> None:
    """Have a guardian end what tasks leave behind, before there are threads or loops."""
    from dsfast.runtime.guardian import guard

    guard([])


def _local(config: Config) -> Config:
    """The configuration of a private little cluster: its own file, free ports, loopback only."""
    return replace(
        config,
        store=replace(config.store, url=f"sqlite:///{config.state_dir}/local.db"),
        master=replace(config.master, host="127.0.0.1", port=0),
        worker=replace(config.worker, host="127.0.0.1", port=0),
    )


def _known_params(workflow: Workflow, params: dict[str, Any]) -> dict[str, Any]:
    problems = [
        Problem(
            f"workflow {workflow.name!r} has no parameter {name!r}",
            hint=near(name, workflow.params) or f"it has: {', '.join(workflow.params) or 'none'}",
        )
        for name in params
        if name not in workflow.params
    ]
    if problems:
        raise UsageError(problems)
    return params


async def _run(config: Config, order: Order, output: str) -> str:
    from dsfast.model import Priority, canonical
    from dsfast.runtime.embedded import Embedded

    watcher = _watcher(output, order.workflow)
    priority = Priority[order.priority.upper()] if order.priority else None
    async with Embedded(config) as embedded:
        run_id = await embedded.submit(canonical(order.workflow), json.dumps(order.params).encode(), priority)
        with _interruptible(embedded, run_id):
            row = await _watch(embedded, run_id, watcher)
        view = _view(embedded, order.workflow, row)
        await watcher.finish(embedded, row, view)
        return view.state


def _watcher(output: str, workflow: Workflow) -> Watcher:
    from dsfast.cli import watch

    if output == "json":
        return watch.Silent()
    if output == "jsonl":
        return watch.Events(workflow)
    if sys.stdout.isatty():
        from dsfast.cli.live import Live

        return Live(workflow)
    return watch.Lines(workflow)


async def _watch(embedded: Embedded, run_id: int, watcher: Watcher) -> RunRow:
    ended = asyncio.ensure_future(embedded.wait(run_id))
    while not ended.done():
        await watcher.look(embedded, run_id)
        await asyncio.wait([ended], timeout=LOOK_SECONDS)
    return await ended


def _view(embedded: Embedded, workflow: Workflow, row: RunRow) -> RunView:
    from dsfast.views import count_tasks, run_view, task_views

    now = time.time()
    tasks = task_views(row, workflow, embedded.attempts(row.id), now=now)
    return run_view(row, now=now, counts=count_tasks(tasks), tasks=tasks)


@contextlib.contextmanager
def _interruptible(embedded: Embedded, run_id: int) -> Any:
    """While inside, the first SIGINT or SIGTERM cancels the run and the second kills its tasks."""
    loop = asyncio.get_running_loop()
    orders: list[asyncio.Task[None]] = []

    def interrupt() -> None:
        grace = 0.0 if orders else None
        note("Killing tasks." if orders else "Cancelling the run; press Ctrl-C again to kill its tasks at once.")
        orders.append(loop.create_task(embedded.cancel(run_id, "interrupted", grace=grace)))

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, interrupt)
    try:
        yield
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
