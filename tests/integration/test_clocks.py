"""Wall clocks that jump or differ under a working cluster: leases, timeouts and delays do not depend on them."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dsfast.chaos.cluster import Cluster
from dsfast.chaos.postgres import PostgresServer
from dsfast.model import Retry, Task, Workflow, canonical
from tests.integration.local_cluster import run_dsfast
from tests.integration.witness import Witness
from tests.workflows import shell

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
RUN_SECONDS = 60.0
LEASE_SECONDS = 3.0
DIFFERENCES = ("+3600", "-3600")  # seconds by which the database's clock differs from the daemons'


def faked(clock: Path) -> dict[str, str]:
    """The environment in which a program's wall clock is what this file says, relative to the true one."""
    if LIBRARY is None:
        raise pytest.UsageError("this test needs libfaketime: apt-get install faketime")
    return {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose wall clock is what the file `clock` says."""
    registry = f"database+sqlite:///{tmp_path}/registry.db"
    made = Cluster(tmp_path, f"sqlite:///{tmp_path}/db", registry, session_seconds=60.0)  # shorter than any jump
    assert run_dsfast("db", "upgrade", environ=made.environ, folder=tmp_path).returncode == 0
    (tmp_path / "clock").write_text("+0")
    made.environ |= faked(tmp_path / "clock")
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


class Skewed(PostgresServer):
    """A database server with a wall clock of its own."""

    def __init__(self) -> None:
        self._place = Path(tempfile.mkdtemp(prefix="dsfast-clock-"))
        self._place.chmod(0o755)  # the server is another user
        self.set("+0")
        super().__init__(variables=tuple(f"{name}={value}" for name, value in faked(self._place / "clock").items()))

    def set(self, difference: str) -> None:
        """From now on it is so many seconds ahead."""
        (self._place / "clock").write_text(difference)

    def ahead(self) -> float:
        return float(self.sql("SELECT extract(epoch FROM clock_timestamp())")) - time.time()

    def close(self) -> None:
        super().close()
        shutil.rmtree(self._place)


@pytest.fixture
def skewed() -> Iterator[Skewed]:
    server = Skewed()
    yield server
    server.close()


def test_a_database_whose_clock_is_wrong_and_jumps_ends_no_task_and_still_ends_leases(
    skewed: Skewed, tmp_path: Path
) -> None:
    """Its jump ends all leases at once, or an hour late, unless they are renewed: links say meanwhile who lives."""
    url = skewed.new_migrated_database()
    nodes, witness = Cluster(tmp_path, url, f"database+{url}", session_seconds=LEASE_SECONDS), Witness(tmp_path)
    try:
        nodes.start_all(masters=2, workers=2)
        with nodes.client() as client:
            for difference in DIFFERENCES:
                running = witness.task("running", difference)
                run = client.submit(msgspec.Raw(canonical(Workflow(name="w", tasks=(running,)))))
                nodes.until(lambda run=run: witness.lines(run.id)["start"] == 1)  # type: ignore[misc]
                skewed.set(difference)
                assert abs(skewed.ahead() - float(difference)) < 60
                renewed(nodes, skewed, url)
                witness.open(difference)
                assert client.wait(run.id, RUN_SECONDS) is not None, nodes.story()
                assert [each.state for each in client.task(run.id, "running").history] == ["succeeded"], nodes.story()
        nodes.kill("w2")
        nodes.until(lambda: nodes.complete(2, 1))
        assert not witness.lines()["overlap"]
    finally:
        nodes.stop()


def renewed(nodes: Cluster, server: PostgresServer, url: str) -> None:
    """Return once every member has a lease by the clock of this moment, and sees the others."""
    short = "SELECT count(*) FROM dsfast_members WHERE lease_until BETWEEN now() AND now() + interval '1 minute'"
    nodes.until(lambda: server.sql(short, url) == "4")
    nodes.until(lambda: nodes.complete(2, 2))
