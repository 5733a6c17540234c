"""A task that lets time pass without a process: a pause in a graph, and load for tests."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar

import msgspec

from dsfast.model import AttemptState, Outcome
from dsfast.tasks.base import Done, Execution, Job

if TYPE_CHECKING:
    from asyncio import TimerHandle


class SleepConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long to sleep, in seconds."""

    seconds: float


class SleepTask:
    """The task type `sleep`."""

    name: ClassVar[str] = "sleep"
    Config: ClassVar[type[msgspec.Struct]] = SleepConfig
    templated: ClassVar[tuple[str, ...]] = ()
    quote: ClassVar[Callable[[str], str] | None] = None
    light: ClassVar[bool] = True

    def check(self, config: SleepConfig) -> Iterable[tuple[str, str]]:
        if not 0 <= config.seconds < math.inf:
            yield "seconds", f"must be 0 or more and finite, not {config.seconds}"

    def start(self, job: Job, done: Done) -> Execution:
        return _Sleep(job.config.seconds, done)

    def close(self) -> None:
        """Nothing is kept."""


class _Sleep:
    __slots__ = ("_done", "_started_at", "_timer")

    def __init__(self, seconds: float, done: Done) -> None:
        from asyncio import get_running_loop  # not needed where workflows are only checked

        self._done = done
        self._started_at = time.time()
        self._timer: TimerHandle | None = get_running_loop().call_later(
            seconds, self._end, AttemptState.SUCCEEDED, 0, ""
        )

    def kill(self, grace: float, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._end(AttemptState.KILLED, None, reason)

    def _end(self, state: AttemptState, exit_code: int | None, reason: str) -> None:
        self._timer = None
        self._done(Outcome(state, exit_code, reason, started_at=self._started_at, ended_at=time.time()))
