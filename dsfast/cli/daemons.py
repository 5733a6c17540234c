"""`dsfast up`, `master`, `worker`, `api`: the roles of a cluster, and lists of who is alive."""

from __future__ import annotations

import logging
import os
from collections.abc import Coroutine
from typing import Any

import click

from dsfast.cli.options import output_option, setting_option, with_config
from dsfast.cli.output import local, note, print_json, print_json_lines, say, table
from dsfast.cli.remote import api_option, connect
from dsfast.config import Config, environment_of_flags, make_state_dir
from dsfast.errors import DsfastError

_PORT = "Port to listen on; 0 takes a free one."
_HOST = "Address to listen on."


@click.command()
@setting_option("--slots", key="worker.slots", about="Tasks that may run at a time.")
@setting_option("--port", key="api.port", about="Port of the HTTP API; 0 takes a free one.")
@with_config
def up(config: Config) -> None:
    """Start everything on this machine: a master, a worker and the HTTP API.

    What has died is started again. Ctrl-C stops all of it: running tasks may end first, a second Ctrl-C ends them.
    """
    from dsfast.runtime.up import ROLES, Supervisor, free_port

    make_state_dir(config)
    ports = {role: config.value(f"{role}.port") or free_port() for role in ROLES}
    environ = os.environ | environment_of_flags(config)
    environ |= {f"DSFAST_{role.upper()}_PORT": str(port) for role, port in ports.items()}
    environ |= {"DSFAST_CONFIG": str(config.source)} if config.source else {}
    supervisor = Supervisor(environ, note, lambda: _announce(config, ports))
    click.get_current_context().exit(supervisor.run())


def _announce(config: Config, ports: dict[str, int]) -> None:
    say(f"dsfast is up in {config.state_dir}")
    say(f"  master  {config.master.host}:{ports['master']}")
    say(f"  worker  {config.worker.host}:{ports['worker']}, {config.worker.slots} slots")
    say(f"  api     http://{config.api.host}:{ports['api']}/api/v1")
    other = "" if ports["api"] == 7482 else f" --api http://{config.api.host}:{ports['api']}"
    say(f"submit a workflow: dsfast submit workflow.yaml{other}")
    say("stop: Ctrl-C")


@click.group(invoke_without_command=True)
@setting_option("--name", key="master.name", about="Name of this master.")
@setting_option("--host", key="master.host", about=_HOST)
@setting_option("--port", key="master.port", about=_PORT)
@click.pass_context
@with_config
def master(config: Config, ctx: click.Context) -> None:
    """Start a master, or list masters: `dsfast master ls`."""
    if ctx.invoked_subcommand is None:
        make_state_dir(config)
        from dsfast.runtime.daemons import serve_master

        _serve(serve_master(config), "master")


@click.group(invoke_without_command=True)
@setting_option("--name", key="worker.name", about="Name of this worker.")
@setting_option("--host", key="worker.host", about=_HOST)
@setting_option("--port", key="worker.port", about=_PORT)
@setting_option("--slots", key="worker.slots", about="Tasks that may run at a time.")
@setting_option("--group", key="worker.groups", about="Worker groups it serves, separated by commas.")
@click.pass_context
@with_config
def worker(config: Config, ctx: click.Context) -> None:
    """Start a worker, or list workers: `dsfast worker ls`."""
    if ctx.invoked_subcommand is None:
        make_state_dir(config)
        from dsfast.runtime.guardian import Deadline, guard
        from dsfast.runtime.home import claim_home
        from dsfast.runtime.listener import bind

        listener, home = bind(config, "worker"), claim_home(config)
        deadline = Deadline()
        guard([listener, home], deadline)  # divides this process in two, so nothing heavy is in memory yet
        from dsfast.runtime.daemons import serve_worker

        _serve(serve_worker(config, listener, home, deadline), "worker")


@click.command()
@setting_option("--host", key="api.host", about=_HOST)
@setting_option("--port", key="api.port", about=_PORT)
@with_config
def api(config: Config) -> None:
    """Start the HTTP API."""
    make_state_dir(config)
    from dsfast.api.server import serve_api
    from dsfast.runtime.listener import bind

    _serve(serve_api(config, bind(config, "api")), "api")


def _serve(role: Coroutine[Any, Any, None], name: str) -> None:
    """Run a daemon to its end. What it raises on purpose is for the person; a bug of ours is for its log, too."""
    import uvloop

    from dsfast import failpoint
    from dsfast.fatal import until_fatal
    from dsfast.log import log_event

    try:
        failpoint.arm(os.environ.get(failpoint.VARIABLE, ""))
        uvloop.run(until_fatal(role))
    except DsfastError:
        role.close()  # if it has not begun
        raise
    except Exception as error:
        log_event(logging.getLogger(f"dsfast.{name}"), "daemon_failed", level=logging.CRITICAL, exc=error)
        raise


def _list(config: Config, role: str, output: str, url: str | None) -> None:
    with connect(config, url) as client:
        members = client.workers() if role == "worker" else client.masters()
    if output == "json":
        print_json(members)
    elif output == "jsonl":
        print_json_lines(members)
    elif output == "quiet":
        for member in members:
            say(member.name)
    elif role == "worker":
        rows = [
            (m.name, m.address, ",".join(m.groups), m.slots, m.load, m.weight, local(m.started_at)) for m in members
        ]
        table(("WORKER", "ADDRESS", "GROUPS", "SLOTS", "RUNNING", "WEIGHT", "SINCE"), rows)
    else:
        table(
            ("MASTER", "ADDRESS", "RUNS", "SINCE"), [(m.name, m.address, m.load, local(m.started_at)) for m in members]
        )


@master.command("ls")
@output_option("table", "json", "jsonl", "quiet")
@api_option
@with_config
def master_ls(config: Config, output: str, api: str | None) -> None:
    """List live masters."""
    _list(config, "master", output, api)


@worker.command("ls")
@output_option("table", "json", "jsonl", "quiet")
@api_option
@with_config
def worker_ls(config: Config, output: str, api: str | None) -> None:
    """List live workers."""
    _list(config, "worker", output, api)


@worker.command("lost")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@api_option
@with_config
def worker_lost(config: Config, name: str, yes: bool, api: str | None) -> None:
    """Declare a worker dead that nobody can see: what it ran starts elsewhere, also what is never replaced otherwise.

    If its machine still runs these tasks, they run twice: make sure that it is off.
    """
    if not yes:
        click.confirm(f"Is the machine of worker {name} off, or its tasks ended?", abort=True)
    with connect(config, api) as client:
        lost = client.declare_lost(name)
    say(f"worker {name} is lost; {lost.attempts} attempts start elsewhere")
