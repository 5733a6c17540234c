"""WfFormat traces: as many tasks and edges as the trace has, each sleeping for its run time."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsfast.errors import UsageError
from dsfast.formats.wfformat import read_trace
from dsfast.model import Task


def trace(tasks: list[dict[str, Any]], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """A trace as version 1.5 has it."""
    return {
        "name": "blast",
        "description": "A search.",
        "schemaVersion": "1.5",
        "workflow": {
            "specification": {"tasks": tasks, "files": []},
            "execution": {"makespanInSeconds": 9.5, "tasks": runs, "machines": []},
        },
    }


def spec(key: str, parents: list[str], name: str = "", children: list[str] | None = None) -> dict[str, Any]:
    return {"name": name or key, "id": key, "parents": parents, "children": children or [], "inputFiles": []}


def seconds(task: Task) -> float:
    return float(msgspec.json.decode(task.config)["seconds"])


def test_tasks_sleep_for_their_run_time_by_the_scale() -> None:
    tasks = [spec("a", []), spec("b", ["a"]), spec("c", ["a", "b"])]
    runs = [{"id": key, "runtimeInSeconds": time} for key, time in (("a", 10.0), ("b", 2.5), ("c", 0))]
    (workflow,) = read_trace(json.dumps(trace(tasks, runs)), "t.json", 0.1).workflows
    assert workflow.name == "blast"
    assert [(task.name, task.type, task.needs, seconds(task)) for task in workflow.tasks] == [
        ("a", "sleep", (), 1.0),
        ("b", "sleep", ("a",), 0.25),
        ("c", "sleep", ("a", "b"), 0.0),
    ]


def test_ids_name_the_tasks_when_names_repeat() -> None:
    tasks = [spec("x_1", [], name="x"), spec("x_2", ["x_1"], name="x")]
    (workflow,) = read_trace(json.dumps(trace(tasks, []))).workflows
    assert [task.name for task in workflow.tasks] == ["x_1", "x_2"]


def test_a_child_that_does_not_list_its_parent_waits_for_it() -> None:
    tasks = [spec("a", [], children=["b"]), spec("b", [])]
    (workflow,) = read_trace(json.dumps(trace(tasks, []))).workflows
    assert workflow.tasks[1].needs == ("a",)


@pytest.mark.parametrize("key", ["tasks", "jobs"])
@pytest.mark.parametrize("time", ["runtime", "runtimeInSeconds"])
def test_older_versions_hold_tasks_and_run_times_together(key: str, time: str) -> None:
    tasks = [{"name": "a", time: 3}, {"name": "b", time: "4", "parents": ["a"]}]
    (workflow,) = read_trace(json.dumps({"name": "old", "workflow": {key: tasks}})).workflows
    assert [(task.name, task.needs, seconds(task)) for task in workflow.tasks] == [("a", (), 3.0), ("b", ("a",), 4.0)]


def test_missing_run_times_are_noted() -> None:
    found = read_trace(json.dumps(trace([spec("a", []), spec("b", [])], [{"id": "a", "runtimeInSeconds": -1}])))
    assert [seconds(task) for task in found.workflows[0].tasks] == [0.0, 0.0]
    assert found.notes[1] == "the trace has no run time for 2 tasks, which end at once: a, b"


@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))))
    )
)
@settings(deadline=None)
def test_every_task_and_every_edge_is_carried_over(graph: tuple[int, set[tuple[int, int]]]) -> None:
    count, pairs = graph
    edges = {(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]}
    tasks = [
        spec(f"t{n}", [f"t{a}" for a, b in edges if b == n], children=[f"t{b}" for a, b in edges if a == n])
        for n in range(count)
    ]
    (workflow,) = read_trace(json.dumps(trace(tasks, []))).workflows
    assert {(need, task.name) for task in workflow.tasks for need in task.needs} == {
        (f"t{a}", f"t{b}") for a, b in edges
    }
    assert len(workflow.tasks) == count


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "t.json: this is not JSON"),
        ("[]", "this is not a WfFormat trace: must be a mapping, not a list"),
        ("{}", "this is not a WfFormat trace"),
        ('{"workflow": {}}', "the trace has no tasks"),
        ('{"workflow": {"tasks": [5]}}', "this is not a WfFormat trace"),
        (json.dumps(trace([spec("a", ["z"])], [])), "the task 'a' of the trace refers to 'z', which is not in it"),
        (json.dumps(trace([spec("a", []), spec("a", [])], [])), "two tasks of the trace have the id 'a'"),
        (json.dumps(trace([spec("a", ["b"]), spec("b", ["a"])], [])), "in a circle: a -> b -> a"),
    ],
)
def test_what_is_not_a_trace_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_trace(text, "t.json")
    assert sentence in str(caught.value)


@pytest.mark.parametrize("scale", [-1.0, math.inf, math.nan])
def test_the_time_scale_must_make_sense(scale: float) -> None:
    with pytest.raises(UsageError, match="the time scale must be 0 or more and finite"):
        read_trace(json.dumps(trace([spec("a", [])], [])), "t.json", scale)
