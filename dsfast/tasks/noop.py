"""A task that does nothing and succeeds at once: a joint in a graph, and the floor of every benchmark."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import ClassVar

import msgspec

from dsfast.model import AttemptState, Outcome
from dsfast.tasks.base import Done, Execution, Job


class NoopConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A noop has nothing to set."""


class Ended:
    """The execution of an attempt that has ended before `start` returned."""

    __slots__ = ()

    def kill(self, grace: float, reason: str) -> None:
        """There is nothing left to end."""


ENDED: Execution = Ended()


class NoopTask:
    """The task type `noop`."""

    name: ClassVar[str] = "noop"
    Config: ClassVar[type[msgspec.Struct]] = NoopConfig
    templated: ClassVar[tuple[str, ...]] = ()
    quote: ClassVar[Callable[[str], str] | None] = None
    light: ClassVar[bool] = True

    def check(self, config: NoopConfig) -> Iterable[tuple[str, str]]:
        return ()

    def start(self, job: Job, done: Done) -> Execution:
        now = time.time()
        done(Outcome(AttemptState.SUCCEEDED, exit_code=0, started_at=now, ended_at=now))
        return ENDED

    def close(self) -> None:
        """Nothing is kept."""
