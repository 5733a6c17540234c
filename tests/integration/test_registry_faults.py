"""What goes wrong with the registry while a cluster works: running tasks notice nothing, dispatch resumes by itself."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dsfast.model import Workflow, canonical
from tests.integration.cluster import cluster
from tests.integration.local_cluster import run_dsfast
from tests.integration.witness import Witness

SABOTAGED = "tests.integration.sabotaged"
RUN_SECONDS = 60.0


def test_a_daemon_whose_registry_task_dies_of_a_bug_ends_and_is_replaced(tmp_path: Path) -> None:
    """Alive without a lease that anybody renews it would look like a member and be none."""
    witness, sabotage = Witness(tmp_path), tmp_path / "sabotage"
    registry = f"database+sqlite:///{tmp_path}/registry.db"
    with cluster(tmp_path, f"sqlite:///{tmp_path}/db", registry) as nodes:
        assert run_dsfast("db", "upgrade", environ=nodes.environ, folder=tmp_path).returncode == 0
        nodes.environ["SABOTAGE"] = str(sabotage)
        nodes.start("master", "m1")
        nodes.start_worker("w1", program=SABOTAGED)
        nodes.start("api", "api")
        nodes.until(lambda: nodes.complete(1, 1))
        with nodes.client() as client:
            run = client.submit(msgspec.Raw(canonical(Workflow(name="w", tasks=(witness.task("t", "gate"),)))))
            nodes.until(lambda: witness.lines()["start"] == 1)
            sabotage.touch()
            assert nodes.daemons["w1"].wait(RUN_SECONDS) == 1
            nodes.start_worker("w2")
            nodes.until(lambda: witness.lines()["start"] == 2)
            witness.open("gate")
            assert client.wait(run.id, RUN_SECONDS) is not None, nodes.story()
            attempts = [attempt.state for attempt in client.task(run.id, "t").history]
    assert attempts == ["failover", "succeeded"]
    assert not witness.lines()["overlap"]
    story = (tmp_path / "w1.log").read_text()
    assert "daemon_failed" in story
    assert "a bug in the registry" in story
