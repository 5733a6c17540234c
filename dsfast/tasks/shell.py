"""A task that runs a script by a shell (or any interpreter), or one command without a shell.

A script is handed over as a file that only this user can read: the arguments of a process are limited to 128 KiB
each and can be read by every user of the machine.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import ClassVar

import msgspec

from dsfast.tasks.base import Done, Execution, Job
from dsfast.tasks.templates import shell_quote
from dsfast.templates import is_template

SHELLS = frozenset({"ash", "bash", "dash", "ksh", "mksh", "sh", "yash", "zsh"})  # that read what `shell_quote` writes

_NO_SHELL = (
    "values are quoted for shells, which {} is not: let the script read $DSFAST_PARAM_<NAME> in place of {{{{ }}}}"
)


class ShellConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Either `script`, run by `shell` ("bash", "/opt/bin/fish", "python3 -u", ["perl", "-w"]), or `command`."""

    script: str = ""
    command: tuple[str, ...] = ()
    shell: str | tuple[str, ...] = "sh"


class ShellTask:
    """The task type `shell`."""

    name: ClassVar[str] = "shell"
    Config: ClassVar[type[msgspec.Struct]] = ShellConfig
    templated: ClassVar[tuple[str, ...]] = ("script", "command")
    quote: ClassVar[Callable[[str], str] | None] = staticmethod(shell_quote)
    light: ClassVar[bool] = False

    def check(self, config: ShellConfig) -> Iterable[tuple[str, str]]:
        if bool(config.script.strip()) == bool(config.command):
            yield "script", "needs either a script or a command (a list of words), and not both"
        if config.command and not config.command[0]:
            yield "command", "starts with an empty word where the program's name belongs"
        try:
            words = interpreter(config.shell)
        except ValueError as error:
            yield "shell", f"cannot be split into words: {error}"
            return
        if not words or not words[0]:
            yield "shell", 'is empty: name an interpreter such as "sh", "bash" or "python3 -u"'
        elif os.path.basename(words[0]) not in SHELLS and is_template(config.script):
            yield "script", _NO_SHELL.format(words[0])

    def start(self, job: Job, done: Done) -> Execution:
        from dsfast.tasks.command import CommandAttempt  # asyncio and processes: not for checking workflows

        attempt = CommandAttempt(job, done)
        attempt.start()
        return attempt

    def close(self) -> None:
        """Nothing is kept."""


@lru_cache(maxsize=256)
def interpreter(shell: str | tuple[str, ...]) -> tuple[str, ...]:
    """The words that run a script. Raises ValueError for quotes that are not closed."""
    return tuple(shlex.split(shell)) if isinstance(shell, str) else shell
