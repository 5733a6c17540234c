"""What breaks whoever handles it: a run that ends its masters is put aside, and everything else goes on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from dsfast.errors import UsageError
from dsfast.ids import run_number
from dsfast.model import canonical
from dsfast.runtime.master import CRASHES_MAX
from tests.integration.cluster import Cluster, cluster
from tests.integration.local_cluster import run_dsfast
from tests.integration.sabotaged import CURSED
from tests.workflows import flat

WAIT_SECONDS = 60.0
SABOTAGED = "tests.integration.sabotaged"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster on SQLite; tests start its daemons."""
    database, registry = f"sqlite:///{tmp_path}/db", f"database+sqlite:///{tmp_path}/registry.db"
    with cluster(tmp_path, database, registry) as made:
        assert run_dsfast("db", "upgrade", environ=made.environ, folder=tmp_path).returncode == 0
        yield made


def damaged(small: Cluster, damage: str) -> tuple[str, str]:
    """Two runs without a master, of which the first has a row that nobody can make sense of."""
    small.start_all(masters=1, workers=0)
    with small.client() as client:
        poison, healthy = (client.submit(msgspec.Raw(canonical(flat(count)))).id for count in (2, 3))
    small.kill("m1")
    with sqlite3.connect(small.folder / "db") as database:
        database.execute(damage, [run_number(poison)])
    small.start_worker("w1")
    return poison, healthy


def test_a_run_that_ends_three_masters_has_failed_and_the_others_go_on(small: Cluster) -> None:
    poison, healthy = damaged(small, "UPDATE runs SET params = '{' WHERE id = ?")
    for _ in range(CRASHES_MAX):
        assert small.start("master", "m1").wait(WAIT_SECONDS) == 1
    small.start("master", "m1")
    with small.client() as client:
        small.until(lambda: client.run(poison).state == "failed")
        assert "quarantined" in (client.run(poison).reason or "")
        ended = client.wait(healthy, WAIT_SECONDS)
    assert ended is not None
    assert ended.state == "succeeded"
    assert (small.folder / "m1.log").read_text().count("engine_failed") == CRASHES_MAX


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE runs SET state = 99 WHERE id = ?",
        "INSERT INTO attempts (run_id, task, attempt, state, reason) VALUES (?, 1, 1, 99, '')",
        "INSERT INTO attempts (run_id, task, attempt, state, reason) VALUES (?, 77, 1, 0, '')",
    ],
    ids=["run", "attempt", "task"],
)
def test_a_run_with_damaged_rows_fails_alone(small: Cluster, damage: str) -> None:
    poison, healthy = damaged(small, damage)
    small.start("master", "m1")
    with small.client() as client:
        small.until(lambda: client.run(poison).state == "failed")
        assert "cannot continue it" in (client.run(poison).reason or "")
        ended = client.wait(healthy, WAIT_SECONDS)
    assert ended is not None
    assert ended.state == "succeeded"
    assert "engine_failed" not in (small.folder / "m1.log").read_text()


def test_a_submit_that_ends_three_masters_is_refused_and_the_others_go_on(small: Cluster) -> None:
    """No run names it: what is known of it is what it says."""
    cursed, healthy = (msgspec.Raw(canonical(replace(flat(2), name=name))) for name in (CURSED, "healthy"))
    small.start_all(masters=0, workers=1)
    for _ in range(CRASHES_MAX):
        small.start("master", "m1", program=SABOTAGED)
        small.until(lambda: ended_by(small, "m1", cursed))
        assert small.daemons["m1"].returncode == 1
    small.start("master", "m1", program=SABOTAGED)
    small.until(lambda: turned_away(small, cursed))
    with small.client() as client:
        ended = client.wait(client.submit(healthy).id, WAIT_SECONDS)
    assert ended is not None
    assert ended.state == "succeeded"
    log = (small.folder / "m1.log").read_text()
    assert log.count("engine_failed") == CRASHES_MAX
    assert "command_quarantined" in log


def ended_by(small: Cluster, master: str, workflow: msgspec.Raw) -> bool:
    """Whether this workflow has ended the master; it is submitted until one takes it."""
    if small.daemons[master].poll() is None:
        with small.client() as client:
            client.submit(workflow)
    return small.daemons[master].poll() is not None


def turned_away(small: Cluster, workflow: msgspec.Raw) -> bool:
    """Whether a master says that it does not even try."""
    with small.client() as client, pytest.raises(UsageError) as refusal:
        client.submit(workflow)
    return "over this very Submit, the last one with: ZeroDivisionError: a bug in the compiler" in str(refusal.value)
