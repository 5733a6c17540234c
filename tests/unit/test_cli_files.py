"""`dsfast validate`, `graph` and `import`: what they print and write, and how they exit."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dsfast.cli.exits import Exit
from dsfast.cli.main import invoke
from dsfast.formats.yaml_workflow import load_file

GOOD = "name: good\ntasks:\n  a: {type: noop}\n"
BAD = "name: bad\ntasks:\n  a: {type: nop}\n  b: {type: noop, needs: [c]}\n"
TRACE = {
    "name": "seen",
    "schemaVersion": "1.5",
    "workflow": {
        "specification": {
            "tasks": [
                {"name": "a", "id": "a", "parents": [], "children": ["b"]},
                {"name": "b", "id": "b", "parents": ["a"], "children": []},
            ]
        },
        "execution": {"tasks": [{"id": "a", "runtimeInSeconds": 10}, {"id": "b", "runtimeInSeconds": 20}]},
    },
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("DSFAST_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(BAD)
    (tmp_path / "trace.json").write_text(json.dumps(TRACE))
    return tmp_path


def test_every_mistake_of_every_file_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["validate", "good.yaml", "bad.yaml", "none.yaml"]) == Exit.ERROR
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["bad.yaml:3", "bad.yaml:4", "none.yaml"]
    assert printed.err == "3 problems in 2 of 3 files\n"


def test_good_files_are_fine(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["validate", "good.yaml"]) == 0
    assert capsys.readouterr() == ("", "1 file: no problems\n")


def test_problems_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["validate", "good.yaml", "bad.yaml", "--format", "json"]) == Exit.ERROR
    good, bad = json.loads(capsys.readouterr().out)
    assert good == {"file": "good.yaml", "valid": True, "problems": []}
    assert [problem["line"] for problem in bad["problems"]] == [3, 4]


def test_problems_as_annotations(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a,b:%.yaml").write_text(BAD)
    assert invoke(["validate", "a,b:%.yaml", "--format", "github"]) == Exit.ERROR
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("::error file=a%2Cb%3A%25.yaml,line=3::")
    assert second.startswith("::error file=a%2Cb%3A%25.yaml,line=4::")


def test_a_workflow_is_drawn_as_its_file_name_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["graph", "good.yaml"]) == 0
    assert "a" in capsys.readouterr().out
    assert invoke(["graph", "good.yaml", "-o", "good.svg"]) == 0
    assert (folder / "good.svg").read_text().lstrip().startswith("<")
    assert invoke(["graph", "good.yaml", "--format", "dot"]) == 0
    assert capsys.readouterr().out.startswith('digraph "good" {')
    assert invoke(["graph", "bad.yaml"]) == Exit.USAGE
    assert invoke(["graph", "good.yaml", "-o", "nowhere/x.svg"]) == Exit.USAGE


def test_a_trace_becomes_a_workflow(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["import", "trace.json", "-o", "out.yaml", "--time-scale", "0.1"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "out.yaml\n"
    assert "not carried over" in printed.err
    assert "dsfast validate out.yaml" in printed.err
    workflow = load_file("out.yaml")
    assert [(task.name, task.needs) for task in workflow.tasks] == [("a", ()), ("b", ("a",))]
    assert b"2" in bytes(workflow.tasks[1].config)


def test_an_import_without_a_place_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["import", "trace.json", "--format", "wfformat"]) == 0
    assert capsys.readouterr().out.startswith("name: seen\n")


def test_an_import_does_not_overwrite_unless_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "out.yaml").write_text("mine")
    assert invoke(["import", "trace.json", "-o", "out.yaml"]) == Exit.USAGE
    assert "--force" in capsys.readouterr().err
    assert (folder / "out.yaml").read_text() == "mine"
    assert invoke(["import", "trace.json", "-o", "out.yaml", "--force"]) == 0
    (folder / "dir").mkdir()
    assert invoke(["import", "trace.json", "-o", "dir"]) == 0
    assert load_file("dir/seen.yaml").name == "seen"


@pytest.mark.parametrize("content", ["{", "[]", "{}", "null", '{"workflow": 1}'])
def test_what_is_neither_an_export_nor_a_trace(folder: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "x.json").write_text(content)
    assert invoke(["import", "x.json"]) == Exit.USAGE
    assert capsys.readouterr().err.startswith("error: x.json: ")
