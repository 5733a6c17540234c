"""YAML workflows: what the layout means, and a sentence with its place for everything that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dsfast.errors import NotFound, Problem, UsageError
from dsfast.formats.dump import dump_yaml
from dsfast.formats.findings import PROBLEMS_MAX
from dsfast.formats.yaml_workflow import load_file, load_workflow, parse_body
from dsfast.model import OnDisconnect, OnFailure, Priority, Retry, Task, Workflow, canonical
from dsfast.tasks.shell import ShellConfig, ShellTask
from dsfast.tasks.templates import fill


def head(tasks: str, params: str = "") -> str:
    """A workflow whose tasks begin in line 4."""
    return f"name: w\nparams: {{{params}}}\ntasks:\n{tasks}"


def problems(text: str | bytes) -> list[Problem]:
    with pytest.raises(UsageError) as caught:
        load_workflow(text, "w.yaml")
    return list(caught.value.problems)


def only(text: str | bytes) -> Problem:
    found = problems(text)
    assert len(found) == 1, found
    return found[0]


def outcome(text: str | bytes) -> tuple[Workflow | None, tuple[Problem, ...]]:
    try:
        return load_workflow(text, "any.yaml"), ()
    except UsageError as error:
        return None, error.problems


def config(task: Task) -> dict[str, object]:
    return msgspec.json.decode(task.config, type=dict[str, object])


# -- what the layout means ------------------------------------------------------------------------------


def test_every_key_becomes_its_attribute() -> None:
    workflow = load_workflow(
        """
name: nightly
description: everything
params: {day: 2024-01-01, rows: 5, full: true, none: ~, list: [1, a]}
priority: high
on_failure: stop
tasks:
  extract:
    script: echo {{ params.day }}
    shell: bash
  load:
    type: sleep
    seconds: 2
    needs: [extract]
    retries: {limit: 3, delay: 1m, backoff: 2, delay_max: 1h}
    timeout: 1h 30m
    delay: 500ms
    priority: LOWEST
    worker_group: big
    env: {A: x}
    working_dir: /srv
    enabled: false
"""
    )
    assert workflow == Workflow(
        name="nightly",
        description="everything",
        params={"day": "2024-01-01", "rows": 5, "full": True, "none": None, "list": [1, "a"]},
        priority=Priority.HIGH,
        on_failure=OnFailure.STOP,
        tasks=(
            Task(
                name="extract",
                type="shell",
                config=msgspec.Raw(b'{"script":"echo {{ params.day }}","shell":"bash"}'),
            ),
            Task(
                name="load",
                type="sleep",
                config=msgspec.Raw(b'{"seconds":2}'),
                needs=("extract",),
                retry=Retry(3, 60.0, 2.0, 3600.0),
                timeout=5400.0,
                delay=0.5,
                priority=Priority.LOWEST,
                group="big",
                env={"A": "x"},
                workdir="/srv",
                enabled=False,
            ),
        ),
    )


def test_tasks_may_be_a_list_and_needs_one_name() -> None:
    workflow = load_workflow("name: w\ntasks:\n- {name: a, script: x}\n- {name: b, script: y, needs: a, retries: 2}\n")
    assert [task.name for task in workflow.tasks] == ["a", "b"]
    assert workflow.tasks[1].needs == ("a",)
    assert workflow.tasks[1].retry == Retry(limit=2)


def test_defaults_apply_to_all_tasks_and_give_way_to_their_own_keys() -> None:
    workflow = load_workflow(
        """
name: w
defaults: {retries: 2, env: {A: 1, B: 1}, type: noop, worker_group: big}
tasks:
  a: {env: {B: 2}}
  b: {type: sleep, seconds: 1, retries: 0}
