"""How much faster than polling? dsfast beside the design that it replaces, on one PostgreSQL and one ZooKeeper.

The baseline (benchmarks/baseline) is rebuilt from what is known of DolphinScheduler 1.2.0 (`queue`) and 1.3.5 (`tcp`),
with its sleeps as shipped and with a tenth of them. Both clusters have one master and two workers as processes, stand
side by side and are given the same workflows; every task is a process, as the original knows no other. Its later
releases are another design, and are not measured here.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.baseline.cluster import Baseline, baseline, task
from benchmarks.baseline.settings import Mode
from benchmarks.baseline.shell import descendants
from benchmarks.baseline.tables import State
from dsfast.model import Workflow, canonical
from dsfast.views import RunView
from tests.integration.cluster import Cluster, cluster
from tests.servers.postgres import PostgresServer
from tests.servers.zookeeper import ZooKeeperServer
from tests.workflows import shell

POLLS = {"shipped": 1.0, "tenth": 0.1}  # the sleep of every loop, in seconds
# The least that a ZooKeeper grants whose tickTime is the default. By hand: 40, as 1.2.0 ships.
FAILOVER_SESSION_SECONDS = float(os.environ.get("BASELINE_SESSION_SECONDS", "4"))
DSFAST_SESSION_SECONDS = 10.0  # its default
WORKERS, SLOTS = 2, 10
RUN_SECONDS_MAX = 120.0
SPARES = count(1)  # daemons for those that are killed
WAITING = 80  # tasks that wait while as many run as may


@dataclass(frozen=True)
class Size:
    """How much is measured; `look` is for a run that only sees whether this file still works."""

    chain: int = 4
    rounds: int = 5  # of the baseline: it is slow
    rounds_dsfast: int = 11
    flat: int = 30
    singles: int = 5
    kills: int = 3
    idle_seconds: float = 15.0
    polls: float = 1.0  # what the sleeps are multiplied by


LOOK = Size(chain=2, rounds=1, rounds_dsfast=1, flat=4, singles=1, kills=1, idle_seconds=0.5, polls=0.3)
Steps = list[dict[str, Any]]  # as the original's definitions have them


class System(Protocol):
    """What both are asked to do: a workflow is made known, started some times, and waited for."""

    period_seconds: float  # of its loops

    def define(self, steps: Steps) -> Any: ...

    def start(self, known: Any) -> None: ...

    def wait(self, known: Any, count: int) -> None: ...


class Old:
    """The baseline as a system."""

    def __init__(self, old: Baseline, period_seconds: float) -> None:
        self.old, self.period_seconds = old, period_seconds

    def define(self, steps: Steps) -> int:
        return self.old.define(steps)

    def start(self, known: int) -> None:
        self.old.submit(known)

    def wait(self, known: int, count: int) -> None:
        assert {row["state"] for row in self.old.ended(known, count)} == {State.SUCCESS}, self.old.story()


class New:
    """dsfast as a system: the whole definition goes with each submit, over HTTP. It has no loop that sleeps."""

    period_seconds = 0.0

    def __init__(self, nodes: Cluster, database: str, sessions: set[str]) -> None:
        self.nodes, self.database, self.sessions = nodes, database, sessions
        self.client = nodes.client()

    def define(self, steps: Steps) -> tuple[msgspec.Raw, list[RunView]]:
        tasks = (shell(step["name"], step["params"]["rawScript"], needs=tuple(step["preTasks"])) for step in steps)
        return msgspec.Raw(canonical(Workflow(name="beside", tasks=tuple(tasks)))), []

    def start(self, known: tuple[msgspec.Raw, list[RunView]]) -> None:
        known[1].append(self.client.submit(known[0]))

    def run_gated(self, steps: Steps, marks: Path) -> tuple[msgspec.Raw, list[RunView]]:
        """Start a workflow whose first task will wait, and wait until it does."""
        known = self.define(steps)
        self.start(known)
        self.nodes.until(lambda: self.client.run(known[1][0].id).counts.get("running") == 1 and len(read(marks)) == 1)
        return known

    def wait(self, known: tuple[msgspec.Raw, list[RunView]], count: int) -> None:
        ends = [self.client.wait(run.id, RUN_SECONDS_MAX) for run in known[1]]
        assert [end.state for end in ends if end] == ["succeeded"] * count, self.nodes.story()


@pytest.fixture(scope="module")
def size(request: pytest.FixtureRequest) -> Size:
    return LOOK if request.config.getoption("benchmark_disable") else Size()


@pytest.fixture(scope="module")
def new(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, zookeeper_server: ZooKeeperServer
) -> Iterator[New]:
    url = postgres_server.new_migrated_database()
    with cluster(tmp_path_factory.mktemp("dsfast"), url, zookeeper_server.new_url()) as nodes:
        nodes.environ["DSFAST_REGISTRY_SESSION_SECONDS"] = str(DSFAST_SESSION_SECONDS)
        nodes.start_all(masters=1, workers=WORKERS, slots=SLOTS)
        system = New(nodes, url, set(zookeeper_server.received()))
        yield system
        system.client.close()


@dataclass(frozen=True)
class Beside:
    """A running baseline and what only a benchmark asks of it."""

    system: Old
    database: str
    label: str


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Both modes with all sleeps; a look at whether this file still works needs less."""
    look = metafunc.config.getoption("benchmark_disable")
    if "old" in metafunc.fixturenames:
        labels = [f"{mode}-{sleeps}" for mode in ("queue", "tcp") for sleeps in (["tenth"] if look else POLLS)]
        metafunc.parametrize("old", labels, indirect=True, scope="module")
    if "fragile" in metafunc.fixturenames:
        metafunc.parametrize("fragile", ["queue"] if look else ["queue", "tcp"], indirect=True, scope="module")


