"""The task type's protocol: how a plug-in says what it can run, checks a config, starts and ends an attempt.

`start` must not block: it starts the work and returns; `done` is called exactly once, on the loop, when the
attempt has ended and nothing of it runs any more (its whole process tree is gone, its log is complete).
A type whose work is instant may call `done` before it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import msgspec

from dsfast.errors import Unavailable
from dsfast.model import Outcome

Done = Callable[[Outcome], None]


class StartFailed(Unavailable):
    """This machine is short of something (files, memory, processes, disk): nothing was started, try again later."""


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt as its task type sees it. Paths are text: objects for them take longer to make than to use."""

    run_id: int
    task: int
    attempt: int
    name: str  # the task's name
    config: Any  # an instance of the type's Config, templates already filled in
    env: Mapping[str, str]  # the complete environment for its processes: allow-list, declared values, DSFAST_*
    workdir: str  # exists; private to the attempt unless the task declared one
    log: str  # the attempt's log; its directory exists
    output: str  # where DSFAST_OUTPUT points; may be written by the task, read at its end
    script: str  # a file for the task type's own use, which may hold something already: to be overwritten
    log_bytes_max: int
    params: Mapping[str, Any]


class Execution(Protocol):
    """An attempt under way."""

    def kill(self, grace: float, reason: str) -> None:
        """End it: ask (SIGTERM to the process group), after `grace` seconds insist (SIGKILL to the whole tree).

        May be called again with a smaller grace. `done` still reports the end, as KILLED with this reason.
        """


class TaskType(Protocol):
    """One type of task."""

    name: ClassVar[str]
    Config: ClassVar[type[msgspec.Struct]]  # its settings; fields, types and defaults are checked from this
    templated: ClassVar[tuple[str, ...]]  # fields of Config in which {{ }} is filled in
    quote: ClassVar[Callable[[str], str] | None]  # how a filled-in value is made safe in those fields
    light: ClassVar[bool]  # whether it uses no log, directory, environment or template; then none is made for it

    def check(self, config: Any) -> Iterable[tuple[str, str]]:
        """Problems beyond types, as (field, sentence); pure, runs where workflows are validated."""

    def start(self, job: Job, done: Done) -> Execution:
        """Start it. What is the task's own fault is reported by `done`; raises StartFailed for a shortage of ours."""

    def close(self) -> None:
        """End what is kept warm; called when the worker stops, after every attempt has ended."""
