"""What goes wrong with the database while a cluster works: no run that was accepted is lost, no task runs twice, and
dispatch resumes by itself. Tasks bear witness, so that two at once would be seen by the kernel.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from dsfast.client import Client
from dsfast.errors import Unavailable
from dsfast.model import Task, Workflow, canonical
from dsfast.store import migrations
from tests.integration.cluster import READY_SECONDS, Cluster, cluster
from tests.integration.local_cluster import run_dsfast
from tests.integration.witness import Witness
from tests.servers.mysql import MySqlServer
from tests.servers.postgres import PostgresServer
from tests.servers.rough import RoughNetwork

OPEN = "open"  # a gate that nobody has to wait at
CUTS_MIN = 25
SLOW_SECONDS = 0.2  # for each answer; a commit to MySQL takes five of them
SPACE_MIB = 48
MANY = 1_000  # tasks whose rows do not fit into the room left in the pages of an empty table


def registry_in(folder: Path) -> str:
    """Another database, in which nothing goes wrong: with leases that a busy machine does not let run out."""
    return f"database+sqlite:///{folder}/registry.db?session=20"


@dataclass
class Shop:
    """A cluster at work on a database server of its own, with a network in between and a small disk below."""

    server: PostgresServer | MySqlServer
    network: RoughNetwork
    disk: Path
    nodes: Cluster
    witness: Witness

    def submit(self, client: Client, key: str, *tasks: Task) -> str:
        """The run under this key, once it is accepted."""
        return submit(self.nodes, client, key, tasks)

    def chain(self, key: str, gate: str = OPEN) -> tuple[Task, ...]:
        """Two tasks, the first of which waits at a gate."""
        return self.witness.task("first", gate), self.witness.task("second", OPEN, needs=("first",))

    def must_end(self, client: Client, run: str) -> None:
        """The run ends well, each of its tasks at the first attempt."""
        self.nodes.until(lambda: client.run(run).state == "succeeded")
        assert {task.attempts for task in client.tasks(run)} == {1}, self.nodes.story()

    def log(self) -> str:
        return "".join((self.nodes.folder / f"{name}.log").read_text() for name in ("m1", "m2"))


def submit(nodes: Cluster, client: Client, key: str, tasks: tuple[Task, ...]) -> str:
    """The run under this key, once it is accepted: asked again and again, as a client does that gets no answer."""
    found: list[str] = []
    workflow = msgspec.Raw(canonical(Workflow(name=key, tasks=tasks)))

    def accepted() -> bool:
        found.append(client.submit(workflow, idempotency_key=key).id)
        return True

    nodes.until(accepted)
    return found[-1]


@contextmanager
def small_disk(folder: Path, owner: str) -> Iterator[Path]:
    """A file system of its own, of SPACE_MIB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SPACE_MIB}m", "none", str(folder)], check=True)
    try:
        shutil.chown(folder, owner, owner)
        folder.chmod(0o700)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def served(kind: str) -> Iterator[tuple[PostgresServer | MySqlServer, str, Path]]:
    """A server, and a database on it that lies on a small disk."""
    if kind == "mysql":
        mysql = MySqlServer()
        try:
            url = mysql.new_database()
            with small_disk(mysql.folder_of(url), "mysql") as disk:
                yield mysql, url, disk
        finally:
            mysql.close()
        return
    postgres, space = PostgresServer(), Path(tempfile.mkdtemp(prefix="dsfast-space-"))
    try:
        with small_disk(space, "postgres") as disk:
            postgres.sql(f"CREATE TABLESPACE small LOCATION '{disk}'")
            postgres.sql("CREATE DATABASE small TABLESPACE small TEMPLATE template0")
            yield postgres, postgres.url("small"), disk
    finally:
        postgres.close()
        space.rmdir()


