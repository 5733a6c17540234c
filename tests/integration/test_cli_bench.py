"""`dsfast bench` as people use it, much smaller; what it measures is not judged here."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from dsfast.cli.exits import Exit
from tests.integration.local_cluster import clean_environ, run_dsfast
from tests.servers.mysql import MySqlServer
from tests.servers.postgres import PostgresServer

ONE = "name: one\ntasks:\n  only: {type: noop}\n"


def bench(folder: Path, *args: str) -> CompletedProcess[str]:
    return run_dsfast("bench", "--size", "0.005", *args, environ=clean_environ(folder), folder=folder)


def figures(done: CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return {figure["name"]: figure for figure in json.loads(done.stdout)["figures"]}


def test_every_figure_has_another_beside_it_and_nothing_is_left(tmp_path: Path) -> None:
    done = bench(tmp_path, "-o", "json")
    found = figures(done)
    assert list(found) == ["hop", "noop", "process"]
    for figure in found.values():
        assert 0 < figure["least"] <= figure["value"] <= figure["most"]
        assert figure["beside"] > 0
        assert figure["beside_about"]
    report = json.loads(done.stdout)
    assert "synchronous=FULL" in report["durability"]
    assert report["machine"]["cores"] > 0
    assert "a chain of 5 no-op tasks" in done.stderr
    assert not list((tmp_path / "state").glob("bench-*"))


def test_for_people_it_is_a_table(tmp_path: Path) -> None:
    done = bench(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("WHAT")
    assert "a lone durable commit" in done.stdout


def test_on_servers_it_says_how_durable_they_are(
    tmp_path: Path, postgres_server: PostgresServer, mysql_server: MySqlServer
) -> None:
    for server, setting in ((postgres_server, "fsync=on"), (mysql_server, "innodb_flush_log_at_trx_commit=1")):
        url = server.new_migrated_database()
        done = bench(tmp_path, "-o", "json", "--store", url)
        assert set(figures(done)) == {"hop", "noop", "process"}
        assert setting in json.loads(done.stdout)["durability"]
        assert bench(tmp_path, "--store", url).returncode == 0  # its own runs do not count as others


def test_a_database_that_others_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(ONE)
    environ = clean_environ(tmp_path)
    assert run_dsfast("run", "one.yaml", environ=environ, folder=tmp_path).returncode == 0
    done = bench(tmp_path, "--store", f"sqlite:///{tmp_path}/state/local.db")
    assert done.returncode == Exit.USAGE
    assert "such as 'one'" in done.stderr
    assert "a database of its own" in done.stderr
    assert "Traceback" not in done.stderr
