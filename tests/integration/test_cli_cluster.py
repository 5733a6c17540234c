"""Commands that ask a cluster: what they print and how they exit."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from subprocess import CompletedProcess

import pytest

from dsfast.cli.exits import Exit
from dsfast.cli.main import invoke
from tests.integration.local_cluster import SLOTS, LocalCluster, local_cluster

GOOD = """
name: good
params: {n: 3}
tasks:
  lines: {type: shell, script: 'seq $DSFAST_PARAM_N'}
  end: {type: noop, needs: [lines]}
"""
BAD = "name: bad\ntasks:\n  breaks: {type: shell, script: 'exit 7'}\n"
SLOW = "name: slow\ntasks:\n  nap: {type: sleep, seconds: 60}\n"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    folder = tmp_path_factory.mktemp("cli")
    for name, text in (("good", GOOD), ("bad", BAD), ("slow", SLOW)):
        (folder / f"{name}.yaml").write_text(text)
    with local_cluster(folder) as running:
        yield running


Dsfast = Callable[..., CompletedProcess[str]]


@pytest.fixture
def dsfast(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Dsfast:
    """Runs a command against the cluster in this process; starting an interpreter for each would take minutes."""
    for name in [name for name in os.environ if name.startswith("DSFAST_")]:
        monkeypatch.delenv(name)
    for name, value in cluster.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(cluster.folder)

    def run(*args: str, stdin: str = "") -> CompletedProcess[str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capsys.readouterr()
        code = invoke(args)
        printed = capsys.readouterr()
        return CompletedProcess(args, code, printed.out, printed.err)

    return run


@pytest.fixture(scope="module")
def good(cluster: LocalCluster) -> str:
    """A run that has succeeded."""
    done = cluster.dsfast("submit", "good.yaml", "--wait", "-o", "json", "-p", "n=12")
    assert done.returncode == 0, done.stderr
    view = json.loads(done.stdout)
    assert view["state"] == "succeeded"
    return str(view["id"])


def test_submit_says_what_to_do_next(dsfast: Dsfast) -> None:
    done = dsfast("submit", "good.yaml")
    assert done.returncode == 0
    run = done.stdout.split()[1]
    assert f"dsfast status {run}" in done.stderr
    assert f"dsfast cancel {run}" in done.stderr
    assert dsfast("wait", run).returncode == 0


def test_submit_waits_and_exits_as_the_run_did(dsfast: Dsfast) -> None:
    done = dsfast("submit", "bad.yaml", "--wait")
    assert done.returncode == Exit.RUN_FAILED
    assert done.stdout.endswith(": 1 failed\n")


def test_submit_follows_what_happens(dsfast: Dsfast) -> None:
    done = dsfast("submit", "-", "--follow", stdin=BAD)
    assert done.returncode == Exit.RUN_FAILED
    assert "breaks failed: exit code 7" in done.stdout.splitlines()


def test_submit_with_a_key_starts_one_run(dsfast: Dsfast) -> None:
    first, second = (dsfast("submit", "good.yaml", "--idempotency-key", "k", "-o", "quiet").stdout for _ in range(2))
    assert first == second


def test_mistakes_in_a_file_are_reported_with_its_name(dsfast: Dsfast) -> None:
    done = dsfast("submit", "-", stdin="name: x\ntasks:\n  a: {type: nop}\n")
    assert done.returncode == Exit.USAGE
    assert done.stderr.startswith("error: standard input:3:")
    assert dsfast("submit", "nowhere.yaml").returncode == Exit.USAGE


def test_runs_are_listed_in_every_format(dsfast: Dsfast, good: str) -> None:
    table = dsfast("ps", "--workflow", "good").stdout.splitlines()
    assert table[0].split() == ["RUN", "WORKFLOW", "STATE", "TASKS", "CREATED", "TOOK", "REASON"]
    assert any(line.startswith(good) and "succeeded" in line and "2/2" in line for line in table)
    ids = dsfast("ps", "--workflow", "good", "-o", "quiet").stdout.split()
    assert good in ids
    page = json.loads(dsfast("ps", "--workflow", "good", "-o", "json").stdout)
    assert [run["id"] for run in page["runs"]] == ids
    lines = dsfast("ps", "--workflow", "good", "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ids
    assert dsfast("ps", "--state", "cancelled", "--workflow", "good", "-o", "quiet").stdout == ""
    assert dsfast("ps", "--state", "weird").returncode == Exit.USAGE


def test_a_run_is_shown_in_every_format(dsfast: Dsfast, good: str) -> None:
    lines = dsfast("status", good[:-1]).stdout.splitlines()
    assert lines[0].startswith(f"run {good} of good: succeeded in ")
    assert [line.split()[:2] for line in lines[2:]] == [["lines", "succeeded"], ["end", "succeeded"]]
    assert json.loads(dsfast("status", good, "-o", "json").stdout)["id"] == good
    tasks = [json.loads(line) for line in dsfast("status", good, "-o", "jsonl").stdout.splitlines()]
    assert [task["name"] for task in tasks] == ["lines", "end"]
    assert dsfast("status", good, "-o", "quiet").stdout == "succeeded\n"


def test_a_failed_run_says_where_to_look(dsfast: Dsfast) -> None:
    run = dsfast("submit", "bad.yaml", "--wait", "-o", "json").stdout
    name = json.loads(run)["id"]
    assert f"dsfast logs {name}/breaks" in dsfast("status", name).stderr


def test_logs_whole_by_tail_and_followed(dsfast: Dsfast, good: str) -> None:
    whole = "".join(f"{n}\n" for n in range(1, 13))
    assert dsfast("logs", f"{good}/lines").stdout == whole
    assert dsfast("logs", f"{good}/lines", "-f").stdout == whole
    assert dsfast("logs", f"{good}/lines", "--tail", "2").stdout == "11\n12\n"
    assert dsfast("logs", f"{good}/lines", "--tail", "99").stdout == whole
    assert dsfast("logs", f"{good}/lines", "--tail", "0").stdout == ""
    every = dsfast("logs", good)
    assert every.stdout == whole
    assert "==> lines <==" in every.stderr
    assert dsfast("logs", good, "-f").returncode == Exit.USAGE


def test_a_long_log_comes_whole_and_its_tail_is_exact(dsfast: Dsfast) -> None:
    text = "name: long\ntasks:\n  lines: {type: shell, script: 'seq 300000'}\n"
    run = json.loads(dsfast("submit", "-", "--wait", "-o", "json", stdin=text).stdout)["id"]
    assert dsfast("logs", f"{run}/lines").stdout == "".join(f"{n}\n" for n in range(1, 300001))
    tail = dsfast("logs", f"{run}/lines", "--tail", "20000").stdout
    assert tail == "".join(f"{n}\n" for n in range(280001, 300001))


@pytest.mark.parametrize(
    "args",
    [["status", "0" * 13], ["wait", "0" * 13], ["cancel", "0" * 13], ["logs", "0" * 13], ["logs", "last/nobody"]],
)
def test_what_is_not_there_is_not_found(dsfast: Dsfast, good: str, args: list[str]) -> None:
    done = dsfast(*args)
    assert done.returncode == Exit.NOT_FOUND
    assert done.stderr.startswith("error: ")


def test_waiting_gives_up_when_told_to_and_cancelling_ends_it(dsfast: Dsfast, good: str) -> None:
    run = dsfast("submit", "slow.yaml", "-o", "quiet").stdout.strip()
    done = dsfast("wait", good, run, "--timeout", "100ms")
    assert done.returncode == Exit.TIMEOUT
    assert "goes on" in done.stderr
    stopped = dsfast("cancel", run, "--reason", "enough")
    assert stopped.returncode == 0
    assert stopped.stdout in (f"run {run} cancelling\n", f"run {run} cancelled\n")  # its end may come first
    ended = dsfast("wait", run, good)
    assert ended.returncode == Exit.RUN_CANCELLED
    assert "(enough)" in ended.stdout
    assert "had ended already" in dsfast("cancel", run).stdout
    assert dsfast("wait", run, "--timeout", "soon").returncode == Exit.USAGE


def test_who_is_alive(dsfast: Dsfast) -> None:
    (worker,) = json.loads(dsfast("worker", "ls", "-o", "json").stdout)
    assert worker["slots"] == SLOTS
    assert worker["name"] in dsfast("worker", "ls").stdout
    (master,) = dsfast("master", "ls", "-o", "quiet").stdout.split()
    assert master in dsfast("master", "ls").stdout


def test_a_wrong_token_is_a_sentence(dsfast: Dsfast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSFAST_TOKEN", "wrong")
    done = dsfast("ps")
    assert done.returncode == Exit.USAGE
    assert "Authorization" in done.stderr


def test_the_database_of_a_running_cluster_is_current(dsfast: Dsfast) -> None:
    done = dsfast("db", "check")
    assert done.returncode == 0, done.stderr
    assert "as this release needs" in done.stdout


def test_a_second_cluster_on_the_same_ports_says_so(dsfast: Dsfast) -> None:
    done = dsfast("api")
    assert done.returncode == Exit.USAGE
    assert "another api may be running" in done.stderr