def sleeping(poll_seconds: float, size: Size) -> dict[str, Any]:
    """The baseline's settings; memory that neighbours use on this machine is not held against it."""
    return {"poll_seconds": poll_seconds * size.polls, "weights_seconds": 5.0 * size.polls, "reserved_gb": 0.0}


@pytest.fixture(scope="module")
def old(
    request: pytest.FixtureRequest,
    size: Size,
    new: New,
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: PostgresServer,
    zookeeper_server: ZooKeeperServer,
) -> Iterator[Beside]:
    """After `new`: whoever joins ZooKeeper later is this baseline."""
    mode, _, sleeps = request.param.partition("-")
    url = postgres_server.new_database()
    settings = sleeping(POLLS[sleeps], size)
    folder = tmp_path_factory.mktemp(request.param)
    with baseline(folder, url, zookeeper_server.hosts, cast(Mode, mode), **settings) as made:
        made.start_all(masters=1, workers=WORKERS)
        made.run([task("warm", "true")])
        yield Beside(Old(made, settings["poll_seconds"]), url, request.param)


def marking(marks: Path) -> str:
    """A script that notes when it ran, without a process of its own for that."""
    return f"LC_ALL=C exec bash -c 'echo $EPOCHREALTIME >> {marks}'"


def read(marks: Path) -> list[float]:
    return [float(line) for line in marks.read_text().split()] if marks.exists() else []


def run(system: System, steps: Steps, times: int = 1) -> float:
    """Seconds from the first start to the last end."""
    known = system.define(steps)
    begin = time.perf_counter()
    for _ in range(times):
        system.start(known)
    system.wait(known, times)
    return time.perf_counter() - begin


def travel(system: System, marks: Path, count: int) -> list[float]:
    """Run a chain; the seconds from its submit to its first task, and from each task to the next.

    It is submitted at any moment of the polling loops: just after a workflow has ended would always be the same one.
    """
    marks.unlink(missing_ok=True)
    steps = [task(f"t{n}", marking(marks), *([f"t{n - 1}"] if n else [])) for n in range(count)]
    known = system.define(steps)
    threading.Event().wait(random.uniform(0.0, system.period_seconds))
    times = [time.time()]
    system.start(known)
    system.wait(known, 1)
    times += read(marks)
    return [after - before for before, after in pairwise(times)]


def compare(benchmark: BenchmarkFixture, what: str, ours: float, theirs: float, unit: str) -> None:
    """Print both with how many times better dsfast is, and keep them with the result."""
    better, worse = (ours, theirs) if unit == "per s" else (theirs, ours)
    times = f"{better / worse:,.0f} times" if worse else ""
    benchmark.extra_info[what] = {"dsfast": ours, "baseline": theirs, "unit": unit, "ratio": times}
    print(f"  {what:30} baseline {theirs:8.4g} {unit:8} dsfast {ours:8.4g} {unit:8} {times}")


@pytest.mark.benchmark(group="beside the baseline: latency")
def test_from_one_task_to_the_next(
    benchmark: BenchmarkFixture, new: New, old: Beside, size: Size, tmp_path: Path
) -> None:
    """A submit to the first task's act, and each task's act to its successor's, in a chain.

    The baseline's loops keep step with one another, so that its hop is whole sleeps: three, where loops at random to
    one another would take two and a half.
    """
    theirs = [travel(old.system, tmp_path / "theirs", size.chain) for _ in range(size.rounds)]
    ours: list[list[float]] = []
    travel(new, tmp_path / "ours", size.chain)
    benchmark.pedantic(
        lambda: ours.append(travel(new, tmp_path / "ours", size.chain)), rounds=size.rounds_dsfast, iterations=1
    )
    print(f"\n{old.label}, a chain of {size.chain} shell tasks, medians")
    for what, part in (("submit to first task", slice(0, 1)), ("task to its successor", slice(1, None))):
        dsfast, polling = (statistics.median(value for each in runs for value in each[part]) for runs in (ours, theirs))
        compare(benchmark, what, dsfast, polling, "s")
    bare = statistics.median(process_seconds(marking(tmp_path / "bare")) for _ in range(size.rounds_dsfast))
    benchmark.extra_info["the process alone"] = bare
    print(f"  the process alone takes {bare:.4g} s of either")


