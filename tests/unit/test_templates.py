"""The scanner that tells which params and tasks a template reads."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsfast.model import Task
from dsfast.templates import Read, reads, references, template_names


@pytest.mark.parametrize(
    ("text", "params", "tasks"),
    [
        ("{{ params.day }}", {"day"}, set()),
        ("{{params.day|raw}} {{ tasks.count.rows }}", {"day"}, {"count"}),
        ('{{ tasks["load data"].rows }}', set(), {"load data"}),
        ("{{ tasks['a\\'b'].rows }}", set(), {"a'b"}),
        ("{% if params.full %}{{ tasks.a.n }}{% endif %}", {"full"}, {"a"}),
        ('{{ {"a": {"b": params.c}}}} {{ tasks.x.y }}', {"c"}, {"x"}),
        ("{{ params.load-data }}", {"load"}, set()),
        ('{{ params.a if tasks.b.c == "}}" else params.d }}', {"a", "d"}, {"b"}),
        ("{{ f(params=params.x) }}", {"x"}, set()),
    ],
)
def test_finds_the_names_a_template_reads(text: str, params: set[str], tasks: set[str]) -> None:
    assert template_names(text) == (frozenset(params), frozenset(tasks))


@pytest.mark.parametrize(
    "text",
    [
        "params.day and tasks.a.b outside of any braces",
        "${#words[@]} ${params.day} {params.day}",
        "{% raw %}{{ params.day }}{% endraw %}",
        "{{# {{ params.day }} #}}",
        '{{ "params.day" }}',
        "{{ row.params.day }} {{ row().tasks.x }}",
        "{{ parameters.day }}",
        "{{",
        '{{ "',
    ],
)
def test_text_that_only_looks_like_a_template_reads_nothing(text: str) -> None:
    assert template_names(text) == (frozenset(), frozenset())


def test_a_name_made_at_run_time_is_reported_without_a_name() -> None:
    assert list(reads("{{ tasks[params.which] }}")) == [Read("tasks", None), Read("params", "which")]


def test_a_task_reads_what_its_settings_and_environment_name() -> None:
    config = msgspec.json.encode({"args": {"rows": ['{{ tasks["a b"].rows }}']}})
    task = Task(name="t", type="python", config=msgspec.Raw(config), env={"DAY": "{{ params.day }}"})
    assert references(task) == (frozenset({"day"}), frozenset({"a b"}))


@given(st.text(alphabet="{}%[](). '\"\\paramstsk", max_size=60))
@settings(deadline=None)
def test_any_text_can_be_scanned(text: str) -> None:
    assert all(read.root in ("params", "tasks") for read in reads(text))


@pytest.mark.parametrize("unit", ["{{'\\", "{{ params['\\", "{{", "{% raw %}", "{{ params[", "{{ {"])
def test_hostile_text_is_scanned_in_one_pass(unit: str) -> None:
    text = unit * 50_000  # quadratic scanning would take hours here
    assert template_names(text + "}}") is not None
