"""The `dsfast` command: finds the command, runs it, and turns what goes wrong into a sentence and an exit code.

Commands are listed here with their one-line help and imported only when they run, so that `dsfast --help`
and the commands that speak HTTP start in a few tens of milliseconds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from dsfast import __version__
from dsfast.cli.exits import Exit
from dsfast.errors import DsfastError, NotFound, Unavailable, UsageError

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Run workflows": {
        "run": ("dsfast.cli.run:run", "Run a workflow to its end, on this machine."),
        "submit": ("dsfast.cli.submit:submit", "Hand a workflow to a cluster."),
        "validate": ("dsfast.cli.files:validate", "Report every mistake in workflow files."),
        "graph": ("dsfast.cli.files:graph", "Draw a workflow."),
        "import": ("dsfast.cli.imports:import_", "Convert workflows of other schedulers."),
    },
    "Look at runs": {
        "ps": ("dsfast.cli.runs:ps", "List runs, newest first."),
        "status": ("dsfast.cli.runs:status", "Show a run and its tasks."),
        "logs": ("dsfast.cli.logs:logs", "Print what tasks wrote."),
        "wait": ("dsfast.cli.runs:wait", "Wait until runs have ended."),
        "cancel": ("dsfast.cli.runs:cancel", "Stop a run."),
    },
    "Operate a cluster": {
        "up": ("dsfast.cli.daemons:up", "Start everything on this machine."),
        "master": ("dsfast.cli.daemons:master", "Start a master."),
        "worker": ("dsfast.cli.daemons:worker", "Start a worker, or list workers: worker ls."),
        "api": ("dsfast.cli.daemons:api", "Start the HTTP API."),
        "bench": ("dsfast.cli.bench:bench", "Measure dsfast on this machine."),
        "chaos": ("dsfast.cli.chaos:chaos", "Break a cluster on purpose, and judge it."),
        "db": ("dsfast.cli.admin:db", "Prepare or check the database."),
        "config": ("dsfast.cli.admin:config", "Show or check the configuration."),
        "completion": ("dsfast.cli.admin:completion", "Print shell completion."),
    },
}
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}
DEBUG_VARIABLE = "DSFAST_DEBUG"


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            from dsfast.config.sources import near

            hint = near(args[0], COMMANDS)
            ctx.fail(f"there is no command {args[0]!r}" + (f"; {hint}" if hint else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, about) for name, (_, about) in commands.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", message="dsfast %(version)s")
def root() -> None:
    """A distributed scheduler for DAG workflows.

    Try it: dsfast run workflow.yaml
    """


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    sys.exit(invoke(args))


def invoke(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code and prints what went wrong as sentences."""
    try:
        code = root.main(args, prog_name="dsfast", standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except click.exceptions.Abort:
        return Exit.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader left; nothing is left to say to it
        return Exit.ERROR
    except DsfastError as error:
        complain(error)
        return exit_code(error)
    except Exception as error:  # noqa: BLE001 - people get a sentence whatever happens
        return _internal(error)


def complain(error: DsfastError) -> None:
    """Print every problem on a line of its own."""
    lines: Sequence[Any] = error.problems if isinstance(error, UsageError) else [error]
    for line in lines:
        click.echo(f"{click.style('error:', fg='red', bold=True)} {line}", err=True)


def exit_code(error: DsfastError) -> Exit:
    """The exit code by whose fault it was."""
    if isinstance(error, NotFound):
        return Exit.NOT_FOUND
    if isinstance(error, UsageError):
        return Exit.USAGE
    if isinstance(error, Unavailable):
        return Exit.UNREACHABLE
    return Exit.ERROR


def _internal(error: Exception) -> int:
    if os.environ.get(DEBUG_VARIABLE):
        raise error
    message = f"{type(error).__name__}: {error}; {DEBUG_VARIABLE}=1 shows where, please report it"
    click.echo(f"{click.style('internal error:', fg='red', bold=True)} {message}", err=True)
    return Exit.ERROR
