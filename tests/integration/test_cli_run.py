"""`dsfast run` as people use it: one command from file to exit code, in a process of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dsfast.cli.exits import Exit
from tests.integration.local_cluster import clean_environ, read_until, run_dsfast

GOOD = """
name: good
params: {who: world}
tasks:
  greet: {type: shell, script: 'echo "hello $DSFAST_PARAM_WHO"'}
  rest: {type: noop, needs: [greet]}
"""
BAD = """
name: bad
tasks:
  breaks: {type: shell, script: 'seq 100; echo "last words"; exit 7'}
  never: {type: noop, needs: [breaks]}
  other: {type: noop}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(BAD)
    return tmp_path


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return run_dsfast("run", *args, environ=clean_environ(folder), folder=folder)


def test_a_run_that_succeeds(folder: Path) -> None:
    done = run(folder, "good.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^run [0-9a-z]{13} succeeded in .*: 2 succeeded$", done.stdout, re.MULTILINE)
    assert re.search(r"^\d\d:\d\d:\d\d greet succeeded$", done.stdout, re.MULTILINE)
    assert "\x1b" not in done.stdout


def test_a_run_that_fails_shows_why(folder: Path) -> None:
    done = run(folder, "bad.yaml")
    assert done.returncode == Exit.RUN_FAILED
    assert "breaks failed: exit code 7" in done.stderr
    assert done.stderr.count("  | ") == 20
    assert done.stderr.rstrip().endswith("  | last words")
    assert "1 failed" in done.stdout.splitlines()[-1]
    assert "1 skipped" in done.stdout.splitlines()[-1]


def test_json_is_one_document_and_nothing_else(folder: Path) -> None:
    done = run(folder, "good.yaml", "-o", "json", "-p", "who=you")
    assert (done.returncode, done.stderr) == (0, "")
    view = json.loads(done.stdout)
    assert (view["state"], view["params"], view["counts"]) == ("succeeded", {"who": "you"}, {"succeeded": 2})
    assert [task["name"] for task in view["tasks"]] == ["greet", "rest"]


def test_jsonl_is_events_and_the_run(folder: Path) -> None:
    done = run(folder, "bad.yaml", "-o", "jsonl")
    assert (done.returncode, done.stderr) == (Exit.RUN_FAILED, "")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events[:-1]] == ["task"] * (len(events) - 1)
    ends = {event["task"]: event["state"] for event in events[:-1]}
    assert ends == {"breaks": "failed", "other": "succeeded"}
    assert events[-1]["event"] == "run"
    assert events[-1]["run"]["state"] == "failed"


def test_a_wrong_file_is_explained_line_by_line(folder: Path) -> None:
    (folder / "wrong.yaml").write_text("name: wrong\ntasks:\n  a: {type: nop}\n  b: {type: noop, needs: [c]}\n")
    done = run(folder, "wrong.yaml")
    assert done.returncode == Exit.USAGE
    assert "error: wrong.yaml:3:" in done.stderr
    assert "error: wrong.yaml:4:" in done.stderr
    assert done.stdout == ""
    assert not (folder / "state").exists()


def test_an_unknown_parameter_is_recognised(folder: Path) -> None:
    done = run(folder, "good.yaml", "-p", "woh=x")
    assert done.returncode == Exit.USAGE
    assert "has no parameter 'woh' (did you mean 'who'?)" in done.stderr


def test_two_runs_at_the_same_time_do_not_meet(folder: Path) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "dsfast", "run", "good.yaml", "-o", "json"],
            env=clean_environ(folder), cwd=folder, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    views = [json.loads(process.communicate(timeout=60)[0]) for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert views[0]["id"] != views[1]["id"]


def interrupted(folder: Path, script: str, signals: list[tuple[str, int]]) -> tuple[int, str]:
    """A run of this script whose process gets each signal once the text before it was printed."""
    (folder / "long.yaml").write_text(f"name: long\ntasks:\n  long:\n    type: shell\n    script: |\n      {script}\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "dsfast", "run", "long.yaml"],
        env=clean_environ(folder), cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    printed = ""
    for text, number in signals:
        printed += read_until(process, text)
        process.send_signal(number)
    rest, _ = process.communicate(timeout=60)
    return process.returncode, printed + rest


def test_ctrl_c_cancels_and_says_what_comes_next(folder: Path) -> None:
    code, printed = interrupted(folder, "sleep 60", [("long running", signal.SIGINT)])
    assert code == Exit.RUN_CANCELLED
    assert "press Ctrl-C again" in printed
    assert "long killed: interrupted" in printed
    assert re.search(r"^run \w{13} cancelled in ", printed, re.MULTILINE)


def test_a_second_ctrl_c_kills_what_does_not_listen(folder: Path) -> None:
    script = "trap '' TERM; while :; do sleep 60; done"
    code, printed = interrupted(folder, script, [("long running", signal.SIGINT), ("again", signal.SIGINT)])
    assert code == Exit.RUN_CANCELLED
    assert "Killing tasks." in printed


def test_a_terminal_sees_it_live_and_keeps_the_end(folder: Path) -> None:
    ours, theirs = pty.openpty()
    environ = clean_environ(folder) | {"TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        [sys.executable, "-m", "dsfast", "run", "good.yaml"], env=environ, cwd=folder, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    printed = b""
    try:
        while data := os.read(ours, 65536):
            printed += data
    except OSError:  # how a terminal says that its last user has left
        pass
    finally:
        os.close(ours)
    assert process.wait(30) == 0
    text = printed.decode()
    assert "\x1b[2K" in text
    assert re.search(r"run \w{13} succeeded in .*: 2 succeeded\r\n$", text)
