"""`dsfast db`, `config`, `completion`."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

import click

from dsfast.cli.exits import Exit
from dsfast.cli.options import output_option, with_config
from dsfast.cli.output import note, print_json, say, table
from dsfast.config import Config, as_text, make_state_dir, require_safe_bind, settings
from dsfast.errors import Problem, UsageError

_SECRET_QUERY = re.compile(r"([?&](?:[a-z_]*password|[a-z_]*secret|[a-z_]*token|auth)=)[^&]*", re.IGNORECASE)


@click.group()
def db() -> None:
    """Prepare or check the database."""


@db.command()
@with_config
def upgrade(config: Config) -> None:
    """Create the tables, or bring them to what this release needs."""
    from dsfast.store.migrations import HEAD, upgrade

    make_state_dir(config)
    upgrade(config.store.url)
    say(f"{masked(config.store.url)} has schema {HEAD}")


@db.command()
@with_config
def check(config: Config) -> None:
    """Say whether the database can be used by this release. Exits with 1 if it needs an upgrade."""
    from dsfast.store.migrations import HEAD, current

    found = current(config.store.url)
    place = masked(config.store.url)
    if found == HEAD:
        say(f"{place} has schema {found}, as this release needs")
        return
    note(f"{place} has {f'schema {found}' if found else 'no tables'}, this release needs schema {HEAD}")
    note("bring it there with: dsfast db upgrade")
    click.get_current_context().exit(Exit.ERROR)


@click.group()
def config() -> None:
    """Show or check the configuration."""


@config.command()
@click.option("--origin", is_flag=True, help="Say of each value where it was set.")
@output_option("table", "json")
@with_config
def show(config: Config, origin: bool, output: str) -> None:
    """Print every value, secrets in URLs masked."""
    rows = [(entry.key, masked(as_text(config.value(entry.key))), config.origins[entry.key]) for entry in settings()]
    if output == "json":
        values = {key: {"value": value, "origin": where} for key, value, where in rows}
        print_json(values)
    elif origin:
        table(("SETTING", "VALUE", "ORIGIN"), rows)
    else:
        table(("SETTING", "VALUE"), [row[:2] for row in rows])


@config.command(name="check")
@with_config
def check_config(config: Config) -> None:
    """Say whether the configuration can be used, and by which roles."""
    problems: list[Problem] = []
    for role in ("master", "worker", "api"):
        try:
            require_safe_bind(config, role)
        except UsageError as error:
            problems += error.problems
    if problems:
        raise UsageError(problems)
    say(f"the configuration is fine ({config.source or 'no file, all defaults and environment'})")


def masked(text: str) -> str:
    """The text without the passwords that a URL may hold."""
    if "://" not in text:
        return text
    prefix, _, rest = text.partition("+") if text.startswith("database+") else ("", "", text)
    parts = urlsplit(rest)
    user, at, host = parts.netloc.rpartition("@")
    if ":" in user:
        parts = parts._replace(netloc=f"{user.partition(':')[0]}:***{at}{host}")
    url = _SECRET_QUERY.sub(r"\1***", urlunsplit(parts) if ":" in user else rest)
    return f"{prefix}+{url}" if prefix else url


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print shell completion; for bash: eval "$(dsfast completion bash)"."""
    from click.shell_completion import get_completion_class

    from dsfast.cli.main import root

    found = get_completion_class(shell)
    assert found is not None
    say(found(root, {}, "dsfast", "_DSFAST_COMPLETE").source())
