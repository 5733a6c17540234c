"""Compiling workflows: positions, shared settings, uses of outputs, and refusals in sentences."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsfast.engine.plan import Plan, compile_body, compile_plan
from dsfast.errors import UsageError
from dsfast.model import Priority, Retry, Task, Workflow, canonical
from dsfast.wire.spec import TaskSpec
from tests.engine_kit import flow, task


def plan_of(*tasks: Task, **traits: Any) -> Plan:
    return compile_plan(flow(*tasks, **traits), "digest")


def test_needs_become_edges_between_positions() -> None:
    plan = plan_of(task("a"), task("b", "a"), task("c", "a", "b"))
    assert sorted(zip(plan.sources, plan.targets, strict=True)) == [(0, 1), (0, 2), (1, 2)]
    assert plan.dag().ready() == [0]


def test_needs_may_come_after_who_needs_them() -> None:
    assert plan_of(task("late", "early"), task("early")).dag().ready() == [1]


def test_equal_settings_are_one_object() -> None:
    plan = plan_of(*(task(f"t{number}", config={"command": "true"}) for number in range(100)))
    assert len({id(spec) for spec in plan.specs}) == 1
    assert len({id(traits) for traits in plan.traits}) == 1


def test_a_spec_holds_what_a_worker_needs_and_nothing_else() -> None:
    plan = plan_of(task("t", config={"command": "true"}, env={"A": "b"}, workdir="/srv", timeout=3.0, retry=Retry(5)))
    spec = msgspec.json.decode(plan.specs[0], type=TaskSpec)
    assert (spec.type, bytes(spec.config)) == ("noop", b'{"command":"true"}')
    assert (spec.env, spec.workdir, spec.timeout) == ({"A": "b"}, "/srv", 3.0)
    assert b"5" not in plan.specs[0]


def test_a_body_compiles_to_its_digest() -> None:
    body = canonical(flow(task("a"), priority=Priority.HIGH))
    plan = compile_body(body)
    assert (len(plan.digest), plan.priority, len(plan)) == (64, Priority.HIGH, 1)
    assert compile_body(body).digest == plan.digest


def test_braces_in_code_may_name_what_is_no_task() -> None:
    """Which fields are templates is for their types to know: Python's f-strings look the same."""
    plan = compile_plan(Workflow(name="w", tasks=(task("a", config={"source": 'f"{{ tasks.ghost.y }}"'}),)), "digest")
    assert plan.uses == {}


def test_uses_are_the_tasks_whose_outputs_are_read() -> None:
    plan = plan_of(task("count"), task("plain"), task("report", "count", config={"text": "{{ tasks.count.rows }}"}))
    assert plan.uses == {2: {"count"}}
    assert plan.positions == {"count": 0}


def test_uses_are_found_in_the_environment_and_in_nested_settings() -> None:
    deep = {"list": [{"text": "{% if tasks.one.x %}y{% endif %}"}]}
    plan = plan_of(task("one"), task("two"), task("user", "one", "two", config=deep, env={"B": "{{ tasks.two.y }}"}))
    assert plan.uses == {2: {"one", "two"}}


@pytest.mark.parametrize(
    ("tasks", "sentence"),
    [
        ((task("a", "ghost"),), "task 'a' needs 'ghost', which is not in the workflow"),
        ((task("a"), task("b"), task("a")), "workflow 'flow' has two tasks of one name: 'a'"),
        ((task("a", "c"), task("b", "a"), task("c", "b")), "the tasks need each other in a circle: "),
        ((task("a", "a"),), "task 'a' needs itself"),
    ],
)
def test_what_is_wrong_is_said_by_name(tasks: tuple[Task, ...], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        plan_of(*tasks)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"name": "x"}',
        b'{"name": "x", "tasks": [{"name": "t"}]}',
        b'{"name": "x", "tasks": [], "unknown": 1}',
        b'{"name": "\xff", "tasks": []}',
        b'{"name": "\\ud800", "tasks": []}',
        b'{"name": "x", "tasks": [{"name": "t", "type": "noop", "config": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
    ],
)
def test_what_is_no_workflow_is_the_callers_mistake(body: bytes) -> None:
    with pytest.raises(UsageError):
        compile_body(body)


@pytest.mark.parametrize(
    "trait",
    [
        '"delay": 1e308',
        '"delay": -1.0',
        '"retry": {"limit": 9, "delay": 1e308, "delay_max": 1e308}',
        '"retry": {"limit": 99, "delay": 1.0, "backoff": 1e300}',
        '"retry": {"limit": -1}',
        '"timeout": 1e308',
        '"timeout": 0.0',
    ],
)
def test_times_that_no_clock_has_are_refused(trait: str) -> None:
    body = f'{{"name": "x", "tasks": [{{"name": "t", "type": "noop", {trait}}}]}}'.encode()
    with pytest.raises(UsageError):
        compile_body(body)


def test_params_are_defaults_overlaid_with_what_is_given() -> None:
    plan = plan_of(params={"a": 1, "b": 2})
    assert plan.merged_params({"b": 3}) == {"a": 1, "b": 3}


def test_a_param_that_the_workflow_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match=r"workflow 'flow' has no parameter 'c' \(it has: a, b\)"):
        plan_of(params={"a": 1, "b": 2}).merged_params({"c": 3})


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20))
def test_any_needs_compile_or_are_refused(edges: list[tuple[int, int]]) -> None:
    """Whatever a person writes, the only error is one that says what is wrong with it."""
    needs: dict[int, list[str]] = {}
    for source, target in edges:
        needs.setdefault(target, []).append(f"t{source}")
    tasks = [task(f"t{number}", *needs.get(number, ())) for number in range(10)]
    try:
        plan = plan_of(*tasks)
    except UsageError:
        return
    order = plan.dag().order()
    assert all(order.index(source) < order.index(target) for source, target in edges)