@pytest.fixture(scope="module", params=["postgresql", "mysql"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    with served(request.param) as (server, url, disk):
        migrations.upgrade(url)
        network = RoughNetwork(server.port)
        far = url.replace(f":{server.port}/", f":{network.port}/")
        with cluster(folder, far, registry_in(folder)) as nodes:
            nodes.start_all(masters=2, workers=1, slots=8)
            witness = Witness(folder)
            witness.open(OPEN)
            yield Shop(server, network, disk, nodes, witness)
        network.close()


def test_a_crash_of_the_server_is_waited_out(shop: Shop) -> None:
    """Tasks run on and end without a database; what they did is written when it is back. F51."""
    with shop.nodes.client() as client:
        runs = [shop.submit(client, f"crash {n}", *shop.chain(f"crash {n}", "crash")) for n in range(4)]
        shop.nodes.until(lambda: sum(shop.witness.lines(run)["start"] for run in runs) == 4)
        shop.server.stop(immediate=True)
        shop.witness.open("crash")
        shop.nodes.until(lambda: sum(shop.witness.lines(run)["end"] for run in runs) == 4)
        with pytest.raises(Unavailable):
            client.runs()
        shop.server.start()
        for run in runs:
            shop.must_end(client, run)
            assert shop.witness.lines(run) == {"start": 2, "end": 2}
    assert "store_unavailable" in shop.log()


def test_connections_that_are_cut_at_every_place_of_a_commit_lose_and_double_nothing(shop: Shop) -> None:
    """The server did what it was asked and nobody learnt of it; submits are repeated by their keys. F52."""
    before = shop.network.cuts
    shop.network.lossy = True
    try:
        with shop.nodes.client() as client:
            number = 0
            runs: dict[str, str] = {}
            while shop.network.cuts - before < CUTS_MIN:
                key = f"cut {(number := number + 1)}"
                runs[key] = shop.submit(client, key, *shop.chain(key))
            shop.network.lossy = False
            for key, run in runs.items():
                shop.must_end(client, run)
                assert shop.submit(client, key, *shop.chain(key)) == run, "a repeated submit is the same run"
                assert [found.id for found in client.runs(workflow=key).runs] == [run]
                assert shop.witness.lines(run) == {"start": 2, "end": 2}
    finally:
        shop.network.lossy = False


def test_a_slow_database_delays_tasks_and_nobody_takes_anybody_for_dead(shop: Shop) -> None:
    """F55."""
    with shop.nodes.client() as client:
        members = {member.id for member in (*client.masters(), *client.workers())}
        shop.network.delay_seconds = SLOW_SECONDS
        try:
            run = shop.submit(client, "slow", *shop.chain("slow"))
            shop.must_end(client, run)
        finally:
            shop.network.delay_seconds = 0.0
        assert {member.id for member in (*client.masters(), *client.workers())} == members
    assert shop.witness.lines(run) == {"start": 2, "end": 2}


def test_a_full_disk_under_the_database_halts_dispatch_and_says_so(shop: Shop) -> None:
    """F54."""
    many = tuple(Task(name=f"t{n}", type="noop", needs=("first",)) for n in range(MANY))
    with shop.nodes.client() as client:
        run = shop.submit(client, "full", shop.witness.task("first", "room"), *many)
        shop.nodes.until(lambda: shop.witness.lines(run)["start"] == 1)
        filler = shop.disk / "filler"
        fill(filler)
        try:
            shop.witness.open("room")
            shop.nodes.until(lambda: "disk is full" in shop.log())
            assert client.run(run).state == "running", "what people ask is answered all the while"
        finally:
            filler.unlink()
        shop.must_end(client, run)
    assert shop.witness.lines(run) == {"start": 1, "end": 1}


def fill(filler: Path) -> None:
    """Use up every byte of the file system."""
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


# --- an older copy --------------------------------------------------------------------------------------------------


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[tuple[MySqlServer, Cluster]]:
    """A server and a cluster that go back in time together with nobody else."""
    server = MySqlServer()
    try:
        with cluster(tmp_path, server.new_migrated_database(), registry_in(tmp_path)) as nodes:
            nodes.start_all(masters=1, workers=1)
            yield server, nodes
    finally:
        server.close()


def test_a_database_restored_from_an_older_copy_halts_its_master_until_it_is_restarted(
    alone: tuple[MySqlServer, Cluster], tmp_path: Path
) -> None:
    """F56: to go on would lose what was accepted, in silence; a person decides."""
    server, nodes = alone
    witness = Witness(tmp_path)
    tasks = (witness.task("first", "gate"), witness.task("second", "gate", needs=("first",)))
    with nodes.client() as client:
        server.save()
        run = submit(nodes, client, "forgotten", tasks)
        nodes.until(lambda: witness.lines(run)["start"] == 1)
        server.go_back()
        witness.open("gate")
        nodes.until(lambda: "store_went_back" in (tmp_path / "m1.log").read_text())
        with pytest.raises(Unavailable, match="restored from an older copy"):
            client.submit(msgspec.Raw(canonical(Workflow(name="later", tasks=tasks))))
        assert [member.name for member in client.masters()] == ["m1"], "it keeps its place"
        assert witness.lines(run) == {"start": 1, "end": 1}
        nodes.daemons["m1"].terminate()
        assert nodes.daemons["m1"].wait(READY_SECONDS) != 0
        nodes.start("master", "m1")
        again = submit(nodes, client, "forgotten", tasks)
        nodes.until(lambda: client.run(again).state == "succeeded")
    assert again != run


# --- SQLite ---------------------------------------------------------------------------------------------------------


def test_a_master_that_is_killed_again_and_again_leaves_a_whole_file(tmp_path: Path) -> None:
    """Its log is left unmerged, mostly in the middle of a commit; the next life finds all that was answered. F57."""
    witness = Witness(tmp_path)
    witness.open(OPEN)
    database = f"sqlite:///{tmp_path}/db"
    with cluster(tmp_path, database, f"database+sqlite:///{tmp_path}/registry.db") as nodes:
        assert run_dsfast("db", "upgrade", environ=nodes.environ, folder=tmp_path).returncode == 0
        nodes.start_all(masters=1, workers=1, slots=8)
        with nodes.client() as client:
            runs = []
            tasks = tuple(witness.task(f"t{n}", OPEN) for n in range(30))
            for life in range(4):
                runs.append(submit(nodes, client, f"life {life}", tasks))
                nodes.until(lambda: witness.lines(runs[-1])["start"] > 2)
                nodes.kill("m1")
                nodes.start("master", "m1")
            for run in runs:
                nodes.until(lambda run=run: client.run(run).state == "succeeded")  # type: ignore[misc]
                assert witness.lines(run) == {"start": 30, "end": 30}
    with closing(sqlite3.connect(tmp_path / "db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
