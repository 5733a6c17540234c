"""The executor: what a broken task type does to its own attempts, and not to its worker."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from dsfast.engine import events as ev
from dsfast.model import AttemptState
from dsfast.runtime.executor import Executor, ExecutorSettings, recipe_of
from dsfast.runtime.logs import LogDir
from dsfast.tasks import types
from dsfast.tasks.base import Done, Job
from dsfast.wire.commands import Execute
from dsfast.wire.spec import TaskSpec


class Broken:
    """A plug-in that fails wherever it can."""

    class Config(msgspec.Struct):
        """No settings."""

    name: ClassVar[str] = "broken"
    templated: ClassVar[tuple[str, ...]] = ()
    quote = None
    light: ClassVar[bool] = True
    raises_at_start = True

    def start(self, job: Job, done: Done) -> Broken:
        if self.raises_at_start:
            raise KeyError("token")
        return self

    def kill(self, grace: float, reason: str) -> None:
        raise RuntimeError("no")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Broken:
    recipe_of.cache_clear()  # it knows the one of the test before
    kind = Broken()
    monkeypatch.setitem(types._loaded, "broken", kind)  # type: ignore[arg-type]
    return kind


@pytest.fixture
def events() -> list[ev.Event]:
    return []


@pytest.fixture
def executor(tmp_path: Path, events: list[ev.Event]) -> Executor:
    settings = ExecutorSettings(tmp_path / "work", 1 << 20, (), {})
    return Executor(settings, LogDir(tmp_path / "logs"), events.append, logging.getLogger("test"))


EXECUTE = Execute(1, 0, 1, 1, "t", msgspec.json.encode(TaskSpec("broken")))


def test_a_task_type_that_raises_in_start_fails_the_attempt_with_a_sentence(
    executor: Executor, events: list[ev.Event], broken: Broken
) -> None:
    executor.start(EXECUTE)
    (ended,) = events
    assert isinstance(ended, ev.AttemptEnded)
    assert ended.outcome.state is AttemptState.FAILED
    assert ended.outcome.reason == "its task type could not start it: KeyError: 'token'"


def test_a_task_type_that_raises_in_kill_does_not_take_the_worker_down(
    executor: Executor, events: list[ev.Event], broken: Broken
) -> None:
    broken.raises_at_start = False
    executor.start(EXECUTE)
    executor.kill((1, 0, 1), 0.0, "enough")
    assert [type(event) for event in events] == [ev.AttemptStarted]
