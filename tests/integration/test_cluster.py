"""Two masters and three workers as processes on PostgreSQL, with ZooKeeper and without: whole runs, and deaths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dsfast.client import Client
from dsfast.model import Retry, Task, Workflow, canonical
from dsfast.views import RunView
from tests.integration.cluster import Cluster, cluster
from tests.workflows import alignment, shell

RUN_SECONDS = 120.0


@pytest.fixture(params=["zookeeper", "database"])
def nodes(request: pytest.FixtureRequest, tmp_path: Path, postgres_url: str) -> Iterator[Cluster]:
    by_lease = f"database+{postgres_url}"
    registry = request.getfixturevalue("zookeeper_url") if request.param == "zookeeper" else by_lease
    with cluster(tmp_path, postgres_url, registry) as made:
        made.start_all(masters=2, workers=3)
        yield made


def submit(client: Client, workflow: Workflow) -> RunView:
    return client.submit(msgspec.Raw(canonical(workflow)))


def ended(nodes: Cluster, client: Client, run: RunView) -> RunView:
    """The run as it ended, with its tasks."""
    assert client.wait(run.id, RUN_SECONDS) is not None, nodes.story()
    return client.run(run.id)


def test_a_thousand_tasks_of_an_alignment_run_to_their_end(nodes: Cluster) -> None:
    with nodes.client() as client:
        view = ended(nodes, client, submit(client, alignment(500)))
    assert view.state == "succeeded", nodes.story()
    assert isinstance(view.tasks, list)
    assert len(view.tasks) == view.tasks_total == 1004
    assert Counter(task.state for task in view.tasks) == {"succeeded": 1004}
    assert {task.attempts for task in view.tasks} == {1}
    assert {(task.worker or "").partition("@")[0] for task in view.tasks} == {"w1", "w2", "w3"}


def test_the_tasks_of_a_killed_worker_run_elsewhere(nodes: Cluster, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    tasks = tuple(shell(f"t{number}", f"until [ -e {gate} ]; do sleep 0.05; done") for number in range(6))
    with nodes.client() as client:
        run = submit(client, Workflow(name="gated", tasks=tasks))
        nodes.until(lambda: client.run(run.id).counts.get("running") == 6)
        nodes.kill("w1")
        nodes.until(lambda: client.run(run.id).counts.get("running") == 4)
        gate.touch()
        view = ended(nodes, client, run)
        histories = [client.task(run.id, task.name) for task in view.tasks if task.attempts > 1]  # type: ignore[union-attr]
    assert view.state == "succeeded"
    assert len(histories) == 2, "the two tasks that ran on w1, and no other, had a second attempt"
    for history in histories:
        assert [attempt.state for attempt in history.history] == ["failover", "succeeded"]
        assert (history.history[0].worker or "").startswith("w1@")
        assert not (history.history[1].worker or "").startswith("w1@")


def test_the_runs_of_a_killed_master_go_on_under_the_other(nodes: Cluster, tmp_path: Path) -> None:
    """Running tasks are adopted, not run again; what depends on them starts under the other master."""
    gate = tmp_path / "gate"
    first = shell("first", f"until [ -e {gate} ]; do sleep 0.05; done")
    second = Task(name="second", type="noop", needs=("first",))
    with nodes.client() as client:
        runs = [submit(client, Workflow(name="gated", tasks=(first, second))) for _ in range(4)]
        for run in runs:
            nodes.until(lambda run=run: client.run(run.id).counts.get("running") == 1)  # type: ignore[misc]
        nodes.kill("m1")
        gate.touch()
        views = [ended(nodes, client, run) for run in runs]
        nodes.until(lambda: [member.name for member in client.masters()] == ["m2"])
    for view in views:
        assert view.state == "succeeded"
        assert isinstance(view.tasks, list)
        assert [task.attempts for task in view.tasks] == [1, 1], nodes.story()


def test_a_master_that_comes_back_alone_finishes_what_it_left(tmp_path: Path, postgres_url: str) -> None:
    with cluster(tmp_path, postgres_url, f"database+{postgres_url}") as nodes:
        nodes.start_all(masters=1, workers=1)
        gate = tmp_path / "gate"
        waiting = shell("waiting", f"until [ -e {gate} ]; do sleep 0.05; done")
        after = Task(name="after", type="noop", needs=("waiting",), retry=Retry(limit=1))
        with nodes.client() as client:
            run = submit(client, Workflow(name="gated", tasks=(waiting, after)))
            nodes.until(lambda: client.run(run.id).counts.get("running") == 1)
            nodes.kill("m1")
            gate.touch()
            nodes.start("master", "m1")
            view = ended(nodes, client, run)
    assert view.state == "succeeded"
    assert isinstance(view.tasks, list)
    assert [task.attempts for task in view.tasks] == [1, 1]
