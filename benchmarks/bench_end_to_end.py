"""What does a task cost from submit to its durable end, with master and worker as `dsfast run` has them?

Everything is committed with fsync (SQLite, synchronous=FULL). The lone commit beside it is what one hop cannot do
without. Compare within one run.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.witness import note
from dsfast.config import load_config
from dsfast.model import RunState, Workflow, canonical
from dsfast.runtime.embedded import Embedded
from tests.workflows import chain, flat

HOPS = 200
FLAT = 10_000
HUGE = 100_000
ROUNDS = 3
RUN_SECONDS_MAX = 300.0
ONE_TASK = "name: one\ntasks:\n  hello:\n    script: echo hello\n"


def with_embedded(folder: Path, work: Callable[[Embedded], Awaitable[None]]) -> None:
    """Run `work` with a master and a worker in this process."""
    flags = {"state_dir": str(folder), "master.port": 0, "worker.port": 0, "worker.slots": 2}
    config = load_config(flags=flags, environ={})

    async def main() -> None:
        async with Embedded(config) as embedded:
            await work(embedded)

    uvloop.run(main())


def measure(benchmark: BenchmarkFixture, folder: Path, workflow: Workflow, rounds: int = ROUNDS) -> float:
    """Run the workflow some times in one process; the median seconds."""
    body = canonical(workflow)
    seconds: list[float] = []

    async def work(embedded: Embedded) -> None:
        for _ in range(rounds):
            begin = time.perf_counter()
            row = await asyncio.wait_for(embedded.wait(await embedded.submit(body, b"{}")), RUN_SECONDS_MAX)
            seconds.append(time.perf_counter() - begin)
            assert row.state is RunState.SUCCEEDED

    benchmark.pedantic(with_embedded, (folder, work), rounds=1)
    return sorted(seconds)[len(seconds) // 2]


def lone_commit_seconds(folder: Path, count: int = 200) -> float:
    """What a durable commit of one row costs here, alone."""
    with sqlite3.connect(folder / "floor.db", isolation_level=None) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT)")
        begin = time.perf_counter()
        for number in range(count):
            connection.execute("INSERT INTO t VALUES (?, ?)", (number, "x" * 100))
        spent = time.perf_counter() - begin
    connection.close()
    return spent / count


@pytest.mark.benchmark(group="end to end")
def test_hop_in_a_chain(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """From the end of a task to the start of its successor and its end, durable."""
    seconds = measure(benchmark, tmp_path, chain(HOPS)) / HOPS
    floor = lone_commit_seconds(tmp_path)
    note(benchmark, hop_us=seconds * 1e6, commit_alone_us=floor * 1e6, times_the_floor=seconds / floor)


@pytest.mark.benchmark(group="end to end")
def test_flat_noop_tasks(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    seconds = measure(benchmark, tmp_path, flat(FLAT)) / FLAT
    note(benchmark, task_us=seconds * 1e6, tasks_per_second=1 / seconds)


@pytest.mark.benchmark(group="end to end")
def test_a_run_of_100000_tasks(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Accepted and run to its end; what memory the whole process grew by, per task."""
    workflow = flat(HUGE)
    before = resident_bytes()
    seconds = measure(benchmark, tmp_path, workflow, rounds=1)
    grown = (peak_bytes() - before) / HUGE
    note(benchmark, seconds=seconds, tasks_per_second=HUGE / seconds, peak_bytes_per_task=grown)


@pytest.mark.benchmark(group="command line")
def test_dsfast_run_of_one_task(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """The whole command, from exec to exit; beside a bare interpreter and one that only imports what is needed."""
    file = tmp_path / "one.yaml"
    file.write_text(ONE_TASK)
    environ = {**os.environ, "DSFAST_STATE_DIR": str(tmp_path / "state")}
    imports = (
        "import uvloop, dsfast.cli.run, dsfast.formats.yaml_workflow, dsfast.runtime.embedded, dsfast.store.sqlite"
    )

    def command(*args: str) -> None:
        subprocess.run([sys.executable, *args], check=True, capture_output=True, env=environ)

    command("-m", "dsfast", "run", str(file))
    benchmark.pedantic(command, ("-m", "dsfast", "run", str(file)), rounds=ROUNDS)
    whole = best(lambda: command("-m", "dsfast", "run", str(file)))
    note(
        benchmark,
        whole_s=whole,
        interpreter_s=best(lambda: command("-c", "pass")),
        interpreter_and_imports_s=best(lambda: command("-c", imports)),
    )


def best(call: Callable[[], object], times: int = 3) -> float:
    """The least seconds of some calls."""
    spent = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        spent.append(time.perf_counter() - begin)
    return min(spent)


def resident_bytes() -> int:
    return _status_bytes("VmRSS")


def peak_bytes() -> int:
    return _status_bytes("VmHWM")


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"/proc/self/status has no {field}")
