"""What does a process cost as a task? Through the shell task (own session, log, watching, proof that nothing is left)
beside a bare loop over posix_spawn, one at a time (`serial`), eight at a time (`wide`), and eight at a time with a log
file each under the event loop (`logged`), in the same run; and through the whole system, from submit to the durable
end, as `dsfast run` has it and by daemons.

Most of it is the kernel's and the dynamic linker's, and grows with neighbours on the machine: compare columns. What
is ours is the processor time of our own programs (`cpu_us`), which neighbours disturb least.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.figures import Beside, Figure, rounds
from benchmarks.witness import migrate, trials
from dsfast.config import load_config
from dsfast.model import AttemptState, Outcome, RunState, canonical
from dsfast.runtime.embedded import Embedded
from dsfast.tasks.base import Job
from dsfast.tasks.types import task_type
from tests.attempts import make_job
from tests.integration.cluster import cluster
from tests.workflows import flat

COUNT = 200
COUNT_WHOLE = 1_000  # tasks of one run through the whole system
COUNT_LOOK = 40  # of them, when the benchmark is only run to see that it can
ROUNDS_WHOLE = 5
COUNT_PYTHON = 20  # a bare start of Python takes ten times as long as one of /bin/true
WIDTH = 8  # enough to keep two cores busy while one process is being started
BALLAST_BYTES = 50 << 20  # a worker is not a bare interpreter: what a start costs must not grow with its memory


@pytest.fixture(autouse=True)
def ballast() -> Iterator[None]:
    memory = bytearray(BALLAST_BYTES)
    memory[::4096] = b"x" * len(memory[::4096])
    yield
    memory.clear()


def spawn(argv: list[str]) -> int:
    return os.posix_spawn(argv[0], argv, {"PATH": os.environ["PATH"]})


def serial(argv: list[str]) -> None:
    for _ in range(COUNT):
        os.waitpid(spawn(argv), 0)


def wide(argv: list[str], count: int = COUNT) -> None:
    """Eight at a time, each watched by its pidfd: the least that an event loop has to do."""
    with selectors.EpollSelector() as selector:
        to_start, running = count, 0
        while to_start or running:
            while to_start and running < WIDTH:
                pid = spawn(argv)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)
                to_start, running = to_start - 1, running + 1
            for key, _ in selector.select():
                selector.unregister(key.fd)
                os.close(key.fd)
                os.waitpid(key.data, 0)
                running -= 1


async def logged(argv: list[str], folder: Path, width: int) -> None:
    """So many at a time under the event loop, each with a log file of its own: the least that a task can be."""
    loop = asyncio.get_running_loop()
    finished = loop.create_future()
    waiting, running = iter(range(COUNT)), 0

    def begin() -> None:
        nonlocal running
        number = next(waiting, None)
        if number is not None:
            log = os.open(folder / f"bare.{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, log, 1)])
            os.close(log)
            loop.add_reader(fd := os.pidfd_open(pid), ended, fd, pid)
            running += 1

    def ended(fd: int, pid: int) -> None:
        nonlocal running
        loop.remove_reader(fd)
        os.close(fd)
        os.waitpid(pid, 0)
        running -= 1
        begin()
        if running == 0 and not finished.done():
            finished.set_result(None)

    for _ in range(width):
        begin()
    await finished


async def attempts(kind: str, jobs: list[Job], width: int) -> None:
    """Run the jobs, `width` at a time, each starting the next when it ends."""
    finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting, unfinished = iter(jobs), len(jobs)

    def begin() -> None:
        job = next(waiting, None)
        if job is not None:
            task_type(kind).start(job, done)

    def done(outcome: Outcome) -> None:
        nonlocal unfinished
        unfinished -= 1
        if outcome.state is not AttemptState.SUCCEEDED:
            finished.set_exception(AssertionError(outcome.reason))
        elif unfinished == 0:
            finished.set_result(None)
        begin()

    for _ in range(width):
        begin()
    await finished
    task_type(kind).close()


def ours(kind: str, root: Path, width: int, count: int = COUNT, **config: Any) -> Callable[[], Callable[[], Any]]:
    jobs = [make_job(kind, root, task=number, **config) for number in range(count)]
    return lambda: lambda: uvloop.run(attempts(kind, jobs, width))


def bare(loop: Callable[[list[str]], None], *argv: str) -> Callable[[], Callable[[], Any]]:
    return lambda: lambda: loop(list(argv))


def test_bin_true(beside: Callable[..., None], tmp_path: Path) -> None:
    beside(
        COUNT,
        ours("shell", tmp_path, WIDTH, command=["/bin/true"]),
        serial=bare(serial, "/bin/true"),
        wide=bare(wide, "/bin/true"),
        logged=lambda: lambda: uvloop.run(logged(["/bin/true"], tmp_path, WIDTH)),
    )


def test_bin_true_one_at_a_time(beside: Callable[..., None], tmp_path: Path) -> None:
    beside(COUNT, ours("shell", tmp_path, 1, command=["/bin/true"]), serial=bare(serial, "/bin/true"))


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_script(beside: Callable[..., None], tmp_path: Path, shell: str) -> None:
    beside(
        COUNT,
        ours("shell", tmp_path, WIDTH, script=":", shell=shell),
        serial=bare(serial, f"/bin/{shell}", "-c", ":"),
        wide=bare(wide, f"/bin/{shell}", "-c", ":"),
    )


def test_python_warm(beside: Callable[..., None], tmp_path: Path) -> None:
    """A python task in a warm process, beside a bare start of Python for a like piece of code."""
    command = ["/usr/bin/env", "python3", "-I", "-S", "-c", "result = 1"]

    def cold() -> None:
        for _ in range(COUNT_PYTHON):
            os.waitpid(spawn(command), 0)

    warm = ours("python", tmp_path, 1, COUNT_PYTHON, source="result = 1")
    beside(COUNT_PYTHON, warm, cold_start=lambda: cold)


# -- the whole system ---------------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """A task: its settings, the same process started bare, and how many a second are aimed at."""

    settings: dict[str, Any]
    argv: list[str]
    target: float  # where the bare loop does 3,150


KINDS = pytest.mark.parametrize(
    "kind",
    [
        Kind({"command": ["/bin/true"]}, ["/bin/true"], 2_000.0),
        Kind({"script": ":"}, ["/bin/sh", "-c", ":"], 1_700.0),
    ],
    ids=["bin_true", "script_sh"],
)


class Spent(NamedTuple):
    """Seconds of some processes: on the wall, of the processor by us, and by what we have started and reaped."""

    wall: float
    ours: float
    theirs: float

    def __sub__(self, other: Spent) -> Spent:  # type: ignore[override]
        return Spent(*(ours - theirs for ours, theirs in zip(self, other, strict=True)))


def spent(*pids: int) -> Spent:
    """What these processes, or this one, have spent so far."""
    ticks = [0.0] * 4
    for pid in pids or (os.getpid(),):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = [sum(pair) for pair in zip(ticks, map(int, fields[11:15]), strict=True)]
    user, system, user_below, system_below = (each / os.sysconf("SC_CLK_TCK") for each in ticks)
    return Spent(time.perf_counter(), user + system, user_below + system_below)


def bare_spent(argv: list[str]) -> Spent:
    before = spent()
    wide(argv, COUNT_WHOLE)
    return spent() - before


def judged(what: str, runs: list[Spent], bare: list[Spent], target: float) -> tuple[Figure, Figure, Figure]:
    """Tasks a second beside a bare loop; processor time of ours per task; and the part of all that the loop takes,
    which is what the first comes to when nobody else uses the machine."""
    task = Spent(*(statistics.median(column) / COUNT_WHOLE for column in zip(*runs, strict=True)))
    floor = Spent(*(statistics.median(column) / COUNT_WHOLE for column in zip(*bare, strict=True)))
    alone = Beside(1 / floor.wall, "a bare posix_spawn loop")
    part = (floor.ours + floor.theirs) / (task.ours + task.theirs) * 100
    return (
        rounds(what, [COUNT_WHOLE / run.wall for run in runs], "per s", floor=alone, target=target),
        Figure(what=f"{what}: our processor time", value=task.ours * 1e6, unit="us"),
        Figure(what=f"{what}: processor time of the bare loop, of ours and the tasks'", value=part, unit="%"),
    )


@pytest.mark.benchmark(group="processes through the whole system")
@KINDS
def test_whole_system(benchmark: BenchmarkFixture, tell: Callable[..., None], tmp_path: Path, kind: Kind) -> None:
    """Submit to durable end (SQLite, synchronous=FULL), eight at a time; beside it the same processes started bare."""
    flags = {"state_dir": str(tmp_path), "master.port": 0, "worker.port": 0, "worker.slots": WIDTH}
    body = canonical(flat(COUNT_LOOK if benchmark.disabled else COUNT_WHOLE, "shell", **kind.settings))
    runs: list[Spent] = []
    bare: list[Spent] = []

    async def work() -> None:
        async with Embedded(load_config(flags=flags, environ={})) as embedded:
            for _ in range(trials(benchmark, ROUNDS_WHOLE)):
                bare.append(bare_spent(kind.argv))
                before = spent()
                row = await embedded.wait(await embedded.submit(body, b"{}"))
                runs.append(spent() - before)
                assert row.state is RunState.SUCCEEDED

    benchmark.pedantic(lambda: uvloop.run(work()), rounds=1)
    tell(*judged(f"{kind.argv[0]}, embedded", runs, bare, kind.target))


@pytest.mark.benchmark(group="processes through the whole system")
@KINDS
def test_daemons(benchmark: BenchmarkFixture, tell: Callable[..., None], tmp_path: Path, kind: Kind) -> None:
    """The same by a master and a worker that are processes of their own, with guardians, journal and registry."""
    count = COUNT_LOOK if benchmark.disabled else COUNT_WHOLE
    body = msgspec.Raw(canonical(flat(count, "shell", **kind.settings)))
    runs: list[Spent] = []
    bare: list[Spent] = []

    def work() -> None:
        with cluster(tmp_path, f"sqlite:///{tmp_path}/db", f"database+sqlite:///{tmp_path}/registry.db") as nodes:
            migrate(nodes)
            nodes.start_all(1, 1, slots=WIDTH)
            pids = [nodes.pids(name)[-1] for name in ("m1", "w1")]
            for _ in range(trials(benchmark, ROUNDS_WHOLE)):
                bare.append(bare_spent(kind.argv))
                before = spent(*pids)
                with nodes.client() as client:
                    view = client.wait(client.submit(body).id)
                runs.append(spent(*pids) - before)
                assert view is not None
                assert view.state == "succeeded"

    benchmark.pedantic(work, rounds=1)
    tell(*judged(f"{kind.argv[0]}, daemons", runs, bare, kind.target))