"""
    )
    first, second = workflow.tasks
    assert (first.type, first.retry.limit, first.env, first.group) == ("noop", 2, {"A": "1", "B": "2"}, "big")
    assert (second.type, second.retry.limit, second.env) == ("sleep", 0, {"A": "1", "B": "1"})


def test_environment_values_stay_as_they_are_written() -> None:
    env = load_workflow(head("  a: {script: x, env: {A: 010, B: 1.10, C: yes, D: 1:30, E: , F: ~, G: '', H: 1e3}}"))
    assert env.tasks[0].env == {
        "A": "010", "B": "1.10", "C": "yes", "D": "1:30", "E": "", "F": "~", "G": "", "H": "1e3",
    }  # fmt: skip


def test_scalars_are_those_of_yaml_1_2() -> None:
    workflow = load_workflow(
        head("  a: {script: x}", "a: yes, b: 1:30, c: 0o7, d: 010, e: 1_000, f: True, g: .5, h: -1, i: '1', j: 1e3")
    )
    assert workflow.params == {
        "a": "yes", "b": "1:30", "c": "0o7", "d": 10, "e": "1_000", "f": True, "g": 0.5, "h": -1, "i": "1", "j": 1000.0,
    }  # fmt: skip


def test_keys_are_text_whatever_they_look_like() -> None:
    workflow = load_workflow("name: w\ntasks:\n  1: {script: x}\n  no: {script: x, needs: [1]}\n")
    assert [task.name for task in workflow.tasks] == ["1", "no"]


def test_anchors_and_merges() -> None:
    workflow = load_workflow(
        "name: w\ntasks:\n  a: &a\n    script: x\n    retries: 2\n  b:\n    <<: *a\n    script: y\n"
        "  c:\n    <<: [*a, {timeout: 5}]\n    retries: 1\n"
    )
    assert [(config(task)["script"], task.retry.limit, task.timeout) for task in workflow.tasks] == [
        ("x", 2, None),
        ("y", 2, None),
        ("x", 1, 5.0),
    ]


def test_common_keys_without_a_value_count_as_absent() -> None:
    task = load_workflow(head("  a:\n    script: x\n    needs:\n    env:\n    retries:\n    timeout:\n")).tasks[0]
    assert task == Task(name="a", type="shell", config=msgspec.Raw(b'{"script":"x"}'))


def test_names_may_be_in_any_script() -> None:
    workflow = load_workflow(head('  "加载 数据": {script: x}\n  b: {script: y, needs: ["加载 数据"]}\n'))
    assert workflow.tasks[1].needs == ("加载 数据",)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("1.5", 1.5),
        ("1h 30m", 5400.0),
        ("1h30m", 5400.0),
        ("500ms", 0.5),
        ("2d", 172800.0),
        ("1w", 604800.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert load_workflow(head(f"  a: {{script: x, timeout: {text}}}")).tasks[0].timeout == seconds
    assert load_workflow(head(f"  a: {{script: x, timeout: '{text}'}}")).tasks[0].timeout == seconds


# -- what is wrong, and where ---------------------------------------------------------------------------

TASK_MISTAKES = [
    ("{type: shel, script: x}", "type", "there is no task type 'shel'", "did you mean 'shell'?"),
    ("{script: x, retrys: 2}", "retrys", "a shell task has no setting `retrys`", "did you mean 'retries'?"),
    ("{type: sleep, secnds: 2, seconds: 1}", "secnds", "sleep task has no setting `secnds`", "did you mean 'seconds'?"),
    ("{type: noop, colour: red}", "colour", "a noop task has no setting `colour`", "it has no settings"),
    ("{type: sleep}", "", "a sleep task needs `seconds`", None),
    ("{type: sleep, seconds: -1}", "seconds", "must be 0 or more", None),
    ("{type: sleep, seconds: soon}", "seconds", "must be a number, not text ('soon')", None),
    ("{type: sleep, seconds: '{{ 1 }}'}", "seconds", "must be a number", "`seconds` is not filled in from templates"),
    ("{script: [a]}", "script", "must be text, not a list", None),
    ("{script: x, retries: -1}", "retries.limit", "must be 0 to 10000, not -1", None),
    ("{script: x, retries: often}", "retries", "must be how often to retry", None),
    ("{script: x, retries: {delay: 1s}}", "retries", "`limit` is missing", None),
    ("{script: x, retries: {limit: 1, dealy: 1s}}", "retries.dealy", "have no `dealy`", "did you mean 'delay'?"),
    ("{script: x, retries: {limit: 1, delay: -2}}", "retries.delay", "must be 0 or more", None),
    ("{script: x, retries: {limit: 1, backoff: 0.5}}", "retries.backoff", "must be 1 to 100, not 0.5", None),
    ("{script: x, retries: {limit: 1.5}}", "retries.limit", "must be a whole number, not 1.5", None),
    ("{script: x, timeout: soon}", "timeout", "must be a duration", None),
    ("{script: x, timeout: 0}", "timeout", "must be more than 0", None),
    ("{script: x, timeout: 99999999999}", "timeout", "at most ten years", None),
    ("{script: x, timeout: [1]}", "timeout", "must be a duration such as 90 (seconds)", None),
    ("{script: x, delay: -5}", "delay", "must be 0 or more", None),
    ("{script: x, priority: hihg}", "priority", "must be one of highest, high", "did you mean 'high'?"),
    ("{script: x, priority: 1}", "priority", "must be one of highest, high, medium, low, lowest, not 1", None),
    ("{script: x, worker_group: 5}", "worker_group", "must be text, not the number 5", "put it in quotes"),
    ("{script: x, worker_group: 'a/b'}", "worker_group", "holds the character '/'", None),
    ("{script: x, env: [a]}", "env", "must be a mapping of names to values, not a list", None),
    ("{script: x, env: {A: [b]}}", "env.A", "must be text, not a list", None),
    ("{script: x, env: {'A=B': c}}", "env.A=B", "cannot be the name of an environment variable", None),
    ('{script: x, env: {A: "\\0"}}', "env.A", "holds a NUL character", None),
    ("{script: x, working_dir: '{{ params.dir }}'}", "working_dir", "is not filled in from", "change the dir"),
    ("{script: x, enabled: yes}", "enabled", "must be true or false, not 'yes'", None),
    ("{script: x, needs: {b: c}}", "needs", "must be the name of a task or a list of names, not a mapping", None),
    ("{script: x, needs: 5}", "needs", "must be the name of a task or a list of names, not the number 5", None),
    ("{script: x, needs: [[b]]}", "needs[0]", "must be text, not a list", None),
    ("{script: x, needs: a}", "needs[0]", "the task needs itself", None),
    ("{script: x, needs: [oter]}", "needs[0]", "there is no task 'oter'", "did you mean 'other'?"),
    ("{script: x, needs: [other, other]}", "needs[1]", "'other' is needed twice", None),
    ("{scrpt: x}", "", "has neither a `script` nor a `type`", "did you mean `script` by `scrpt`?"),
    ("{}", "", "has neither a `script` nor a `type`", "there are the types noop, python, shell, sleep"),
    ("echo hi", "", "must be a mapping, not text", "write `script: …` below the name"),
    ("", "", "must be a mapping, not nothing", "at least a script"),
    ("{script: 'echo {{ params.dya }}'}", "script", "there is no param 'dya'", "did you mean 'day'?"),
    ("{script: 'echo {{ parms.day }}'}", "script", "a template has no 'parms'", "did you mean 'params'?"),
    ("{script: 'echo {{ params[params.day] }}'}", "script", "which of the params is read must be clear", None),
    ("{script: 'echo {{ tasks.oter.rows }}'}", "script", "there is no task 'oter'", "did you mean 'other'?"),
    ("{script: 'echo {{ tasks.a.rows }}'}", "script", "a task cannot read its own outputs", None),
    ("{script: 'echo {{ tasks.other.rows }}'}", "script", "'other' need not have ended", "add 'other' to `needs`"),
    ("{script: x, env: {A: '{{ params.x }}'}}", "env.A", "there is no param 'x'", "declare it under `params`"),
    ("{script: \"{{ .Names }}\"}", "script", "is not a template that can be filled in", "{% raw %}"),
    ("{script: '{{ tasks.load-data.n }}'}", "script", "there is no task 'load'", 'write tasks["load-data"]'),
    ("{script: x, script: y}", "", "the key `script` stands twice in one mapping, here and in line 4", None),
    ("{script: x, <<: 5}", "", "`<<` merges a mapping", None),
]  # fmt: skip


@pytest.mark.parametrize(("task", "field", "message", "hint"), TASK_MISTAKES)
def test_a_mistake_in_a_task_is_named_with_its_place(task: str, field: str, message: str, hint: str | None) -> None:
    text = head(f"  a: {task}\n  other: {{script: x}}\n  load-data: {{script: x}}\n", params="day: 1, other: 2")
    problem = only(text)
    assert problem.line == 4
    assert message in problem.message
    if problem.field is not None:
        assert problem.field == f"tasks.a.{field}".rstrip(".")
    assert (hint or "") in (problem.hint or "")


TOP_MISTAKES: list[tuple[str, int, str]] = [
    ("tasks: {a: {script: x}}", 1, "name: `name` is missing"),
    ("name: 5\ntasks: {a: {script: x}}", 1, "name: must be text, not the number 5 (put it in quotes)"),
    ("name: ''\ntasks: {a: {script: x}}", 1, "name: the name is empty"),
    ("name: ' a'\ntasks: {a: {script: x}}", 1, "the name ' a' begins or ends with a space"),
    ("name: ..\ntasks: {a: {script: x}}", 1, "'..' means a directory"),
    (f"name: {'y' * 201}\ntasks: {{a: {{script: x}}}}", 1, "is 201 characters long; at most 200"),
    ("name: w", 1, "tasks: has no tasks (add at least one task)"),
    ("name: w\ntasks: {}", 2, "tasks: has no tasks"),
    ("name: w\ntasks: all", 2, "tasks: must be a mapping of names to tasks, or a list of tasks, not text"),
    ("name: w\ntaks: 1\ntasks: {a: {script: x}}", 2, "taks: a workflow has no `taks` (did you mean 'tasks'?)"),
    ("name: w\nretries: 1\ntasks: {a: {script: x}}", 2, "what all tasks share goes under `defaults`"),
    ("name: w\npriority: top\ntasks: {a: {script: x}}", 2, "priority: must be one of highest, high, medium"),
    ("name: w\non_failure: halt\ntasks: {a: {script: x}}", 2, "on_failure: must be one of continue, stop, not 'halt'"),
    ("name: w\nparams: [a]\ntasks: {a: {script: x}}", 2, "params: must be a mapping, not a list"),
    ("name: w\nparams: {'a/b': 1}\ntasks: {a: {script: x}}", 2, "'a/b' holds the character '/'"),
    ("name: w\nparams: {a: .nan}\ntasks: {a: {script: x}}", 2, ".nan is not a finite number"),
    ("name: w\nparams:\n  a: 99999999999999999999\ntasks: {a: {script: x}}", 3, "does not fit into 64 bits"),
    (f"name: w\nparams: {{a: {'9' * 5000}}}\ntasks: {{a: {{script: x}}}}", 2, "does not fit into 64 bits"),
    ("name: w\ndefaults: {needs: a}\ntasks: {a: {script: x}}", 2, "defaults.needs: each task has its own `needs`"),
    ("name: w\ndefaults:\n  shell: bash\ntasks: {a: {script: x}}", 3, "`shell` cannot be a default"),
    ("name: w\ndefaults: {timeout: soon}\ntasks: {a: {script: x}}", 2, "defaults.timeout: must be a duration"),
    ("name: w\ntasks:\n  a: {script: x}\n  a: {script: y}", 4,
     "the key `a` stands twice in one mapping, here and in line 3"),
    ("name: w\ntasks:\n- {name: a, script: x}\n- {name: a, script: y}", 4,
     "tasks[1].name: another task is named 'a', too"),
    ("name: w\ntasks:\n- {script: x}", 3, "tasks[0]: must be a task: a mapping with a `name`"),
    ("name: w\ntasks:\n  a/b: {script: x}", 3, "the name 'a/b' holds the character '/'"),
    ("name: w\ntasks:\n  a: {script: x, needs: c}\n  b: {script: x, needs: a}\n  c: {script: x, needs: b}", 3,
     "tasks.a.needs: the tasks wait for each other in a circle: a -> b -> c -> a"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "sentence"), TOP_MISTAKES)
def test_a_mistake_in_the_workflow_is_named_with_its_place(text: str, line: int, sentence: str) -> None:
    problem = only(text)
    assert problem.line == line
    assert sentence in str(problem)


def test_all_mistakes_are_told_at_once_in_the_order_of_the_text() -> None:
    found = problems(
        "name: w\npriority: top\ntasks:\n  a: {type: shel}\n  b:\n    script: x\n    retrys: 2\n    needs: [c, b]\n"
    )
    assert [(problem.line, problem.field) for problem in found] == [
        (2, "priority"),
        (4, "tasks.a.type"),
        (7, "tasks.b.retrys"),
        (8, "tasks.b.needs[0]"),
        (8, "tasks.b.needs[1]"),
    ]
    assert str(found[0]).startswith("w.yaml:2: priority: must be one of")


def test_a_mistake_made_in_every_task_is_listed_up_to_a_limit_and_counted() -> None:
    tasks = "".join(f"  t{number}: {{script: x, needs: nothing{number}}}\n" for number in range(PROBLEMS_MAX + 50))
    found = problems(head(tasks))
    assert len(found) == PROBLEMS_MAX + 1
    assert str(found[-1]) == "and 50 more problems"


def test_hints_end_before_they_cost_more_than_the_rest() -> None:
    tasks = "".join(f"  t{number:05}: {{script: x, needs: x{number:05}}}\n" for number in range(5000))
    found = problems(head(tasks))
    hinted = [problem.hint for problem in found if problem.hint]
    assert hinted == [f"did you mean 't{number:05}'?" for number in range(len(hinted))]
    assert 20 <= len(hinted) < PROBLEMS_MAX


def test_transitive_needs_allow_reading_outputs() -> None:
    load_workflow(
        head(
            "  a: {script: x}\n  b: {script: x, needs: a}\n  c: {script: 'echo {{ tasks.a.rows }}', needs: b}\n"
            "  d: {script: 'echo {{ tasks[\"a\"].rows }}', needs: c}\n"
        )
    )


FILLABLE = [
    "echo {{ params.day }} {{ run.id }} {{ task.name }} {{ task.attempt }}",
    'echo {{ tasks["load-data"].rows | raw }} {{ tasks.other.rows + 1 }}',
    "{% for n in range(params.day) %}{{ loop.index }}{% endfor %}{{# params.nothing #}}${#x[@]}",
    "{% raw %}{{ .Names }} {{ params.nothing }}{% endraw %}",
    "{% set x = params.day %}{% if x is number %}{{ x | default(1) }}{% endif %}",
]
UNFILLABLE = [
    "{{ .Names }}",
    "{{ nothing.x }}",
    "{{ params.nothing }}",
    "{{ tasks.nothing.x }}",
    "{{ run.id",
    "{% if %}",
]


def with_script(script: str) -> str:
    parents = "  other: {script: x}\n  load-data: {script: x}\n"
    return head(f"{parents}  a: {{needs: [other, load-data], script: {json.dumps(script)}}}\n", params="day: 3")


def filled(script: str) -> str:
    context = {
        "params": {"day": 3},
        "tasks": {"other": {"rows": 1}, "load-data": {"rows": 2}},
        "run": {"id": "r"},
        "task": {"name": "a", "attempt": 1},
    }
    return fill(ShellTask(), ShellConfig(script=script), {}, context)[0].script


@pytest.mark.parametrize("script", FILLABLE)
def test_templates_that_pass_can_be_filled_in(script: str) -> None:
    load_workflow(with_script(script))
    assert filled(script)


@pytest.mark.parametrize("script", UNFILLABLE)
def test_templates_that_cannot_be_filled_in_do_not_pass(script: str) -> None:
    with pytest.raises(UsageError):
        filled(script)
    assert problems(with_script(script))[0].field == "tasks.a.script"


# -- text that is not a workflow at all -----------------------------------------------------------------

BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefghijkl", "bcdefghijklm", strict=True)
)
DEEP = "".join(f"a{n}: &a{n} {'[' * 30}{f'*a{n - 1}' if n else 1}{']' * 30}\n" for n in range(200))
NOT_WORKFLOWS: list[tuple[str | bytes, str]] = [
    ("", "w.yaml:1: the file is empty"),
    ("# nothing but a comment\n", "w.yaml:1: the file is empty"),
    ("- a\n- b\n", "the file holds a list, not a mapping (a workflow has at least `name` and `tasks`)"),
    ("hello", "the file holds text, not a mapping"),
    ("name: w\ntasks:\n  a: {script: [x\n  b: 1\n", "w.yaml:4: this is not YAML: did not find expected ',' or ']'"),
    ("name: w\ntasks:\n\ta: 1\n", "w.yaml:3: this is not YAML: found character that cannot start any token"),
    ("name: w\ntasks:\n\ta: 1\n", "YAML is indented with spaces, not with tabs"),
    ("name: a: b\n", "a value that holds `: ` needs quotes around it"),
    ("name: {{ params.x }}\n", "w.yaml:1: a key must be text, not a mapping or a list"),
    ("name: {{ params.x }}\n", 'a value that begins with {{ needs quotes around it: "{{ params.day }}"'),
    ("name: 'abc\n", "while scanning a quoted scalar that begins in line 1"),
    ("name: w\n---\nname: v\n", "w.yaml:2: a second document starts here"),
    ("name: *nobody\n", "nothing was marked with `&nobody`"),
    ("a: &a [*a]\n", "`*a` stands inside of what it stands for"),
    ("&a a: 1\n*a : 2\n", "a key cannot be an alias"),
    (DEEP, "w.yaml:3: the values are nested more than 64 deep here"),
    (BOMB, "the aliases stand for more than 64 MiB of text"),
    ("[" * 100_000, "w.yaml:1: the values are nested more than 64 deep here"),
    ("- " * 100_000, "the values are nested more than 64 deep here"),
    ("name: !!python/object:os.system w\n", "the tag tag:yaml.org,2002:python/object:os.system is not supported"),
    ("name: !!map {}\ntasks: !custom {}\n", "the tag !custom is not supported"),
    (bytes(range(256)), "the file is not UTF-8 text: byte 0x80 at offset 128 (save it as UTF-8)"),
    ("name: café\n".encode("latin-1"), "w.yaml:1: the file is not UTF-8 text: byte 0xe9 at offset 9"),
    ("name: w\n".encode("utf-16"), "the file is not UTF-8 text: byte 0xff at offset 0"),
    (b"\x7fELF\x02\x01\x01\x00", "the file holds the character U+007F, which is not text"),
    ("name: w\nx: \x00\n", "w.yaml:2: the file holds the character U+0000, which is not text"),
    ("name: \ud800\n", "the file holds the character U+D800, which is not text"),
    ('name: "\\ud800"\n', "this is not YAML"),
]


@pytest.mark.parametrize(("text", "sentence"), NOT_WORKFLOWS)
def test_what_is_not_a_workflow_is_refused_with_a_sentence(text: str | bytes, sentence: str) -> None:
    assert sentence in str(only(text))


def test_a_parameter_of_ten_megabytes_is_refused_by_name() -> None:
    problem = only(f"name: w\nparams:\n  small: 1\n  data: {'x' * 10_000_000}\ntasks: {{a: {{script: x}}}}\n")
    assert (problem.line, problem.field) == (4, "params.data")
    assert "take 9.5 MB as JSON, this one 9.5 MB of it; at most 1.0 MB are allowed" in problem.message
    assert problem.hint == "put the data into a file or a table and pass its name"


def test_a_script_of_ten_megabytes_is_refused() -> None:
    problem = only(f"name: w\ntasks:\n  a:\n    script: {'x' * 10_000_000}\n")
    assert problem.field == "tasks.a"
    assert "the settings take 10000013 bytes" in problem.message


def test_a_byte_order_mark_is_not_part_of_the_text() -> None:
    assert load_workflow("\ufeffname: w\ntasks: {a: {script: x}}").name == "w"
    assert load_workflow("\ufeffname: w\ntasks: {a: {script: x}}".encode()).name == "w"


# -- files ----------------------------------------------------------------------------------------------


def test_files_in_yaml_and_in_canonical_json(tmp_path: Path) -> None:
    yaml_file, json_file = tmp_path / "w.yaml", tmp_path / "w.json"
    yaml_file.write_text("name: w\ntasks: {a: {script: x}}")
    workflow = load_file(yaml_file)
    json_file.write_bytes(canonical(workflow))
    assert load_file(str(json_file)) == workflow


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"missing\.yaml: there is no such file"):
        load_file(tmp_path / "missing.yaml")
    with pytest.raises(UsageError, match="the file cannot be read: Is a directory"):
        load_file(tmp_path)
    with pytest.raises(UsageError, match="the file cannot be read: embedded null byte"):
        load_file("a\0b")


# -- anything -------------------------------------------------------------------------------------------

FRAGMENTS = st.sampled_from(
    [
        "name: w\n", "tasks:\n", "  a:\n", "  b: ", "    script: x\n", "    needs: [a]\n", "needs: b\n", "- ",
        "? ", "&a ", "*a", "<<: *a\n", "{", "}", "[", "]", ": ", ", ", "\n", "  ", "\t", "'", '"', "|\n", ">-\n", "#",
        "---\n", "...\n", "!!str ", "!x ", "%YAML 1.1\n", "{{ params.x }}", "{% if", "type: sleep\n", "seconds: -1\n",
        "~", "1e9", "params: {x: 1}\n", "defaults:\n", "retries: {limit: 1}\n", "env: {A: 1}\n", "\0", "\x85", "\u2028",
        "é", "\ufeff", "timeout: 1h\n", "enabled: no\n", "0" * 30, ".inf", "\r",
    ]
)  # fmt: skip


@given(st.one_of(st.lists(FRAGMENTS, max_size=30).map("".join), st.text(max_size=80), st.binary(max_size=80)))
@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@example("? [a]\n: b")
@example("name: w\ntasks: {a: &x {script: x}, b: *x}")
def test_any_text_is_a_workflow_or_a_usage_error(text: str | bytes) -> None:
    workflow, found = outcome(text)
    assert (workflow is None) == bool(found)
    assert all(problem.message and (problem.line is None or problem.line >= 1) for problem in found)
    if workflow is not None:
        assert parse_body(canonical(workflow)) == workflow


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["name", "type", "script", "needs", "retries", "timeout", "env", "enabled", "seconds", "delay", "x"]
)


@given(st.dictionaries(st.sampled_from(["name", "tasks", "params", "defaults", "priority", "y"]), VALUES), st.data())
@settings(deadline=None, max_examples=200)
def test_any_values_are_a_workflow_or_a_usage_error(top: dict[str, object], data: st.DataObject) -> None:
    tasks = st.dictionaries(
        st.text(max_size=4), st.one_of(VALUES, st.dictionaries(KEYS, VALUES, max_size=4)), max_size=3
    )
    text = json.dumps({"name": "w", **top, "tasks": data.draw(tasks)}, ensure_ascii=False)
    workflow, found = outcome(text)
    assert (workflow is None) == bool(found)


# --- on_disconnect --------------------------------------------------------------------------------------------------


def test_what_becomes_of_a_task_whose_worker_is_lost_is_read_and_written() -> None:
    text = "name: w\ntasks:\n  a: {type: noop, on_disconnect: {replace: false, stop_after: 2m}}\n"
    workflow = load_workflow(text)
    assert workflow.tasks[0].on_disconnect == OnDisconnect(replace=False, stop_after=120.0)
    assert load_workflow(dump_yaml(workflow)) == workflow


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{replce: false}", "it has no `replce`"),
        ("{replace: maybe}", "must be true or false"),
        ("{stop_after: soon}", "soon"),
        ("never", "must be a mapping of replace, stop_after, replace_after"),
        ("{replace: false, replace_after: 5s}", "has no meaning where `replace` is false"),
        ("{replace_after: -5}", "must be 0 or more"),
    ],
)
def test_mistakes_in_it_are_named_with_their_line(written: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_workflow(f"name: w\ntasks:\n  a:\n    type: noop\n    on_disconnect: {written}\n", "w.yaml")
    assert said in str(caught.value)
    assert "w.yaml:5" in str(caught.value)
