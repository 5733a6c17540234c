"""The error tree, by whose fault it is.

    DsfastError
    ├── UsageError        the caller: a bad workflow, option, file or name; carries every problem found
    │   └── NotFound      the caller named something that does not exist
    ├── ProtocolError     the peer: a malformed frame, an unknown command, a failed handshake
    └── Unavailable       the surroundings: database, registry or peer out of reach; retry at the runtime's edge

A failed task is a value (`model.Outcome`), not an exception. Our own bugs are AssertionError or
IllegalTransition: they stop the daemon, and failover does its work.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class DsfastError(Exception):
    """Base of all errors that dsfast raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with what a person wrote, and where."""

    message: str
    file: str | None = None
    line: int | None = None
    field: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        parts = [place, self.field or "", self.message]
        text = ": ".join(part for part in parts if part)
        return f"{text} ({self.hint})" if self.hint else text


class UsageError(DsfastError):
    """The caller's mistake; `problems` lists all of them, not just the first."""

    def __init__(self, problems: str | Problem | Iterable[Problem]) -> None:
        if isinstance(problems, str):
            problems = [Problem(problems)]
        elif isinstance(problems, Problem):
            problems = [problems]
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class NotFound(UsageError):
    """The caller named a run, task, worker or file that does not exist."""


class ProtocolError(DsfastError):
    """The peer broke the wire protocol; its connection is closed and nothing else is affected."""


class Unavailable(DsfastError):
    """A database, registry or peer cannot be reached at the moment; the sentence says which and why."""
