"""What breaks whoever handles it: a run that ends its masters is put aside, and everything else goes on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dsfast.model import canonical
from dsfast.runtime.master import CRASHES_MAX
from tests.integration.cluster import Cluster, cluster
from tests.integration.local_cluster import run_dsfast
from tests.workflows import flat

WAIT_SECONDS = 60.0


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster on SQLite; tests start its daemons."""
    database, registry = f"sqlite:///{tmp_path}/db", f"database+sqlite:///{tmp_path}/registry.db"
    with cluster(tmp_path, database, registry) as made:
        assert run_dsfast("db", "upgrade", environ=made.environ, folder=tmp_path).returncode == 0
        yield made


def test_a_run_that_ends_three_masters_has_failed_and_the_others_go_on(small: Cluster) -> None:
    small.start_all(masters=1, workers=0)
    with small.client() as client:
        poison = client.submit(msgspec.Raw(canonical(flat(2)))).id
        healthy = client.submit(msgspec.Raw(canonical(flat(3)))).id
    small.kill("m1")
    with sqlite3.connect(small.folder / "db") as database:  # a row that nobody can make sense of
        database.execute("UPDATE runs SET params = '{' WHERE id = (SELECT min(id) FROM runs)")
    small.start_worker("w1")
    for _ in range(CRASHES_MAX):
        assert small.start("master", "m1").wait(WAIT_SECONDS) == 1
    small.start("master", "m1")
    with small.client() as client:
        small.until(lambda: client.run(poison).state == "failed")
        assert "quarantined" in (client.run(poison).reason or "")
        ended = client.wait(healthy, WAIT_SECONDS)
    assert ended is not None
    assert ended.state == "succeeded"
    told = (small.folder / "m1.log").read_text()
    assert told.count("engine_failed") == CRASHES_MAX
    assert "DecodeError" in told
