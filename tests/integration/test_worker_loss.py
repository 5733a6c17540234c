"""A worker is lost in every way that one machine can stage; its tasks bear witness that none runs beside its heir."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dsfast.client import Client
from dsfast.model import OnDisconnect, Workflow, canonical
from dsfast.runtime.guardian import STOOD_STILL
from dsfast.tasks import proc
from tests.integration.cluster import READY_SECONDS, Cluster, cluster
from tests.integration.local_cluster import run_dsfast
from tests.integration.witness import Witness


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster on SQLite with one master, without workers."""
    database, registry = f"sqlite:///{tmp_path}/db", f"database+sqlite:///{tmp_path}/registry.db"
    with cluster(tmp_path, database, registry) as made:
        assert run_dsfast("db", "upgrade", environ=made.environ, folder=tmp_path).returncode == 0
        made.start_all(masters=1, workers=0)
        yield made


def submit(client: Client, *tasks: object) -> str:
    return client.submit(msgspec.Raw(canonical(Workflow(name="w", tasks=tasks)))).id  # type: ignore[arg-type]


def of_attempts(run: str) -> list[int]:
    """The living processes of this run's attempts."""
    return [pid for attempt in (1, 2, 3) for pid in proc.carrying(f"DSFAST_ATTEMPT_KEY={run}.0.{attempt}".encode())]


def test_tasks_that_outlived_all_processes_of_their_worker_end_before_its_next_life_takes_new_ones(
    small: Cluster, tmp_path: Path
) -> None:
    witness = Witness(tmp_path)
    small.start_worker("w1")
    with small.client() as client:
        run = submit(client, witness.task("t", "go"))
        small.until(lambda: witness.lines(run)["start"] == 1)
        left = of_attempts(run)
        pids = small.pids("w1")
        for number in (signal.SIGSTOP, signal.SIGKILL):  # as good as at once: none is left to end what runs
            for pid in pids:
                os.kill(pid, number)
        small.daemons["w1"].wait(READY_SECONDS)
        assert set(left) & set(of_attempts(run))
        small.start_worker("w1")
        small.until(lambda: witness.lines(run)["start"] == 2)
        assert not set(left) & set(of_attempts(run))
        witness.open("go")
        ended = client.wait(run, READY_SECONDS)
    assert ended is not None
    assert ended.state == "succeeded"
    assert witness.lines(run) == {"start": 2, "end": 1}
    assert "former_life_swept" in (tmp_path / "w1.log").read_text()


@pytest.mark.parametrize(
    "victims", [(1,), (0, 2), (1, 2)], ids=["inner guardian", "worker and outer", "worker and inner"]
)
def test_no_task_runs_beside_its_replacement_whoever_of_its_worker_is_killed(
    small: Cluster, tmp_path: Path, victims: tuple[int, ...]
) -> None:
    witness = Witness(tmp_path)
    small.start_worker("w1", slots=1)
    with small.client() as client:
        run = submit(client, witness.task("t", "go"))
        small.until(lambda: witness.lines(run)["start"] == 1)
        small.start_worker("w2", slots=1)
        pids = small.pids("w1")
        for number in victims:
            os.kill(pids[number], signal.SIGKILL)
        small.until(lambda: witness.lines(run)["start"] == 2)
        witness.open("go")
        ended = client.wait(run, READY_SECONDS)
    assert ended is not None
    assert ended.state == "succeeded"
    assert witness.lines(run) == {"start": 2, "end": 1}


def test_a_result_outlives_its_worker_while_no_master_lives(small: Cluster, tmp_path: Path) -> None:
    witness = Witness(tmp_path)
    small.start_worker("w1")
    with small.client() as client:
        run = submit(client, witness.task("t", "go"), witness.task("u", "go", needs=("t",)))
        small.until(lambda: witness.lines(run)["start"] == 1)
        small.kill("m1")
        witness.open("go")
        results = tmp_path / "w1-work" / "w1" / "results"
        small.until(lambda: results.exists() and results.stat().st_size > 0)
        small.kill("w1")
        small.start_worker("w1")
        small.until(lambda: (tmp_path / "w1.log").read_text().count("worker_ready") == 2)
        small.start("master", "m1")
        small.until(lambda: client.run(run).state == "succeeded")
    assert witness.lines(run) == {"start": 2, "end": 2}


