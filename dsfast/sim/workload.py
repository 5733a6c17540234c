"""Random workflows whose end can be told in advance, and how each of their tasks behaves on a worker."""

from __future__ import annotations

import random
from functools import lru_cache

import msgspec

from dsfast.model import OnDisconnect, OnFailure, Priority, Retry, Task, Workflow
from dsfast.wire.spec import TaskSpec

SECONDS_MORE = 1.25  # times longer than it should a task may take, by its machine and by its clock
ON_DISCONNECT = (OnDisconnect(stop_after=20.0), OnDisconnect(replace_after=30.0), OnDisconnect(replace=False))
GROUPS = ("default", "default", "default", "gpu", "both")


class Behaviour(msgspec.Struct, frozen=True):
    """What a task does: it takes `seconds`, fails so many times first, and may not heed a polite kill."""

    seconds: float = 0.0
    fails: int = 0
    stubborn: bool = False
    outputs: bool = False
    reads: str = ""  # a template, so that the outputs of other tasks are handed to it


class _Config(msgspec.Struct):
    behaviour: Behaviour


@lru_cache(maxsize=4096)
def spec_of(spec: bytes) -> TaskSpec:
    """What a worker is sent of a task."""
    return msgspec.json.decode(spec, type=TaskSpec)


@lru_cache(maxsize=4096)
def behaviour_of(spec: bytes) -> Behaviour:
    """The behaviour in it."""
    return msgspec.json.decode(spec_of(spec).config, type=_Config).behaviour


def behaviour(task: Task) -> Behaviour:
    """The behaviour in a task's config."""
    return msgspec.json.decode(task.config, type=_Config).behaviour


def random_workflow(rng: random.Random, name: str) -> Workflow:
    """A workflow of 0 to 24 tasks of all kinds."""
    size = rng.choice((1, 2, 3, 5, 8, 12, 24)) if rng.random() > 0.02 else 0
    density = rng.choice((0.0, 0.1, 0.3, 1.0))
    calm = rng.random() < 0.5  # nothing fails by itself
    tasks: list[Task] = []
    for position in range(size):
        needs = [tasks[at].name for at in range(max(0, position - 4), position) if rng.random() < density]
        if density == 1.0:
            needs = needs[-1:]
        tasks.append(_random_task(rng, f"t{position}", tuple(needs), calm))
    return Workflow(
        name=name,
        tasks=tuple(tasks),
        priority=rng.choice(list(Priority)),
        on_failure=OnFailure.STOP if rng.random() < 0.3 else OnFailure.CONTINUE,
    )


def _random_task(rng: random.Random, name: str, needs: tuple[str, ...], calm: bool) -> Task:
    retry = Retry(rng.choice((0, 0, 1, 3)), rng.choice((0.0, 0.5, 20.0)), rng.choice((1.0, 2.0)))
    timeout = rng.choice((0.5, 3.0)) if not calm and rng.random() < 0.1 else None
    acts = Behaviour(
        seconds=rng.choice((0.0, 0.0, 0.001, 0.02, 0.3, 2.0, 8.0, 40.0)),
        fails=0 if calm else rng.choice((0, 0, 0, 0, 1, 2, 9)),
        stubborn=rng.random() < 0.1,
        outputs=rng.random() < 0.3,
        reads=f"{{{{ tasks.{rng.choice(needs)}.value }}}}" if needs and rng.random() < 0.3 else "",
    )
    return Task(
        name=name,
        type="noop",
        needs=needs,
        config=msgspec.Raw(msgspec.json.encode(_Config(acts))),
        retry=retry,
        timeout=timeout,
        delay=rng.choice((0.0,) * 8 + (0.3, 15.0)),
        priority=rng.choice(list(Priority)),
        group=rng.choice(GROUPS),
        enabled=rng.random() > 0.08,
        on_disconnect=rng.choice(ON_DISCONNECT) if rng.random() < 0.2 else None,
    )


def hopeless(timeout: float | None, acts: Behaviour, retries: int) -> bool:
    """Whether the task may fail for good by its own doing."""
    slow = timeout is not None and acts.seconds * SECONDS_MORE >= timeout
    return slow or acts.fails > retries
