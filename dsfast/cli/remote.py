"""How commands reach the api: which URL, which token."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from dsfast.client import Client
from dsfast.config import Config
from dsfast.errors import Problem, UsageError

F = TypeVar("F", bound=Callable[..., Any])

URL_VARIABLE = "DSFAST_API"
TOKEN_VARIABLE = "DSFAST_TOKEN"  # noqa: S105 - the name of a variable


def api_option(command: F) -> F:
    """--api URL."""
    return click.option(
        "--api", envvar=URL_VARIABLE, metavar="URL", help=f"Where the api is; else ${URL_VARIABLE}, else this machine."
    )(command)


def connect(config: Config, url: str | None) -> Client:
    """A client of the api that is meant. Raises UsageError when there is no token for it."""
    host = f"[{config.api.host}]" if ":" in config.api.host else config.api.host
    return Client(url or f"http://{host}:{config.api.port}", _token(config))


def _token(config: Config) -> str:
    token = os.environ.get(TOKEN_VARIABLE)
    if token:
        return token.strip()
    file = config.api.token_file
    try:
        lines = file.read_text().split()
    except OSError as error:
        hint = f"start an api with `dsfast up`, or set ${TOKEN_VARIABLE} or api.token_file"
        raise UsageError(Problem(f"no token for the api: {error.strerror}", file=str(file), hint=hint)) from None
    if not lines:
        raise UsageError(Problem("holds no token", file=str(file)))
    return lines[-1]
