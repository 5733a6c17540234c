"""Attempts for tests: jobs in a temporary directory, run by the real task types."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from dsfast.ids import run_text
from dsfast.model import Outcome
from dsfast.tasks.base import Execution, Job
from dsfast.tasks.environment import build_env, inherit
from dsfast.tasks.types import task_type

RUN = os.getpid()  # run id of all attempts: other runs of these tests on the same machine are not confused with ours
DEADLINE_SECONDS = 30  # of everything waited for; a loaded machine needs a second of it


def make_job(
    kind: str,
    root: Path,
    task: int = 1,
    declared: Mapping[str, str] | None = None,
    workdir: Path | None = None,
    log_bytes_max: int = 1 << 20,
    **config: Any,
) -> Job:
    """A job of this type with its log, output file and environment under `root`."""
    output = str(root / f"{task}.output")
    names: dict[str, Any] = {"run_id": RUN, "task": task, "attempt": 1, "name": "job"}
    env = build_env(inherit(os.environ, ("PATH",)), declared or {}, output=output, params={}, **names)
    settings = msgspec.convert(config, task_type(kind).Config)
    return Job(
        **names,
        config=settings,
        env=env,
        workdir=str(workdir or root),
        log=str(root / f"{task}.log"),
        output=output,
        script=str(root / f"{task}.script"),
        log_bytes_max=log_bytes_max,
        params={},
    )


def start(kind: str, job: Job) -> tuple[Execution, asyncio.Future[Outcome]]:
    """Start it; the future gets its outcome, and an error if there is a second one."""
    outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    return task_type(kind).start(job, outcome.set_result), outcome


async def run(kind: str, job: Job) -> Outcome:
    """Run it to its end."""
    _, outcome = start(kind, job)
    return await asyncio.wait_for(outcome, DEADLINE_SECONDS)


def log_text(job: Job) -> str:
    """What is in its log."""
    return Path(job.log).read_text(errors="surrogateescape")


async def read_fifo(fifo: Path) -> str:
    """What the next writer of this FIFO says; the way for a task to tell its test that it has come so far."""
    return await asyncio.wait_for(asyncio.to_thread(fifo.read_text), DEADLINE_SECONDS)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until the condition holds; an error if that takes too long."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110 - other programs' processes end without telling us
            await asyncio.sleep(0.002)


def exists(pid: int) -> bool:
    """Whether there is such a process, even an unreaped one."""
    return os.path.exists(f"/proc/{pid}")


def carrying(task: int) -> list[int]:
    """The processes whose environment names this task's attempt: none may be left after its end."""
    mark = f"DSFAST_ATTEMPT_KEY={run_text(RUN)}.{task}.1".encode()
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            environ = Path("/proc", name, "environ").read_bytes()
        except OSError:
            continue
        if mark in environ.split(b"\0"):
            found.append(int(name))
    return found
