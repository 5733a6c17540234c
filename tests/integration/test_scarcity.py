"""A worker's machine runs out of processes, of memory: it costs the task that takes all of it, and nobody else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from dsfast.chaos.cluster import Cluster
from dsfast.client import Client
from dsfast.model import Task, Workflow, canonical
from tests.integration.confined import Confined, group
from tests.integration.local_cluster import run_dsfast
from tests.workflows import shell

PROCESSES = 300  # in the group of a worker: it has three, and some threads
MEMORY_BYTES = 512 << 20
BOMB_SECONDS = 2.0
BOMB = "trap '' TERM; boom() { boom | boom & }; boom; while :; do sleep 1000; done"  # only SIGKILL ends it
EATER = f"exec {sys.executable} -c 'eaten = []\nwhile True: eaten.append(bytearray(16 << 20))'"


@contextmanager
def confined(folder: Path, resource: str, limit: int) -> Iterator[tuple[Cluster, Path]]:
    """A cluster whose one worker has so much of something for itself and its tasks; and the worker's group."""
    with group(resource, limit) as place:
        registry = f"database+sqlite:///{folder}/registry.db"
        settings = {"DSFAST_MASTER_KILL_GRACE_SECONDS": "0.5"}
        made = Cluster(folder, f"sqlite:///{folder}/db", registry, network=Confined("w1", place), settings=settings)
        assert run_dsfast("db", "upgrade", environ=made.environ, folder=folder).returncode == 0
        try:
            made.start_all(masters=1, workers=1, slots=4)
            yield made, place
        finally:
            made.stop()


def submit(client: Client, *tasks: Task) -> str:
    return client.submit(msgspec.Raw(canonical(Workflow(name="w", tasks=tasks)))).id


class Neighbour:
    """A task that waits, and needs no further process for it: there may be none to be had."""

    def __init__(self, folder: Path) -> None:
        self._started, self._gate = folder / "started", folder / "gate"
        os.mkfifo(self._gate)
        self.task = shell("neighbour", f"echo > {self._started}; read _ < {self._gate}")

    def runs(self) -> bool:
        return self._started.exists()

    def end(self) -> None:
        self._gate.write_text("\n")


def judge(nodes: Cluster, client: Client, neighbour: Neighbour, waiting: str, pids: list[int]) -> None:
    """The worker is the same, its other task has run through, and it takes new ones."""
    neighbour.end()
    for run in (waiting, submit(client, shell("after", "true"))):
        nodes.until(lambda run=run: client.run(run).state == "succeeded")  # type: ignore[misc]
        assert [task.attempts for task in client.tasks(run)] == [1], nodes.story()
    assert nodes.pids("w1") == pids


def test_a_fork_bomb_ends_with_its_timeout_and_takes_nobody_along(tmp_path: Path) -> None:
    neighbour = Neighbour(tmp_path)
    with confined(tmp_path, "pids", PROCESSES) as (nodes, place), nodes.client() as client:
        pids = nodes.pids("w1")
        waiting = submit(client, neighbour.task)
        nodes.until(neighbour.runs)
        run = submit(client, shell("bomb", BOMB, timeout=BOMB_SECONDS))
        nodes.until(lambda: client.run(run).state == "failed")
        (attempt,) = client.task(run, "bomb").history
        assert (attempt.exit_code, attempt.reason) == (137, f"timed out after {BOMB_SECONDS:g} s")
        assert not (place / "pids.events").read_text().startswith("max 0"), "it did not take all there is"
        nodes.until(lambda: len((place / "cgroup.procs").read_text().split()) < PROCESSES / 10)
        judge(nodes, client, neighbour, waiting, pids)


def test_a_task_that_takes_all_memory_is_killed_and_nobody_else(tmp_path: Path) -> None:
    neighbour = Neighbour(tmp_path)
    with confined(tmp_path, "memory", MEMORY_BYTES) as (nodes, _), nodes.client() as client:
        pids = nodes.pids("w1")
        waiting = submit(client, neighbour.task)
        nodes.until(neighbour.runs)
        run = submit(client, shell("eater", EATER))
        nodes.until(lambda: client.run(run).state == "failed")
        (attempt,) = client.task(run, "eater").history
        assert (attempt.exit_code, attempt.reason) == (137, "killed by SIGKILL")
        judge(nodes, client, neighbour, waiting, pids)
