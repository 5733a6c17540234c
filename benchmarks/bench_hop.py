"""Where does the time of a hop go?

A chain of no-op tasks on an idle master and one worker, as `bench_latency.py` has it, by daemons that note when they
come to each part of a hop (`stamped.py`). On SQLite twice: with the database on a disk, and with it in memory, where a
commit costs next to nothing. The difference is the disk's, and what becomes of a processor's caches while it waits for
it. Every part is a median, so they add up to the whole only about.
DSFAST_BENCH_HOPS (300) hops, after a first chain to warm up.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.figures import durations
from benchmarks.stage import Place, finish, size, submit
from benchmarks.stamped import FOLDER, Stamps
from benchmarks.witness import migrate
from tests.integration.cluster import cluster
from tests.workflows import chain

HOPS = size("HOPS", 300)
LOOK = 20  # of them, when the benchmark is only run to see that it can
MEMORY = Path("/dev/shm")  # a file system that Linux keeps in memory

SECTIONS = {  # the mark at which each begins; it ends where the next one begins
    "worker reads": "worker reads, decodes, comes to its turn",
    "worker runs": "worker decides, runs the task, decides again",
    "worker keeps": "worker keeps the result for its next life",
    "worker has kept": "worker encodes and writes, network, master wakes",
    "master reads": "master reads, decodes, comes to its turn",
    "master decides": "master decides",
    "master has decided": "commit",
    "master has committed": "master encodes and writes, network, worker wakes",
}

Tell = Callable[..., None]


@pytest.fixture(params=["sqlite", "sqlite in memory", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_server").new_migrated_database()
        yield Place(request.param, url, f"sqlite:///{tmp_path}/registry.db")
        return
    folder = Path(tempfile.mkdtemp(dir=MEMORY)) if request.param.endswith("memory") else tmp_path
    try:
        yield Place(request.param, f"sqlite:///{folder}/db", f"sqlite:///{tmp_path}/registry.db")
    finally:
        if folder is not tmp_path:
            shutil.rmtree(folder)


@pytest.mark.benchmark(group="parts of a hop")
def test_parts_of_a_hop(benchmark: BenchmarkFixture, tell: Tell, where: Place, tmp_path: Path) -> None:
    stamps: Stamps = []

    def work() -> None:
        stamps.extend(run_stamped(where, tmp_path / "nodes", LOOK if benchmark.disabled else HOPS))

    benchmark.pedantic(work, rounds=1)
    found = hops(sorted(stamps))
    assert found, "the daemons noted no hop"
    tell(durations(f"{where.kind}: hop", [(hop[-1] - hop[0]) / 1e9 for hop in found], "us"))
    for place, section in enumerate(SECTIONS.values()):
        tell(durations(f"{where.kind}: {section}", [(hop[place + 1] - hop[place]) / 1e9 for hop in found], "us"))


def run_stamped(place: Place, folder: Path, count: int) -> Stamps:
    """What master and worker have noted during two chains of so many tasks."""
    folder.mkdir()
    with cluster(folder, place.store, place.registry) as nodes:
        nodes.environ[FOLDER] = str(folder)
        if place.kind != "postgresql":
            migrate(nodes)
        nodes.start("master", "m1", program="benchmarks.stamped")
        nodes.start_worker("w1", program="benchmarks.stamped", slots=4)
        nodes.start("api", "api")
        nodes.until(lambda: nodes.complete(1, 1))
        with nodes.client() as client:
            for _ in range(2):
                finish(client, submit(client, chain(count)))
    notes = [msgspec.json.decode((folder / f"{role}.json").read_bytes(), type=Stamps) for role in ("master", "worker")]
    return [stamp for stamps in notes for stamp in stamps]


def hops(stamps: Stamps) -> list[list[int]]:
    """The moments of each hop that nothing else came between, the first mark of the next one last."""
    marks = list(SECTIONS)
    starts = [place for place, (_, mark) in enumerate(stamps) if mark == marks[0]]
    between = [stamps[start : end + 1] for start, end in pairwise(starts)]
    whole = [hop for hop in between if [mark for _, mark in hop] == [*marks, marks[0]]]
    return [[at for at, _ in hop] for hop in whole[len(whole) // 2 :]]