@pytest.mark.parametrize("stopped", [(2,), (1, 2)], ids=["worker", "worker and inner guardian"])
def test_a_worker_that_is_stopped_is_ended_with_its_tasks_before_they_are_replaced(
    small: Cluster, tmp_path: Path, stopped: tuple[int, ...]
) -> None:
    witness = Witness(tmp_path)
    small.start_worker("w1", slots=1)
    with small.client() as client:
        run = submit(client, witness.task("t", "go"))
        small.until(lambda: witness.lines(run)["start"] == 1)
        small.start_worker("w2", slots=1)
        pids = small.pids("w1")
        for number in stopped:
            os.kill(pids[number], signal.SIGSTOP)
        small.until(lambda: witness.lines(run)["start"] == 2)
        assert small.daemons["w1"].wait(READY_SECONDS) == STOOD_STILL
        witness.open("go")
        ended = client.wait(run, READY_SECONDS)
    assert ended is not None
    assert ended.state == "succeeded"
    assert witness.lines(run) == {"start": 2, "end": 1}


def test_a_worker_that_may_run_on_for_good_is_waited_for_while_it_is_stopped(small: Cluster, tmp_path: Path) -> None:
    """The worker beside it, stopped at the same time, is ended: by then this one has been stopped for too long, too."""
    witness = Witness(tmp_path)
    small.start_worker("w1", slots=1)
    with small.client() as client:
        careful = submit(client, witness.task("t", "go", on_disconnect=OnDisconnect(replace=False)))
        small.until(lambda: witness.lines(careful)["start"] == 1)
        small.start_worker("w2", slots=1)
        other = submit(client, witness.task("t", "go"))
        small.until(lambda: witness.lines(other)["start"] == 1)
        for name in ("w1", "w2"):
            os.kill(small.pids(name)[-1], signal.SIGSTOP)
        small.daemons["w2"].wait(READY_SECONDS)
        os.kill(small.pids("w1")[-1], signal.SIGCONT)
        witness.open("go")
        ended = client.wait(careful, READY_SECONDS)
    assert ended is not None
    assert ended.state == "succeeded"
    assert witness.lines(careful) == {"start": 1, "end": 1}


def test_a_worker_without_descriptors_gives_tasks_back_and_fails_none(small: Cluster, tmp_path: Path) -> None:
    witness = Witness(tmp_path)
    small.start_worker("w1")
    with small.client() as client:
        small.until(lambda: len(client.workers()) == 1 and "role=master" in (tmp_path / "w1.log").read_text())
        daemon = small.pids("w1")[-1]
        _, hard = resource.prlimit(daemon, resource.RLIMIT_NOFILE)
        resource.prlimit(daemon, resource.RLIMIT_NOFILE, (3, hard))
        run = submit(client, witness.task("t", "go"))
        small.until(lambda: "start_refused" in (tmp_path / "w1.log").read_text())
        resource.prlimit(daemon, resource.RLIMIT_NOFILE, (hard, hard))
        small.until(lambda: witness.lines(run)["start"] == 1)
        witness.open("go")
        ended = client.wait(run, READY_SECONDS)
    assert ended is not None
    assert ended.state == "succeeded"
    assert witness.lines(run) == {"start": 1, "end": 1}


def test_a_dead_worker_is_dialled_no_more_while_its_lease_lasts(tmp_path: Path) -> None:
    """Others that come and go change the list of members, and it is on it all the time."""
    registry = f"database+sqlite:///{tmp_path}/registry.db?session=60"
    with cluster(tmp_path, f"sqlite:///{tmp_path}/db", registry) as nodes:
        assert run_dsfast("db", "upgrade", environ=nodes.environ, folder=tmp_path).returncode == 0
        nodes.start_all(masters=1, workers=1)
        nodes.kill("w1")
        nodes.until(lambda: "peer_dead peer=w1@" in master_log(nodes))
        for number in (2, 3, 4):
            nodes.start_worker(f"w{number}")
            nodes.until(lambda number=number: f"link_up peer=w{number}@" in master_log(nodes))  # type: ignore[misc]
        nodes.until(lambda: nodes.complete(1, 4))  # it is still listed
        assert master_log(nodes).count("peer_dead peer=w1@") == 1


def master_log(nodes: Cluster) -> str:
    return (nodes.folder / "m1.log").read_text()
