"""What goes wrong with the registry while a cluster works: running tasks notice nothing, dispatch resumes by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.security import OPEN_ACL_UNSAFE, make_digest_acl

from dsfast.chaos.zookeeper import Ensemble, ZooKeeperServer
from dsfast.client import Client
from dsfast.model import Workflow, canonical
from dsfast.views import RunView
from tests.integration.cluster import Cluster, cluster
from tests.integration.local_cluster import run_dsfast
from tests.integration.witness import Witness
from tests.servers.postgres import PostgresServer
from tests.servers.zookeeper import wipe

SABOTAGED = "tests.integration.sabotaged"
RUN_SECONDS = 60.0
LEASE_SECONDS = 2.5
SPACE_MIB = 8
DAEMONS = ("m1", "m2", "w1", "w2", "w3")
MEMBERS = "/faults/dsfast/dsfast/members"
# How much longer than everybody's lease an outage lasts: what is measured by hand is `DSFAST_OUTAGE_SECONDS=60 pytest`.
OUTAGE_SECONDS = float(os.environ.get("DSFAST_OUTAGE_SECONDS", "0"))


class Working:
    """A cluster, and runs whose tasks fill it: each waits at its run's gate."""

    def __init__(self, nodes: Cluster) -> None:
        self.nodes = nodes
        self.witness = Witness(nodes.folder)
        self._gates = 0

    def begin(self, client: Client) -> tuple[RunView, str]:
        """A run of six tasks, two on each worker, all running; and their gate."""
        self._gates += 1
        gate = f"gate{self._gates}"
        run = self.submit(client, gate)
        self.nodes.until(lambda: self.witness.lines(run.id)["start"] == 6)
        return run, gate

    def submit(self, client: Client, gate: str) -> RunView:
        tasks = tuple(self.witness.task(f"t{number}", gate) for number in range(6))
        return client.submit(msgspec.Raw(canonical(Workflow(name=gate, tasks=tasks))))

    def finish(self, client: Client, run: RunView, gate: str) -> None:
        """The gate opens: every task has run once and ends; the next run is dispatched without anybody's help."""
        self.nodes.until(lambda: self.nodes.complete(2, 3))
        assert self.witness.lines(run.id) == {"start": 6}, self.nodes.story()
        self.witness.open(gate)
        after = self.submit(client, gate)
        for each in (run, after):
            assert client.wait(each.id, RUN_SECONDS) is not None, self.nodes.story()
            assert self.witness.lines(each.id) == {"start": 6, "end": 6}, self.nodes.story()
        assert self.storm() == [], "runs changed hands, or somebody was taken for dead"

    def storm(self) -> list[str]:
        """Lines of logs that tell of a failover."""
        lines = [line for name in DAEMONS for line in self.log(name).splitlines()]
        return [line for line in lines if "runs_claimed" in line or "peer_dead" in line or "runs_lost" in line]

    def log(self, name: str) -> str:
        return (self.nodes.folder / f"{name}.log").read_text()

    def told(self, state: str, *names: str) -> dict[str, int]:
        """How often each of these has reported this state of its session."""
        return {name: self.log(name).count(f"registry_session state={state}") for name in names}

    def until_told(self, state: str, before: dict[str, int]) -> None:
        """Return once all of them have reported it again."""
        self.nodes.until(lambda: all(self.told(state, name)[name] > count for name, count in before.items()))


Fault = Callable[[Working, Ensemble, KazooClient], None]


def a_follower_restarts(working: Working, ensemble: Ensemble, admin: KazooClient) -> None:
    next(server for server in ensemble.servers if not server.leads).restart()


def the_leader_is_killed(working: Working, ensemble: Ensemble, admin: KazooClient) -> None:
    leader = next(server for server in ensemble.servers if server.leads)
    before = working.told("suspended", *DAEMONS)
    leader.stop()
    working.nodes.until(lambda: any(server.leads for server in ensemble.servers if server is not leader))
    working.nodes.until(lambda: working.told("suspended", *DAEMONS) != before)
    leader.start()


def the_quorum_is_lost_for_longer_than_the_lease(working: Working, ensemble: Ensemble, admin: KazooClient) -> None:
    """The one server that is left serves readers only, and is no registry."""
    lost, back = working.told("lost", *DAEMONS), working.told("connected", *DAEMONS)
    for server in ensemble.servers[:2]:
        server.stop()
    working.until_told("lost", lost)
    threading.Event().wait(OUTAGE_SECONDS)
    for server in ensemble.servers[:2]:
        server.launch()
    working.until_told("connected", back)


def everybodys_session_is_ended(working: Working, ensemble: Ensemble, admin: KazooClient) -> None:
    for name in DAEMONS:
        lost, back = working.told("lost", name), working.told("connected", name)
        assert ensemble.expire(f"/{name}@")
        working.until_told("lost", lost)
        working.until_told("connected", back)


def the_tree_is_wiped(working: Working, ensemble: Ensemble, admin: KazooClient) -> None:
    back = working.told("connected", *DAEMONS)
    wipe(admin, "/faults")
    working.until_told("connected", back)


def members_are_deleted(working: Working, ensemble: Ensemble, admin: KazooClient) -> None:
    back = working.told("connected", *DAEMONS)
    for node in admin.get_children(MEMBERS):
        admin.delete(f"{MEMBERS}/{node}")
    working.until_told("connected", back)


