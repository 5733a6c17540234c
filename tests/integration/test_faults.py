"""What goes wrong around a cluster: each is a sentence, loses nothing, and takes nothing else down."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dsfast.chaos.ports import free_port
from dsfast.model import Task, Workflow, canonical
from tests.integration.cluster import Cluster, cluster
from tests.integration.local_cluster import clean_environ, run_dsfast
from tests.servers.postgres import PostgresServer
from tests.workflows import config, flat, shell

HUGE = 100_000
RUN_SECONDS = 120.0


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster on SQLite; tests start its daemons."""
    database, registry = f"sqlite:///{tmp_path}/db", f"database+sqlite:///{tmp_path}/registry.db"
    with cluster(tmp_path, database, registry) as made:
        created = run_dsfast("db", "upgrade", environ=made.environ, folder=tmp_path)
        assert created.returncode == 0, created
        yield made


def refused(folder: Path, *args: str, **environ: str) -> str:
    """A daemon that cannot start: its sentence, after it has exited with an error and no traceback."""
    found = run_dsfast(*args, environ=clean_environ(folder) | environ, folder=folder)
    assert found.returncode in (1, 2, 7), found
    assert "Traceback" not in found.stderr
    return found.stderr


def test_a_group_without_workers_waits_and_says_why(small: Cluster) -> None:
    small.start_all(masters=1, workers=1)
    lonely = Task(name="lonely", type="noop", group="gpu")
    other = Task(name="other", type="noop")
    with small.client() as client:
        run = client.submit(msgspec.Raw(canonical(Workflow(name="groups", tasks=(lonely, other)))))
        small.until(lambda: client.run(run.id).counts.get("succeeded") == 1)  # the other group is not held up
        view = client.run(run.id)
        assert isinstance(view.tasks, list)
        assert "gpu" in view.tasks[0].reason
        assert "no worker" in view.tasks[0].reason
        small.start_worker("w-gpu", groups="gpu")
        ended = client.wait(run.id, RUN_SECONDS)
    assert ended is not None
    assert ended.state == "succeeded"


def test_a_database_without_tables_names_the_command(tmp_path: Path, postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database()
    said = refused(tmp_path, "master", DSFAST_STORE_URL=url, DSFAST_MASTER_PORT="0")
    assert "dsfast db upgrade" in said


def test_a_database_out_of_reach_is_named_without_its_password(tmp_path: Path) -> None:
    url = f"postgresql://dsfast:hush@127.0.0.1:{free_port()}/dsfast"
    said = refused(tmp_path, "master", DSFAST_STORE_URL=url, DSFAST_MASTER_PORT="0")
    assert "127.0.0.1" in said
    assert "hush" not in said


@pytest.mark.parametrize("role", ["master", "worker", "api"])
def test_a_port_that_is_taken_is_named(small: Cluster, role: str) -> None:
    small.start_all(masters=1, workers=1)
    environ = small.environ | {f"DSFAST_{role.upper()}_PORT": str(small.port), f"DSFAST_{role.upper()}_NAME": "second"}
    environ["DSFAST_STORE_URL"] = (
        f"sqlite:///{small.folder}/another.db" if role == "master" else environ["DSFAST_STORE_URL"]
    )
    if role == "api":
        environ.pop("DSFAST_API_NAME")
    assert str(small.port) in refused(small.folder, role, **environ)


def test_a_second_master_on_one_sqlite_file_is_refused(small: Cluster) -> None:
    small.start_all(masters=1, workers=1)
    environ = small.environ | {"DSFAST_MASTER_NAME": "second", "DSFAST_MASTER_PORT": "0"}
    said = refused(small.folder, "master", **environ)
    assert "one SQLite database serves one master" in said
    with small.client() as client:
        run = client.submit(msgspec.Raw(canonical(flat(3))))
        ended = client.wait(run.id, RUN_SECONDS)
    assert ended is not None
    assert ended.state == "succeeded"


def test_a_worker_with_another_key_gets_nothing_to_do(small: Cluster) -> None:
    small.start_all(masters=1, workers=1)
    key = small.folder / "another.key"
    key.touch(mode=0o600)
    key.write_bytes(base64.b64encode(os.urandom(32)))
    process = small.start("worker", "stranger", groups="gpu")
    small.until(lambda: "worker_ready" in (small.folder / "stranger.log").read_text())
    process.terminate()
    process.wait()
    small.environ["DSFAST_CLUSTER_KEY_FILE"] = str(key)
    small.start("worker", "impostor", groups="gpu")
    small.until(lambda: "dial_failed" in (small.folder / "m1.log").read_text())
    with small.client() as client:
        run = client.submit(
            msgspec.Raw(canonical(Workflow(name="w", tasks=(Task(name="a", type="noop", group="gpu"),))))
        )
        view = client.run(run.id)
        client.cancel(run.id)
    assert isinstance(view.tasks, list)
    assert view.tasks[0].state == "queued"


def test_a_full_disk_under_the_logs_delays_tasks_and_loses_none(small: Cluster) -> None:
    """Started where there is no room, attempts are given back and tried again; made room for, they run."""
    logs = small.folder / "w1-logs"
    logs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=16", "none", str(logs)], check=True)
    try:
        filler = logs / "filler"
        small.start_all(masters=1, workers=1)
        fill(filler)
        with small.client() as client:
            run = client.submit(msgspec.Raw(canonical(Workflow(name="w", tasks=(shell("a", "echo hello"),)))))
            small.until(lambda: "start_refused" in (small.folder / "w1.log").read_text())
            assert client.run(run.id).state == "running"
            filler.unlink()
            for link in logs.glob("inode-*"):
                link.unlink()
            ended = client.wait(run.id, RUN_SECONDS)
        assert ended is not None
        assert ended.state == "succeeded"
    finally:
        small.stop()
        subprocess.run(["umount", str(logs)], check=True)


def fill(filler: Path) -> None:
    """Use up every byte and every inode of the file system."""
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    try:
        for number in range(100):
            (filler.parent / f"inode-{number}").touch()
    except OSError:
        pass


def test_a_file_of_a_hundred_thousand_tasks_is_read_and_accepted(small: Cluster) -> None:
    small.start_all(masters=1, workers=0)
    lines = [f"  t{number}: {{type: noop, worker_group: nobody}}" for number in range(HUGE)]
    (small.folder / "huge.yaml").write_text("\n".join(["name: huge", "tasks:", *lines]))
    found = run_dsfast("validate", "huge.yaml", environ=small.environ, folder=small.folder)
    assert found.returncode == 0, found.stderr
    with small.client() as client:
        tasks = (Task(name=f"t{number}", type="noop", group="nobody", config=config()) for number in range(HUGE))
        run = client.submit(msgspec.Raw(canonical(Workflow(name="huge", tasks=tuple(tasks)))))
        assert run.tasks_total == HUGE
        client.cancel(run.id)
        ended = client.wait(run.id, RUN_SECONDS)
    assert ended is not None
    assert ended.state == "cancelled"


def test_a_parameter_of_ten_megabytes_is_refused_with_the_limit(small: Cluster) -> None:
    (small.folder / "w.yaml").write_text("name: w\nparams: {text: ''}\ntasks: {a: {script: 'true'}}\n")
    (small.folder / "params.json").write_text(msgspec.json.encode({"text": "x" * (10 << 20)}).decode())
    found = run_dsfast("run", "w.yaml", "--params-file", "params.json", environ=small.environ, folder=small.folder)
    assert found.returncode == 2, found
    assert "1,048,576" in found.stderr
    assert "Traceback" not in found.stderr
