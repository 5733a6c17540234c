"""Templates filled in: values stay data in a shell, keep their type in mappings, and mistakes have sentences."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsfast.errors import UsageError
from dsfast.tasks.base import TaskType
from dsfast.tasks.python import PythonConfig, PythonTask
from dsfast.tasks.shell import ShellConfig, ShellTask
from dsfast.tasks.templates import FILLED_BYTES_MAX, fill, is_plain, shell_quote

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
NASTY = st.text(st.sampled_from("$`\\\"'(){}!&|;<>*?[]~#=% \n\tax"), max_size=30)


def script(text: str, **params: Any) -> str:
    return fill(ShellTask(), ShellConfig(script=text), {}, {"params": params, "tasks": {"t": {"rows": 7}}})[0].script


def refused(text: str, **params: Any) -> str:
    with pytest.raises(UsageError) as caught:
        script(text, **params)
    return str(caught.value)


def sh(text: str, directory: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["/bin/sh", "-c", text], capture_output=True, cwd=directory, env={}, check=False)


# -- shells -----------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(value=TEXTS | NASTY)
def test_a_value_is_exactly_one_word(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    said = sh(script("printf '<%s>' {{ params.value }}", value=value), tmp_path_factory.getbasetemp())
    assert (said.stdout, said.stderr) == (f"<{value}>".encode(), b"")


@settings(max_examples=50)
@given(value=NASTY)
def test_a_value_inside_double_quotes_runs_nothing(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    text = script('printf "<%s>" "$(: x) {{ params.value }}"', value=f"$(nonesuch)`nonesuch`{value}")
    said = sh(text, tmp_path_factory.getbasetemp())
    assert (said.returncode, said.stderr) == (0, b"")


@pytest.mark.parametrize(
    "text",
    [
        "echo {{ params.x }}",
        "echo {{ params.x | upper | lower }}",
        "echo {{ params.x | tojson }}",
        "echo {{ [params.x] | join(' ') }}",
        "echo {{ [params.x] }}",
        "echo {{ 'a' ~ params.x }}",
        "{% for each in [params.x] %}echo {{ each }}{% endfor %}",
        "{% set y %}{{ params.x }}{% endset %}echo {{ y }}",
        "{% macro m(y) %}{{ y }}{% endmacro %}echo {{ m(params.x) }}",
        "{% autoescape false %}echo {{ params.x }}{% endautoescape %}",
        "cat <<END\n{{ params.x }}\nEND",
    ],
)
def test_no_way_of_writing_it_lets_a_value_run(tmp_path: Path, text: str) -> None:
    said = sh(script(text, x="$(nonesuch) `nonesuch` ; nonesuch & > file"), tmp_path)
    assert (said.returncode, said.stderr, list(tmp_path.iterdir())) == (0, b"", [])


def test_raw_is_the_way_to_mean_it() -> None:
    assert script("{{ params.x | raw }} {{ params.x | safe }}", x="a; b") == "a; b a; b"


def test_values_that_are_not_text_are_json() -> None:
    assert script("{{ params.n }} {{ params.b }} [{{ params.z }}] {{ params.f }}", n=3, b=True, z=None, f=0.5) == (
        "3 true [''] 0.5"
    )
    assert shell_quote('{"a": 1}') == script("{{ params.d }}", d={"a": 1})


def test_what_shells_write_with_braces_is_not_taken_for_templates() -> None:
    text = "${#array[@]} ${x%%.*} {a,b} {# no comment"
    assert script(text) == text
    assert script(text + "{{# a comment #}} {{ params.x }}\n", x=1) == f"{text} 1\n"
    assert script("{% raw %}docker --format '{{ .ID }}'{% endraw %}") == "docker --format '{{ .ID }}'"


def test_words_of_a_command_are_not_quoted() -> None:
    config = ShellConfig(command=("echo", "{{ params.x }}", "{{ tasks.t.rows }}"))
    filled, _ = fill(ShellTask(), config, {}, {"params": {"x": "a b"}, "tasks": {"t": {"rows": 7}}})
    assert filled.command == ("echo", "a b", "7")


# -- the rest ---------------------------------------------------------------------------------------------


def test_a_value_that_is_one_expression_alone_keeps_its_type_in_arguments() -> None:
    args = {"n": "{{ params.n }}", "text": "n={{ params.n }}", "deep": [{"d": " {{ params.d }} "}, "{{params.n}}"]}
    filled, _ = fill(PythonTask(), PythonConfig(call="a:b", args=args), {}, {"params": {"n": 3, "d": {"k": [1]}}})
    assert filled.args == {"n": 3, "text": "n=3", "deep": [{"d": {"k": [1]}}, 3]}


def test_the_environment_is_filled_in_and_not_quoted() -> None:
    _, env = fill(ShellTask(), ShellConfig(script=":"), {"A": "<{{ params.x }}>", "B": "b"}, {"params": {"x": "a b"}})
    assert env == {"A": "<a b>", "B": "b"}


def test_settings_without_templates_come_back_as_they_are() -> None:
    config = ShellConfig(script="echo hello")
    assert fill(ShellTask(), config, {}, {})[0] is config


@pytest.mark.parametrize(
    ("config", "env", "plain"),
    [
        (ShellConfig(script="echo hello"), {"A": "b"}, True),
        (ShellConfig(command=("echo", "}} {")), {}, True),
        (ShellConfig(script="{% if params.x %}true{% endif %}"), {}, False),
        (ShellConfig(command=("echo", "{{ params.x }}")), {}, False),
        (ShellConfig(script=":"), {"A": "{{ params.x }}"}, False),
    ],
)
def test_whether_there_is_anything_to_fill_in(config: ShellConfig, env: dict[str, str], plain: bool) -> None:
    assert is_plain(ShellTask(), config, env) is plain


def test_fields_that_are_not_templated_are_left_alone() -> None:
    config = PythonConfig(source="x = '{{ params.x }}'")
    assert fill(PythonTask(), config, {}, {"params": {"x": 1}})[0] is config


# -- mistakes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("\n{{ params.nope }}", "script: cannot be filled in: `params.nope` is undefined in its line 2"),
        ("{{ params.x.nope.deeper }}", "`params.x.nope` is undefined"),
        ("{{ tasks.other.rows }}", "`tasks.other` is undefined"),
        ("{{ params.x.__class__ }}", "`params.x.__class__` is undefined"),
        ("{{ tasks.t.__init__.__globals__ }}", "`tasks.t.__init__` is undefined"),
        ("awk '{{print $1}}'", "text that is not a template goes between {% raw %} and {% endraw %}"),
        ("{% if %}", "is not a template that can be filled in: syntax error"),
        ("{% include '/etc/passwd' %}", "template not found"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "ran out of fuel"),
        ("{{ 'x' * 20000000 }}", f"is more than {FILLED_BYTES_MAX} bytes long when filled in"),
    ],
)
def test_a_template_that_cannot_be_filled_in_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    assert sentence in refused(text, x="text")


def test_every_mistake_is_reported_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        fill(ShellTask(), ShellConfig(command=("{{ a }}", "{{ b }}")), {"C": "{{ c }}"}, {})
    assert [problem.field for problem in caught.value.problems] == ["command[0]", "command[1]", "env.C"]


def test_a_type_without_templates_is_left_alone() -> None:
    class Plain(ShellTask):
        templated: ClassVar[tuple[str, ...]] = ()

    kind: TaskType = Plain()
    assert fill(kind, ShellConfig(script="{{ x }}"), {}, {})[0].script == "{{ x }}"


def test_json_values_reach_the_template_as_they_are() -> None:
    inputs = msgspec.json.decode(b'{"params": {"day": "2026-01-31"}, "tasks": {"load data": {"rows": 5}}}')
    text = '{{ params.day }} {{ tasks["load data"].rows + 1 }}'
    assert fill(ShellTask(), ShellConfig(script=text), {}, inputs)[0].script == "2026-01-31 6"
