"""Options that commands share: where the configuration is, how output looks, what a parameter's value is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import update_wrapper
from typing import Any, TypeVar

import click

from dsfast.config import load_config
from dsfast.errors import Problem, UsageError

F = TypeVar("F", bound=Callable[..., Any])

_FLAGS = "dsfast.flags"
_FILE = "dsfast.config_file"


def setting_option(*names: str, key: str, about: str) -> Callable[[F], F]:
    """An option that sets one value of the configuration."""

    def take(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.meta.setdefault(_FLAGS, {})[key] = value

    return click.option(*names, callback=take, expose_value=False, metavar="VALUE", help=about)


def _take_file(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    ctx.meta[_FILE] = value


def _take_sets(ctx: click.Context, param: click.Parameter, values: Iterable[str]) -> None:
    for value in values:
        key, equals, text = value.partition("=")
        if not equals:
            raise click.BadParameter(f"{value!r} has no '='; write --set section.field=value", ctx, param)
        ctx.meta.setdefault(_FLAGS, {})[key.strip()] = text


def with_config(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give the command the configuration as its first argument, and the options that choose it."""

    def call(*args: Any, **kwargs: Any) -> Any:
        meta = click.get_current_context().meta
        return command(load_config(meta.get(_FILE), flags=meta.get(_FLAGS)), *args, **kwargs)

    wrapped: Callable[..., Any] = update_wrapper(call, command)
    for option in (
        click.option(
            "--set", multiple=True, callback=_take_sets, expose_value=False, metavar="KEY=VALUE",
            help="Set a configuration value, such as worker.slots=4.",
        ),
        setting_option("--state-dir", key="state_dir", about="Where everything is kept."),
        click.option(
            "--config", callback=_take_file, expose_value=False, metavar="FILE",
            help="Configuration file, instead of the one that would be found.",
        ),
    ):  # fmt: skip
        wrapped = option(wrapped)
    return wrapped


def output_option(*formats: str) -> Callable[[F], F]:
    """-o FORMAT; the first is the default."""
    return click.option(
        "-o", "--output", type=click.Choice(formats), default=formats[0], show_default=True, help="How to print it."
    )


def run_parameters(command: F) -> F:
    """-p and --params-file."""
    command = click.option(
        "--params-file", type=click.Path(exists=True, dir_okay=False), help="JSON file with parameters."
    )(command)
    return click.option(
        "-p", "--param", "params", multiple=True, metavar="KEY=VALUE",
        help="Set a parameter; the value is taken as JSON if it is JSON, else as text.",
    )(command)  # fmt: skip


def priority_option(command: F) -> F:
    """--priority."""
    words = ["highest", "high", "medium", "low", "lowest"]
    return click.option("--priority", type=click.Choice(words), help="Instead of the workflow's own.")(command)


def read_params(texts: Iterable[str], file: str | None) -> dict[str, Any]:
    """The parameters given by file and options, options winning. Raises UsageError."""
    params = _params_file(file) if file else {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(Problem(f"-p {text!r} has no '='", hint="write -p name=value"))
        params[key] = _value(value)
    return params


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return text


def _no_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are not JSON: they stay texts


def _params_file(file: str) -> dict[str, Any]:
    try:
        with open(file, encoding="utf-8") as stream:
            params = json.load(stream, parse_constant=_no_constant)
    except ValueError as error:
        raise UsageError(Problem(f"is not JSON: {error}", file=file)) from None
    if not isinstance(params, dict):
        raise UsageError(Problem("is not a JSON object of parameters", file=file))
    return params