def process_seconds(script: str) -> float:
    """What a task's process costs with no scheduler at all."""
    begin = time.perf_counter()
    subprocess.run(["sh", "-c", script], check=True)
    return time.perf_counter() - begin


@pytest.mark.benchmark(group="beside the baseline: throughput")
def test_how_many(benchmark: BenchmarkFixture, new: New, old: Beside, size: Size) -> None:
    """Tasks that need nothing, in one workflow; and workflows of one task."""
    flat, single = [task(f"t{n}", "true") for n in range(size.flat)], [task("t", "true")]
    theirs = size.flat / run(old.system, flat), size.singles / run(old.system, single, size.singles)
    seconds: list[float] = []
    benchmark.pedantic(lambda: seconds.append(run(new, flat)), rounds=size.rounds_dsfast, iterations=1)
    ours = size.flat / statistics.median(seconds), size.singles / run(new, single, size.singles)
    print(f"\n{old.label}, {size.flat} tasks in one workflow, {size.singles} workflows")
    compare(benchmark, "shell tasks", ours[0], theirs[0], "per s")
    compare(benchmark, "workflows of one shell task", ours[1], theirs[1], "per s")


@pytest.mark.benchmark(group="beside the baseline: cost at rest")
def test_cost_at_rest(
    benchmark: BenchmarkFixture,
    new: New,
    old: Beside,
    size: Size,
    postgres_server: PostgresServer,
    zookeeper_server: ZooKeeperServer,
) -> None:
    """Twenty tasks run and eighty wait: what do both ask of the servers, as these count it?"""
    steps = [task(f"t{n}", "exec sleep 1000") for n in range(WORKERS * SLOTS + WAITING)]
    theirs, ours = old.system.define(steps), new.define(steps)
    old.system.start(theirs)
    new.start(ours)
    new.nodes.until(lambda: new.client.run(ours[1][0].id).counts.get("running") == WORKERS * SLOTS)
    old.system.old.until(lambda: len(running(old.system.old, theirs)) == WORKERS * SLOTS)
    sides = {"dsfast": new.nodes.daemons.values(), "baseline": old.system.old.daemons.values()}

    with postgres_server.statements(new.database, old.database) as statements:

        def look() -> dict[str, list[float]]:
            packets = zookeeper_server.received()
            ours = sum(count for sid, count in packets.items() if sid in new.sessions)
            cpu = [sum(cpu_seconds(daemon.pid) for daemon in daemons) for daemons in sides.values()]
            return {
                "SQL statements": [float(count) for count in statements()],
                "ZooKeeper packets, with pings": [ours, sum(packets.values()) - ours],
                "CPU seconds": cpu,
            }

        before = look()
        benchmark.pedantic(threading.Event().wait, (size.idle_seconds,), rounds=1, iterations=1)
        after = look()
    new.client.cancel(ours[1][0].id)
    assert new.client.wait(ours[1][0].id, RUN_SECONDS_MAX)
    print(f"\n{old.label}, {WORKERS * SLOTS} tasks running, {WAITING} waiting")
    for what, values in after.items():
        dsfast, polling = (
            (now - then) * 60 / size.idle_seconds for now, then in zip(values, before[what], strict=True)
        )
        compare(benchmark, what, dsfast, polling, "per min")


def running(old: Baseline, definition: int) -> list[Any]:
    """The rows of a workflow's tasks that run by what the database knows, and can be killed."""
    rows = [row for instance in old.instances(definition) for row in old.tasks(instance["id"])]
    return [row for row in rows if row["state"] == State.RUNNING]


def cpu_seconds(pid: int) -> float:
    """What a process and its descendants have used, as far as they live."""
    stats = (Path(f"/proc/{number}/stat").read_text() for number in (pid, *descendants(pid)))
    fields = [text.rpartition(")")[2].split() for text in stats]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Fragile:
    """A baseline whose daemons are killed, and where the same is done to dsfast's."""

    old: Baseline
    label: str
    folder: Path
    postgres: PostgresServer


