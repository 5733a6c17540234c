"""Tasks that testify for themselves, on daemons that can be killed by the millisecond; medians and floors of that.

A task's first act is to append its name, its attempt and the time to a file (bash's EPOCHREALTIME, microseconds), so
what is measured ends in the new process itself and not in what somebody was told of it.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
from pytest_benchmark.fixture import BenchmarkFixture

from dsfast.client import Client
from dsfast.model import Task, Workflow, canonical
from tests.integration.cluster import Cluster
from tests.integration.local_cluster import run_dsfast
from tests.workflows import config

LOOK_SECONDS = 0.002  # between two looks at a file: what is in it carries its own time
DEADLINE_SECONDS = 60.0


class Start(NamedTuple):
    """What a task wrote when it started; `at` is the wall clock's."""

    run: str
    task: str
    attempt: int
    at: float


class Gate:
    """A pipe that running tasks wait at, without looking again and again, until it is opened."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.wait = f"read -r _ < {file} || true"  # read says that it met the end
        os.mkfifo(file)

    def open(self) -> None:
        os.close(os.open(self.file, os.O_WRONLY))


class Witness:
    """A file to which every attempt of some tasks appends a line as it starts."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.file.touch()

    def task(self, name: str, then: str = "exec sleep 86400", **traits: object) -> Task:
        script = f'echo "$DSFAST_RUN_ID $DSFAST_TASK $DSFAST_ATTEMPT $EPOCHREALTIME" >> {self.file}\n{then}'
        return Task(name=name, type="shell", config=config(script=script, shell="bash"), **traits)  # type: ignore[arg-type]

    def starts(self) -> list[Start]:
        lines = self.file.read_text().splitlines()
        return [Start(run, task, int(attempt), float(at)) for run, task, attempt, at in map(str.split, lines)]

    def wait(self, cluster: Cluster, count: int) -> list[Start]:
        """The starts, once there are so many."""
        until(lambda: len(self.starts()) >= count, cluster)
        return self.starts()


def until(condition: Callable[[], bool], cluster: Cluster) -> None:
    """Look closely until a condition holds; fails with the daemons' logs."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, cluster.story()
        time.sleep(LOOK_SECONDS)


def says(cluster: Cluster, daemon: str, *words: str) -> int:
    """How many lines of a daemon's log hold all these words."""
    lines = (cluster.folder / f"{daemon}.log").read_text().splitlines()
    return sum(all(word in line for word in words) for line in lines)


def until_linked(cluster: Cluster, worker: str, lives: int, master: str = "m1") -> None:
    """Wait until the master has linked so many lives of a worker."""
    until(lambda: says(cluster, master, "link_up", f"peer={worker}@") >= lives, cluster)


def migrate(cluster: Cluster) -> None:
    """Make the tables of a cluster's database."""
    created = run_dsfast("db", "upgrade", environ=cluster.environ, folder=cluster.folder)
    assert created.returncode == 0, created


def submit(client: Client, name: str, *tasks: Task) -> str:
    return client.submit(msgspec.Raw(canonical(Workflow(name=name, tasks=tasks)))).id


# -- figures ------------------------------------------------------------------------------------------------------


def trials(benchmark: BenchmarkFixture, count: int) -> int:
    """How many of `count` to make: one when the benchmark is only run to see that it can."""
    return 1 if benchmark.disabled else count


def note(benchmark: BenchmarkFixture, **figures: float) -> None:
    """Keep figures with the result, and print them."""
    rounded = {key: float(f"{value:.4g}") for key, value in figures.items()}
    benchmark.extra_info.update(rounded)
    print("  " + "  ".join(f"{key} {value:g}" for key, value in rounded.items()))


def spread(name: str, seconds: Sequence[float]) -> dict[str, float]:
    """Least, median and 99th percentile, in milliseconds."""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]
    figures = {"min": ordered[0], "p50": statistics.median(ordered), "p99": p99}
    return {f"{name}_{key}_ms": value * 1000 for key, value in figures.items()}


def killed_peer_seconds(count: int = 20) -> float:
    """Floor: from kill -9 of a process as large as a worker to the end of its connection, seen by who reads it."""
    program = (
        "import dsfast.runtime.worker, sqlalchemy, socket, sys, time;"
        "s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); s.send(b'!'); time.sleep(600)"
    )
    seconds = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        for _ in range(count):
            process = subprocess.Popen([sys.executable, "-c", program, str(server.getsockname()[1])])
            peer, _ = server.accept()
            with peer:
                peer.recv(1)
                began = time.perf_counter()
                os.kill(process.pid, signal.SIGKILL)
                with suppress(ConnectionResetError):
                    peer.recv(1)
                seconds.append(time.perf_counter() - began)
            process.wait()
    return statistics.median(seconds)


def bare_start_seconds(folder: Path, count: int = 20) -> float:
    """Floor: from a bare posix_spawn of a task's script to what that writes first."""
    witness = Witness(folder / "bare")
    script = folder / "bare.sh"
    script.write_text(f'echo "none bare 1 $EPOCHREALTIME" >> {witness.file}\n')
    seconds = []
    for _ in range(count):
        began = time.time()
        os.waitpid(os.posix_spawn("/bin/bash", ["bash", str(script)], {}), 0)
        seconds.append(witness.starts()[-1].at - began)
    return statistics.median(seconds)
