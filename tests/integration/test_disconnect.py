"""A worker that nobody can see: its machine hangs, so nothing refuses and nothing answers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from dsfast.model import OnDisconnect, Workflow, canonical
from tests.integration.cluster import Cluster, cluster
from tests.integration.local_cluster import run_dsfast
from tests.workflows import shell

WAIT_SECONDS = 60.0


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster on SQLite that soon notices silence; tests start its daemons."""
    database, registry = f"sqlite:///{tmp_path}/db", f"database+sqlite:///{tmp_path}/registry.db"
    with cluster(tmp_path, database, registry) as made:
        made.environ |= {
            "DSFAST_REGISTRY_SESSION_SECONDS": "1.5",
            "DSFAST_CLUSTER_HEARTBEAT_SECONDS": "0.3",
            "DSFAST_CLUSTER_HEARTBEAT_TIMEOUT_SECONDS": "1",
        }
        assert run_dsfast("db", "upgrade", environ=made.environ, folder=tmp_path).returncode == 0
        yield made


@contextmanager
def hanging(made: Cluster, name: str) -> Iterator[None]:
    """The machine of this worker hangs: it, its guardian and its tasks stand still, and its port stays open."""
    main = made.daemons[name].pid
    tree = [main]
    for pid in tree:
        os.kill(pid, signal.SIGSTOP)
        tree += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    try:
        yield
    finally:
        for pid in reversed(tree):
            os.kill(pid, signal.SIGKILL)


def test_what_must_not_run_twice_waits_until_a_person_vouches_for_the_death_of_its_worker(small: Cluster) -> None:
    small.start_all(masters=1, workers=1)
    started = small.folder / "started"
    script = f'echo "$DSFAST_ATTEMPT" >> {started}; [ "$DSFAST_ATTEMPT" = 2 ] || sleep 600'
    careful = shell("careful", script, on_disconnect=OnDisconnect(replace=False))
    with small.client() as client:
        run = client.submit(msgspec.Raw(canonical(Workflow(name="w", tasks=(careful,))))).id
        small.until(started.exists)
        small.start_worker("w2")
        small.until(lambda: len(client.workers()) == 2)
        said = run_dsfast("worker", "lost", "w1", "--yes", environ=small.environ, folder=small.folder)
        assert said.returncode == 2, said
        assert "w1 is alive" in said.stderr
        with hanging(small, "w1"):
            small.until(lambda: [each.name for each in client.workers()] == ["w2"])
            small.until(lambda: "out of reach" in client.run(run).tasks[0].reason)  # type: ignore[index]
            assert "not replaced before its worker is back" in client.run(run).tasks[0].reason  # type: ignore[index]
            said = run_dsfast("worker", "lost", "w1", "--yes", environ=small.environ, folder=small.folder)
            assert "1 attempts start elsewhere" in said.stdout, said
            ended = client.wait(run, WAIT_SECONDS)
    assert ended is not None
    assert ended.state == "succeeded"
    assert started.read_text().split() == ["1", "2"]
