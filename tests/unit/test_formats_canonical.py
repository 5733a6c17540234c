"""Canonical JSON from programs: accepted in one spelling, or refused with everything that is wrong."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsfast.errors import Problem, UsageError
from dsfast.formats.canonical import parse_body
from dsfast.formats.check import check
from dsfast.model import Retry, Task, Workflow, canonical


def body(*tasks: dict[str, Any], **top: Any) -> bytes:
    return json.dumps({"name": "w", "tasks": tasks or [task()], **top}).encode()


def task(**fields: Any) -> dict[str, Any]:
    return {"name": "a", "type": "shell", "config": {"script": "x"}, **fields}


def problems(text: bytes) -> list[Problem]:
    with pytest.raises(UsageError) as caught:
        parse_body(text, "w.json")
    return list(caught.value.problems)


def test_settings_come_out_in_one_spelling() -> None:
    spaced = b'{"name":"w","tasks":[{"name":"a","type":"shell","config":{ "script" : "x", "shell": "ba\\u0073h" }}]}'
    workflow = parse_body(spaced)
    assert bytes(workflow.tasks[0].config) == b'{"script":"x","shell":"bash"}'
    assert parse_body(canonical(workflow)) == workflow


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        (b"", None, "this is not JSON"),
        (b"name: w\ntasks: {}", None, "this is not JSON"),
        (b"\xff\xfe", None, "this is not JSON"),
        (b'{"name": "\xff"}', None, "this is not JSON"),
        (b"[]", None, "must be a mapping, not a list"),
        (b"[" * 100_000, None, "this is not JSON"),
        (b'{"name":"w","tasks":[' + b'{"name":"a","type":"shell","config":' + b"[" * 100_000, None, "nested too deep"),
        (body(name=5), "name", "must be text, not a whole number (5)"),
        (body(priority="high"), "priority", "must be a whole number, not text ('high')"),
        (body(priority=9), "priority", "invalid enum value 9"),
        (b'{"name":"w","tasks":{}}', "tasks", "must be a list"),
        (b'{"name":"w"}', "tasks", "`tasks` is missing"),
        (body(tsks=1), "tsks", "there is no `tsks`"),
        (body(tasks=[]), "tasks", "has no tasks"),
        (body(task(needs="b")), "tasks.a.needs", "must be a list, not text"),
        (body(task(needs=["a", 5])), "tasks.a.needs[1]", "must be text, not a whole number"),
        (body(task(retry={"limt": 1})), "tasks.a.retry", "object contains unknown field `limt`"),
        (body(task(retry={"limit": 1.5})), "tasks.a.retry.limit", "must be a whole number, not a number"),
        (body(task(retries=3)), "tasks.a.retries", "there is no `retries`"),
        (body(task(config=[])), "tasks.a.config", "the settings must be a mapping"),
        (
            body(task(config={"scrpt": "x", "script": "y"})),
            "tasks.a.config.scrpt",
            "a shell task has no setting `scrpt`",
        ),
        (body(task(retry={"limit": -1})), "tasks.a.retry.limit", "must be 0 to 10000, not -1"),
        (body(task(timeout=-1)), "tasks.a.timeout", "must be more than 0"),
        (body(task(needs=["b"])), "tasks.a.needs[0]", "there is no task 'b'"),
        (body(task(), task()), "tasks.a.name", "another task is named 'a', too"),
        (body(task(name="")), "tasks[0].name", "the name is empty"),
        (body(task(env={"A": "{{ params.x }}"})), "tasks.a.env.A", "there is no param 'x'"),
        (body(params={"a": [[]]}, name=" "), "name", "the name ' ' begins or ends with a space"),
    ],
)
def test_a_mistake_is_named_with_its_field(text: bytes, field: str | None, message: str) -> None:
    (problem,) = problems(text)
    assert problem.file == "w.json"
    assert problem.field == field
    assert message in problem.message


def test_all_mistakes_are_told_at_once() -> None:
    found = problems(body(task(needs=5), task(name=7), task(name="c", tpe=1), name=1))
    assert [(problem.field, problem.hint) for problem in found] == [
        ("name", None),
        ("tasks.a.needs", None),
        ("tasks[1].name", None),
        ("tasks.c.tpe", "did you mean 'type'?"),
    ]


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_values_that_would_be_walked_too_deep_are_refused() -> None:
    assert "nested more than 64 deep" in problems(body(params={"a": deep(70)}))[0].message
    python = task(type="python", config={"call": "json:dumps", "args": {"x": deep(70)}})
    assert "nested too deep" in problems(body(python))[0].message


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (Task(name="a", type="noop", timeout=float("nan")), "timeout: must be more than 0"),
        (Task(name="a", type="noop", delay=float("inf")), "delay: must be 0 or more and at most ten years"),
        (Task(name="a", type="noop", retry=Retry(1, backoff=float("nan"))), "retry.backoff: must be 1 to 100"),
        (Task(name="a", type="noop", retry=Retry(1, delay=float("nan"))), "retry.delay: must be 0 or more"),
        (Task(name="a", type="noop", config=msgspec.Raw(b"[]")), "config: the settings must be a mapping"),
        (Task(name="a", type="noop", workdir=""), "workdir: must name a directory"),
    ],
)
def test_a_workflow_made_by_a_program_is_checked_as_well(changed: Task, message: str) -> None:
    (problem,) = check(Workflow(name="w", tasks=(changed,)))
    assert message in str(problem)


@pytest.mark.parametrize("value", [float("nan"), (1, 2), {1: 2}, object(), b"x"])
def test_params_that_are_not_json_are_refused(value: object) -> None:
    (problem,) = check(Workflow(name="w", params={"a": value}, tasks=(Task(name="a", type="noop"),)))
    assert problem.field == "params.a"
    assert "JSON" in problem.message


def test_references_far_up_a_wide_graph_are_checked_in_one_walk() -> None:
    roots = [Task(name=f"r{n}", type="noop") for n in range(5000)]
    middle = Task(name="m", type="noop", needs=tuple(task.name for task in roots[:-1]))
    script = " ".join(f"{{{{ tasks.r{n}.x }}}}" for n in range(5000))
    config = msgspec.Raw(msgspec.json.encode({"script": script}))
    last = Task(name="last", type="shell", needs=("m",), config=config)
    (problem,) = check(Workflow(name="w", tasks=(*roots, middle, last)))
    assert "'r4999' need not have ended when this task starts" in problem.message


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
FIELDS = {each.name for kind in (Task, Workflow, Retry) for each in msgspec.structs.fields(kind)}


@given(st.data())
@settings(deadline=None)
def test_any_body_is_a_workflow_or_a_usage_error(data: st.DataObject) -> None:
    fields = st.dictionaries(st.sampled_from(sorted(FIELDS)), JSON, max_size=3)
    text = body(task(**data.draw(fields)), **data.draw(fields)) if data.draw(st.booleans()) else data.draw(st.binary())
    try:
        workflow = parse_body(text)
    except UsageError as error:
        assert all(problem.message for problem in error.problems)  # noqa: PT017 - most bodies are refused
    else:
        assert parse_body(canonical(workflow)) == workflow
