"""Starts and ends attempts on a worker, by their task types.

What differs from attempt to attempt is made here: its log, its working directory, its environment, its templates
filled in. What does not is made once: a recipe for equal tasks, the variables that are inherited. Whatever goes wrong
in making them is the attempt's failure with a sentence, except a shortage of this machine's own (StartFailed), which
gives the attempt back unstarted. A type that touches no files (`light`) gets none.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from traceback import format_exc
from typing import Any, NamedTuple

import msgspec

from dsfast.engine import events as ev
from dsfast.errors import UsageError
from dsfast.failpoint import reach
from dsfast.ids import run_text
from dsfast.log import log_event
from dsfast.model import AttemptState, Outcome
from dsfast.runtime.logs import LogDir, describe
from dsfast.runtime.private import OUTPUT, SCRIPT, WORK, PrivateDirs
from dsfast.tasks.base import Execution, Job, StartFailed, TaskType
from dsfast.tasks.environment import build_env, inherit
from dsfast.tasks.templates import fill, is_plain
from dsfast.tasks.types import task_type
from dsfast.wire.commands import Attempt, Execute
from dsfast.wire.spec import TaskSpec

SHORTAGES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM})  # ours, not the task's
SPECS_MAX = 4096  # decoded specs kept: equal tasks of a fan-out share one
NO_FILES = ("", "", "", "")  # working directory, log, output and script of a type that needs none


@dataclass(frozen=True, slots=True)
class ExecutorSettings:
    """Where attempts leave their traces, and what they may see of this machine."""

    work_dir: Path
    log_bytes_max: int
    env_allow: tuple[str, ...]
    environ: dict[str, str]
    mark: str = ""  # of the worker, in the environment of everything that it starts


class Recipe(NamedTuple):
    """What attempts with the same spec have in common."""

    kind: TaskType
    spec: TaskSpec
    config: Any
    plain: bool  # whether there is nothing to fill in


class Executor:
    """The attempts that run in this worker."""

    def __init__(
        self, settings: ExecutorSettings, logs: LogDir, put: Callable[[ev.Event], None], log: logging.Logger
    ) -> None:
        self.settings = settings
        self.logs = logs
        self._put = put
        self._log = log
        self._private = PrivateDirs(settings.work_dir)
        self._inherited = inherit(settings.environ, settings.env_allow)
        self._running: dict[Attempt, Execution] = {}
        self._used: dict[str, TaskType] = {}

    def start(self, execute: Execute) -> None:
        """Start an attempt; its events follow. Never raises for what the attempt or this machine did wrong."""
        key = (execute.run_id, execute.task, execute.attempt)
        reach("W2")
        try:
            self._start(key, execute)
        except UsageError as error:
            self._fail(key, str(error))
        except StartFailed as error:
            self._refuse(key, str(error))
        except OSError as error:
            end = self._refuse if error.errno in SHORTAGES else self._fail
            end(key, f"cannot prepare the attempt: {error.strerror}: {error.filename}")
        except Exception as error:  # noqa: BLE001 - a broken task type harms its own tasks only
            log_event(self._log, "start_failed", level=logging.ERROR, attempt=describe(key), where=format_exc())
            self._fail(key, f"its task type could not start it: {type(error).__name__}: {error}")

    def _start(self, key: Attempt, execute: Execute) -> None:
        recipe = recipe_of(execute.spec)
        kind = recipe.kind
        self._used[kind.name] = kind
        inputs = msgspec.json.decode(execute.inputs) if execute.inputs else {}
        if kind.light:
            job = Job(*key, execute.name, recipe.config, {}, *NO_FILES, 0, inputs.get("params", {}))
        else:
            job = self._job(key, execute, recipe, inputs)
        self._run(key, kind, job, recipe.spec)

    def _run(self, key: Attempt, kind: TaskType, job: Job, spec: TaskSpec) -> None:
        ended = False

        def done(outcome: Outcome) -> None:
            nonlocal ended
            ended = True
            self._running.pop(key, None)
            self._tidy(job)
            self._put(ev.AttemptEnded(key, outcome))

        try:
            execution = kind.start(job, done)
        except Exception:
            self._tidy(job)
            raise
        if not ended:
            self._running[key] = execution
            self._put(ev.AttemptStarted(key, time.time(), spec.timeout, spec.runs_on))

    def _job(self, key: Attempt, execute: Execute, recipe: Recipe, inputs: dict[str, Any]) -> Job:
        run_id, task, attempt = key
        params = inputs.get("params", {})
        config, declared = self._filled(execute, recipe, inputs)
        log = self.logs.create(key)
        private = self._private.take(f"{run_text(run_id)}.{task}.{attempt}")
        output = f"{private}/{OUTPUT}"
        env = build_env(
            self._inherited,
            declared,
            run_id=run_id,
            task=task,
            attempt=attempt,
            name=execute.name,
            output=output,
            params=params,
            worker=self.settings.mark,
        )
        files = (recipe.spec.workdir or f"{private}/{WORK}", log, output, f"{private}/{SCRIPT}")
        return Job(*key, execute.name, config, env, *files, self.settings.log_bytes_max, params)

    def _filled(self, execute: Execute, recipe: Recipe, inputs: dict[str, Any]) -> tuple[Any, dict[str, str]]:
        """The settings and the declared variables, templates filled in. Raises UsageError."""
        if recipe.plain:
            return recipe.config, recipe.spec.env
        context = {
            "params": inputs.get("params", {}),
            "tasks": inputs.get("tasks", {}),
            "run": {"id": run_text(execute.run_id)},
            "task": {"name": execute.name, "attempt": execute.attempt},
        }
        return fill(recipe.kind, recipe.config, recipe.spec.env, context)

    def _tidy(self, job: Job) -> None:
        if job.output:
            self._private.give_back(job.output.removesuffix(f"/{OUTPUT}"))

    def _refuse(self, key: Attempt, reason: str) -> None:
        log_event(self._log, "start_refused", level=logging.WARNING, attempt=describe(key), reason=reason)
        self._put(ev.AttemptRefused(key, reason))

    def _fail(self, key: Attempt, reason: str) -> None:
        now = time.time()
        self._put(ev.AttemptEnded(key, Outcome(AttemptState.FAILED, None, reason, started_at=now, ended_at=now)))

    def kill(self, key: Attempt, grace: float, reason: str) -> None:
        """End an attempt, if it still runs; its end follows as an event."""
        execution = self._running.get(key)
        if execution is None:
            return
        try:
            execution.kill(grace, reason)
        except Exception:  # noqa: BLE001 - likewise; it runs on, and is ended with this worker at the latest
            log_event(self._log, "kill_failed", level=logging.ERROR, attempt=describe(key), where=format_exc())

    def close(self) -> None:
        """Let go of what is kept for attempts to come."""
        self._private.close()
        for kind in self._used.values():
            kind.close()


@lru_cache(maxsize=SPECS_MAX)
def recipe_of(body: bytes) -> Recipe:
    """What an encoded spec says. Raises UsageError if this worker cannot run it."""
    try:
        spec = msgspec.json.decode(body, type=TaskSpec)
        kind = task_type(spec.type)
        config = msgspec.json.decode(spec.config, type=kind.Config)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise UsageError(f"this worker cannot read the task's settings: {error}") from None
    return Recipe(kind, spec, config, is_plain(kind, config, spec.env))