def everybody_is_locked_out(working: Working, ensemble: Ensemble, admin: KazooClient) -> None:
    """An administrator changes who may read and write: to daemons that is an outage like any other."""
    lost, back = working.told("lost", *DAEMONS), working.told("connected", *DAEMONS)
    admin.add_auth("digest", "admin:secret")
    admin.set_acls(MEMBERS, [make_digest_acl("admin", "secret", all=True)])
    node = admin.get_children(MEMBERS)[0]
    admin.delete(f"{MEMBERS}/{node}")  # whoever looks at the list now is refused
    working.nodes.until(lambda: any(count > lost[name] for name, count in working.told("lost", *DAEMONS).items()))
    admin.set_acls(MEMBERS, OPEN_ACL_UNSAFE)
    working.nodes.until(lambda: any(count > back[name] for name, count in working.told("connected", *DAEMONS).items()))


def everybody_stands_still_for_longer_than_the_lease(working: Working, ensemble: Ensemble, admin: KazooClient) -> None:
    """A machine that is suspended and resumed: tasks, daemons and guardians, all but the servers."""
    lost, back = working.told("lost", *DAEMONS), working.told("connected", *DAEMONS)
    members = len(admin.get_children(MEMBERS))
    pids = [pid for name in DAEMONS for pid in tree_of(working.nodes.daemons[name].pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert members >= len(DAEMONS)
        working.nodes.until(lambda: admin.get_children(MEMBERS) == [])
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)
    working.until_told("lost", lost)
    working.until_told("connected", back)


def tree_of(pid: int) -> list[int]:
    """A process and everything below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(found for child in children for found in tree_of(int(child)))]


@pytest.fixture(scope="module")
def working(
    zookeeper_ensemble: Ensemble, postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Working]:
    folder, registry = tmp_path_factory.mktemp("working"), zookeeper_ensemble.url("faults")
    nodes = Cluster(folder, postgres_server.new_migrated_database(), registry, session_seconds=LEASE_SECONDS)
    try:
        nodes.start_all(masters=2, workers=3)
        yield Working(nodes)
    finally:
        nodes.stop()


@pytest.fixture
def admin(zookeeper_ensemble: Ensemble) -> Iterator[KazooClient]:
    client = KazooClient(hosts=zookeeper_ensemble.servers[2].hosts, timeout=20.0)
    client.start(timeout=RUN_SECONDS)
    yield client
    client.stop()
    client.close()


@pytest.mark.parametrize(
    "fault",
    [
        a_follower_restarts,
        the_leader_is_killed,
        the_quorum_is_lost_for_longer_than_the_lease,
        everybodys_session_is_ended,
        the_tree_is_wiped,
        members_are_deleted,
        everybody_is_locked_out,
        everybody_stands_still_for_longer_than_the_lease,
    ],
    ids=lambda fault: fault.__name__,
)
def test_zookeeper_fails_and_no_task_notices(
    working: Working, zookeeper_ensemble: Ensemble, admin: KazooClient, fault: Fault
) -> None:
    with working.nodes.client() as client:
        run, gate = working.begin(client)
        fault(working, zookeeper_ensemble, admin)
        working.finish(client, run, gate)


def test_a_database_that_is_store_and_registry_fails_and_no_task_notices(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    url = postgres_server.new_migrated_database()
    nodes = Cluster(tmp_path, url, f"database+{url}", session_seconds=LEASE_SECONDS)
    working = Working(nodes)
    try:
        nodes.start_all(masters=2, workers=3)
        with nodes.client() as client:
            run, gate = working.begin(client)
            lost, back = working.told("lost", *DAEMONS), working.told("connected", *DAEMONS)
            postgres_server.stop(immediate=True)
            try:
                working.until_told("lost", lost)
                threading.Event().wait(OUTAGE_SECONDS)
            finally:
                postgres_server.start()
            working.until_told("connected", back)
            working.finish(client, run, gate)
    finally:
        nodes.stop()


@pytest.fixture
def cramped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ZooKeeperServer, Path]]:
    """A ZooKeeper on a small disk of its own, and where that is."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SPACE_MIB}m", "none", str(disk)], check=True)
    try:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        server = ZooKeeperServer(java_options=("-Dzookeeper.preAllocSize=64",))  # KiB, else its log has 64 MiB of room
        monkeypatch.undo()
        yield server, disk
        server.close()
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_zookeeper_whose_disk_is_full_ends_and_no_task_notices(
    cramped: tuple[ZooKeeperServer, Path], postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """It gives up at its first write. With room on the disk it is started again, and all is as before."""
    server, disk = cramped
    url = postgres_server.new_migrated_database()
    nodes = Cluster(tmp_path, url, server.new_url(), session_seconds=LEASE_SECONDS)
    working = Working(nodes)
    try:
        nodes.start_all(masters=2, workers=3)
        with nodes.client() as client:
            run, gate = working.begin(client)
            lost, back = working.told("lost", *DAEMONS), working.told("connected", *DAEMONS)
            fill(disk / "fill")
            write_until_it_ends(server)
            working.until_told("lost", lost)
            (disk / "fill").unlink()
            server.restart()
            working.until_told("connected", back)
            working.finish(client, run, gate)
    finally:
        nodes.stop()


def fill(path: Path) -> None:
    """Take all the room that is left."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(1 << 16)):
            pass


def write_until_it_ends(server: ZooKeeperServer) -> None:
    """Put nodes into it until it has no room for one more."""
    admin = KazooClient(hosts=server.hosts, timeout=20.0)
    admin.start(timeout=RUN_SECONDS)
    try:
        with suppress(KazooException, KazooTimeoutError):
            while True:
                admin.create_async("/much", bytes(1 << 14), sequence=True).get(timeout=LEASE_SECONDS)
    finally:
        admin.stop()
        admin.close()


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