@pytest.fixture(scope="module")
def fragile(
    request: pytest.FixtureRequest,
    size: Size,
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: PostgresServer,
    zookeeper_server: ZooKeeperServer,
) -> Iterator[Fragile]:
    session = max(1.0, FAILOVER_SESSION_SECONDS * size.polls)
    settings = sleeping(POLLS["shipped"], size) | {"session_seconds": session}
    folder = tmp_path_factory.mktemp(f"fragile-{request.param}")
    places = (folder, postgres_server.new_database(), zookeeper_server.hosts)
    with baseline(*places, request.param, **settings) as made:
        made.start_all(masters=2, workers=WORKERS)
        yield Fragile(made, f"{request.param}, a ZooKeeper session of {session:g} s", folder, postgres_server)


@pytest.mark.benchmark(group="beside the baseline: failover")
def test_a_worker_is_killed(benchmark: BenchmarkFixture, new: New, fragile: Fragile, size: Size) -> None:
    """From kill -9 to the next attempt's first act on the other worker."""
    ours: list[float] = []
    benchmark.pedantic(lambda: ours.append(kill_worker(new, fragile.folder)), rounds=size.kills, iterations=1)
    theirs = kill_old_worker(fragile.old, fragile.folder)
    print(f"\n{fragile.label}")
    compare(benchmark, "worker killed, to next attempt", statistics.median(ours), theirs, "s")


@pytest.mark.benchmark(group="beside the baseline: failover")
def test_a_master_is_killed(benchmark: BenchmarkFixture, new: New, fragile: Fragile, size: Size) -> None:
    """From kill -9 of the master that has a run, whose task ends at that moment, to the act of the task's successor."""
    ours: list[float] = []
    benchmark.pedantic(lambda: ours.append(kill_master(new, fragile)), rounds=size.kills, iterations=1)
    theirs = kill_old_master(fragile.old, fragile.folder)
    print(f"\n{fragile.label}")
    compare(benchmark, "master killed, to successor", statistics.median(ours), theirs, "s")


def gated(folder: Path) -> tuple[Path, Path, Steps]:
    """A task that notes its start and then waits for a file, and its successor: marks, the file, the workflow."""
    marks, gate = (folder / f"{name}-{time.monotonic_ns()}" for name in ("marks", "gate"))
    first = f"LC_ALL=C bash -c 'echo $EPOCHREALTIME >> {marks}'; until [ -e {gate} ]; do sleep 0.05; done"
    return marks, gate, [task("gated", first), task("after", marking(marks), "gated")]


def kill_worker(new: New, folder: Path) -> float:
    marks, gate, steps = gated(folder)
    spare = f"w-spare{next(SPARES)}"
    new.nodes.start_worker(spare, slots=SLOTS)
    new.nodes.until(lambda: spare in {member.name for member in new.client.workers()})
    known = new.run_gated(steps, marks)
    worker = new.client.task(known[1][0].id, "gated").history[0].worker
    assert worker is not None
    killed = time.time()
    new.nodes.kill(worker.partition("@")[0])
    new.nodes.until(lambda: len(read(marks)) == 2)
    gate.touch()
    new.wait(known, 1)
    return read(marks)[1] - killed


def kill_master(new: New, fragile: Fragile) -> float:
    marks, gate, steps = gated(fragile.folder)
    spare = f"m-spare{next(SPARES)}"
    new.nodes.start("master", spare)
    new.nodes.until(lambda: spare in {member.name for member in new.client.masters()})
    known = new.run_gated(steps, marks)
    owner = fragile.postgres.sql("SELECT owner FROM runs WHERE owner IS NOT NULL", new.database)
    killed = time.time()
    new.nodes.kill(owner.partition("@")[0])
    gate.touch()
    new.nodes.until(lambda: len(read(marks)) == 2)
    new.wait(known, 1)
    return read(marks)[1] - killed


def kill_old_worker(old: Baseline, folder: Path) -> float:
    marks, gate, steps = gated(folder)
    definition = start_gated(old, steps, marks)
    killed = time.time()
    old.kill(old.at(running(old, definition)[0]["host"]))
    old.until(lambda: len(read(marks)) == 2)
    gate.touch()
    old.ended(definition)
    return read(marks)[1] - killed


def kill_old_master(old: Baseline, folder: Path) -> float:
    marks, gate, steps = gated(folder)
    definition = start_gated(old, steps, marks)
    killed = time.time()
    old.kill(old.at(old.instances(definition)[0]["host"]))
    gate.touch()
    old.until(lambda: len(read(marks)) == 2)
    old.ended(definition)
    return read(marks)[1] - killed


def start_gated(old: Baseline, steps: Steps, marks: Path) -> int:
    definition = old.define(steps)
    old.submit(definition)
    old.until(lambda: len(running(old, definition)) == 1 and len(read(marks)) == 1)
    return definition
