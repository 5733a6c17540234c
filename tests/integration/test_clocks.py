"""Wall clocks that jump under a working cluster: leases, timeouts and delays are on clocks that nobody sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dsfast.chaos.cluster import Cluster
from dsfast.model import Retry, Task, Workflow, canonical
from tests.integration.local_cluster import run_dsfast
from tests.integration.witness import Witness
from tests.workflows import shell

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
RUN_SECONDS = 60.0


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose wall clock is what the file `clock` says, relative to the true one."""
    if LIBRARY is None:
        raise pytest.UsageError("this test needs libfaketime: apt-get install faketime")
    registry = f"database+sqlite:///{tmp_path}/registry.db"
    made = Cluster(tmp_path, f"sqlite:///{tmp_path}/db", registry, session_seconds=60.0)  # shorter than any jump
    assert run_dsfast("db", "upgrade", environ=made.environ, folder=tmp_path).returncode == 0
    (tmp_path / "clock").write_text("+0")
    made.environ |= {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(tmp_path / "clock"),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    yield made
    made.stop()


def test_a_wall_clock_that_jumps_ends_no_lease_no_task_and_no_wait(nodes: Cluster, tmp_path: Path) -> None:
    nodes.start_all(masters=1, workers=1)
    witness = Witness(tmp_path)
    running = msgspec.structs.replace(witness.task("running", "gate"), timeout=600.0)
    retried = shell("retried", f"[ -e {tmp_path}/once ] || {{ touch {tmp_path}/once; exit 1; }}", retry=Retry(1, 0.5))
    with nodes.client() as client:
        run = client.submit(msgspec.Raw(canonical(Workflow(name="w", tasks=(running,)))))
        nodes.until(lambda: witness.lines()["start"] == 1)
        for number, jump in enumerate(("+3600", "-3600", "+31536000")):
            (tmp_path / "clock").write_text(jump)
            (tmp_path / "once").unlink(missing_ok=True)
            tasks = (retried, Task(name="after", type="noop", needs=("retried",)))
            other = client.submit(msgspec.Raw(canonical(Workflow(name=f"w{number}", tasks=tasks))))
            assert client.wait(other.id, RUN_SECONDS) is not None, nodes.story()
            assert client.run(other.id).state == "succeeded"
        witness.open("gate")
        assert client.wait(run.id, RUN_SECONDS) is not None, nodes.story()
        (only,) = client.task(run.id, "running").history
    assert only.state == "succeeded"
    logs = [(tmp_path / f"{name}.log").read_text() for name in ("m1", "w1")]
    assert all("state=lost" not in log for log in logs), nodes.story()
    assert "2027-" in logs[0], "the clock did jump for daemons"
