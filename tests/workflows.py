"""Workflows that several tests and benchmarks run."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from dsfast.model import Task, Workflow


def config(**settings: Any) -> msgspec.Raw:
    """The settings of a task's type."""
    return msgspec.Raw(msgspec.json.encode(settings))


def shell(name: str, script: str, **traits: Any) -> Task:
    return Task(name=name, type="shell", config=config(script=script), **traits)


def flat(count: int, type_: str = "noop", **settings: Any) -> Workflow:
    """So many tasks that need nothing."""
    return Workflow(
        name="flat", tasks=tuple(Task(name=f"t{n}", type=type_, config=config(**settings)) for n in range(count))
    )


def chain(count: int, type_: str = "noop") -> Workflow:
    """Each task needs the one before."""
    tasks = (Task(name=f"t{n}", type=type_, needs=(f"t{n - 1}",) if n else ()) for n in range(count))
    return Workflow(name="chain", tasks=tuple(tasks))


def alignment(chunks: int, *, scale: float = 0.001, seed: int = 3) -> Workflow:
    """The shape of a BWA alignment trace: split, index, so many alignments of chunks, as many merges, two concats."""
    rng = random.Random(seed)

    def nap(name: str, seconds: float, *needs: str) -> Task:
        return Task(name=name, type="sleep", needs=needs, config=config(seconds=seconds * scale))

    tasks = [nap("fastq_reduce", 20), nap("bwa_index", 30)]
    for number in range(chunks):
        tasks.append(nap(f"bwa_{number}", rng.uniform(1, 30), "fastq_reduce", "bwa_index"))
        tasks.append(nap(f"sort_{number}", rng.uniform(0.5, 5), f"bwa_{number}"))
    sorts = [f"sort_{number}" for number in range(chunks)]
    tasks += [nap("cat_bwa", 5, *sorts), nap("cat", 1, "cat_bwa")]
    return Workflow(name="alignment", tasks=tuple(tasks))
