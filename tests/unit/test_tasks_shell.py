"""Shell tasks: which script runs by what, and the values it hands on."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsfast.model import OUTPUTS_BYTES_MAX, AttemptState
from dsfast.tasks import outputs
from dsfast.tasks.base import StartFailed
from dsfast.tasks.shell import ShellConfig, ShellTask
from tests.attempts import log_text, make_job, read_fifo, run, start


def problems(**config: object) -> list[tuple[str, str]]:
    return list(ShellTask().check(msgspec.convert(config, ShellConfig)))


async def test_a_script_may_be_larger_than_an_argument_of_a_process_can_be(tmp_path: Path) -> None:
    job = make_job("shell", tmp_path, script="#" * 300_000 + "\necho done")
    assert (await run("shell", job)).state is AttemptState.SUCCEEDED
    assert log_text(job) == "done\n"


async def test_the_script_and_the_log_are_private(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    execution, outcome = start("shell", make_job("shell", tmp_path, script="echo > fifo; sleep 1000"))
    await read_fifo(tmp_path / "fifo")
    assert stat.S_IMODE((tmp_path / "1.script").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "1.log").stat().st_mode) == 0o600
    execution.kill(0, "")
    await outcome


async def test_nothing_of_a_longer_script_in_its_file_is_run(tmp_path: Path) -> None:
    (tmp_path / "1.script").write_text("echo this is longer\n" * 3)
    job = make_job("shell", tmp_path, script="echo short\n")
    await run("shell", job)
    assert log_text(job) == "short\n"


async def test_a_script_is_never_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "1.script").symlink_to(tmp_path / "target")
    with pytest.raises(StartFailed):
        await run("shell", make_job("shell", tmp_path, script=":"))
    assert (tmp_path / "target").read_text() == "precious"


@pytest.mark.parametrize(
    ("shell", "script", "said"),
    [
        ("sh", "echo $((1 + 1))", "2\n"),
        ("bash", "a=(x y); echo ${#a[@]}", "2\n"),
        ("/bin/bash -e", "echo a; false; echo b", "a\n"),
        ("python3 -u", "import sys; print(sys.stdout.write_through)", "True\n"),
        (["python3", "-c", "import sys; print(open(sys.argv[1]).read())"], "text", "text\n"),
    ],
)
async def test_a_script_is_run_by_the_shell_of_choice(
    tmp_path: Path, shell: str | list[str], script: str, said: str
) -> None:
    job = make_job("shell", tmp_path, script=script, shell=shell)
    await run("shell", job)
    assert log_text(job) == said


async def test_output_that_is_not_utf_8_is_kept_as_it_is_and_readable_in_values(tmp_path: Path) -> None:
    job = make_job("shell", tmp_path, script=r"""printf '\377\000\n${setValue(k=\377a)}\n'""")
    outcome = await run("shell", job)
    assert log_text(job) == "\udcff\x00\n${setValue(k=\udcffa)}\n"
    assert json.loads(outcome.outputs) == {"k": "\ufffda"}


async def test_standard_output_and_error_share_one_log_in_order(tmp_path: Path) -> None:
    job = make_job("shell", tmp_path, script="echo a; echo b >&2; echo c")
    await run("shell", job)
    assert log_text(job) == "a\nb\nc\n"


# -- values -----------------------------------------------------------------------------------------------


async def test_values_come_from_the_log_and_the_file_and_the_file_wins(tmp_path: Path) -> None:
    script = """
    echo 'rows: ${setValue(rows=12)} and #{setValue(day=2026-01-31)}'
    echo '${setValue(rows=13)}'
    echo '${setValue(text=two'; echo 'lines)}'
    echo day=tomorrow > "$DSFAST_OUTPUT"; printf 'equation=a=b\\nempty=' >> "$DSFAST_OUTPUT"
    """
    outcome = await run("shell", make_job("shell", tmp_path, script=script))
    assert json.loads(outcome.outputs) == {
        "rows": "13",
        "day": "tomorrow",
        "text": "two\nlines",
        "equation": "a=b",
        "empty": "",
    }


async def test_the_file_may_hold_a_json_object(tmp_path: Path) -> None:
    outcome = await run("shell", make_job("shell", tmp_path, script='echo \'{"n": [1, null]}\' > "$DSFAST_OUTPUT"'))
    assert json.loads(outcome.outputs) == {"n": [1, None]}


async def test_a_task_without_values_has_none(tmp_path: Path) -> None:
    assert (await run("shell", make_job("shell", tmp_path, script="echo setValue"))).outputs == b""


async def test_a_failed_task_hands_nothing_on(tmp_path: Path) -> None:
    outcome = await run("shell", make_job("shell", tmp_path, script="echo a=1 > $DSFAST_OUTPUT; exit 1"))
    assert outcome.outputs == b""


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("echo '{\"a\": 1' > $DSFAST_OUTPUT", "starts with { but is not a JSON object"),
        ("printf 'a=1\\n\\nhello\\n' > $DSFAST_OUTPUT", "line 3 of the file $DSFAST_OUTPUT is not key=value: 'hello'"),
        (f"head -c {OUTPUTS_BYTES_MAX + 1} /dev/zero > $DSFAST_OUTPUT", "holds more than 1048576 bytes"),
        ('for i in $(seq 20); do echo "#{setValue(k$i=' + "x" * 60_000 + ')}"; done', "output values take"),
        ("ln -s /etc/passwd $DSFAST_OUTPUT", "the task's output values cannot be read"),
    ],
)
async def test_values_that_cannot_be_handed_on_fail_the_task_with_a_sentence(
    tmp_path: Path, script: str, sentence: str
) -> None:
    job = make_job("shell", tmp_path, script=script, log_bytes_max=10 << 20)
    outcome = await run("shell", job)
    assert outcome.state is AttemptState.FAILED
    assert sentence in outcome.reason
    assert log_text(job).endswith(f"dsfast: {outcome.reason}\n")


async def test_values_are_found_in_a_long_log_wherever_they_are(tmp_path: Path) -> None:
    script = "\n".join(
        f"echo '${{setValue(at{number}={number})}}'; head -c 999999 /dev/zero | tr '\\0' x; echo" for number in range(4)
    )
    outcome = await run("shell", make_job("shell", tmp_path, script=script, log_bytes_max=10 << 20))
    assert json.loads(outcome.outputs) == {f"at{number}": str(number) for number in range(4)}


NAMES = st.text(st.characters(exclude_characters="=(){}\n", exclude_categories=["Cs", "Zs", "Cc"]), min_size=1)
VALUES = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: ")}" not in f"{text})}}"[:-2])
NOISE = st.sampled_from(["", "${", "#{setValue(", "${setValue(x", ")}", "$", "\n"])


@given(st.lists(st.tuples(NOISE, NAMES, VALUES)))
def test_what_is_said_whole_is_found_whatever_is_around_it(said: list[tuple[str, str, str]]) -> None:
    text = "".join(f"{noise}\n${{setValue({name}={value})}}\n" for noise, name, value in said)
    found = list(outputs.values_in(text.encode()))
    expected = [(name.strip(), value) for _, name, value in said if "{setValue(" not in value]
    positions = iter(found)
    assert all(pair in positions for pair in expected)


@settings(max_examples=30)
@given(st.integers(0, 3), st.integers(-40, 40))
def test_no_value_is_lost_at_the_border_of_two_pieces(
    tmp_path_factory: pytest.TempPathFactory, pieces: int, shift: int
) -> None:
    log = tmp_path_factory.mktemp("log") / "log"
    before = max(pieces * (1 << 20) + shift, 0)
    log.write_bytes(b"x" * before + b"${setValue(key=value)}" + b"y" * 100)
    assert outputs.collect(str(log), log.stat().st_size, str(log.with_name("none"))) == {"key": "value"}


# -- checking ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "field", "sentence"),
    [
        ({}, "script", "needs either a script or a command"),
        ({"script": "a", "command": ["a"]}, "script", "needs either a script or a command"),
        ({"script": " \n"}, "script", "needs either a script or a command"),
        ({"command": ["", "a"]}, "command", "starts with an empty word"),
        ({"script": "a", "shell": "sh 'x"}, "shell", "cannot be split into words: No closing quotation"),
        ({"script": "a", "shell": ""}, "shell", "is empty"),
        ({"script": "{{ params.a }}", "shell": "python3 -u"}, "script", "let the script read $DSFAST_PARAM_<NAME>"),
    ],
)
def test_settings_that_cannot_work_are_found_before_anything_runs(
    config: dict[str, object], field: str, sentence: str
) -> None:
    [(found, said)] = problems(**config)
    assert found == field
    assert sentence in said


@pytest.mark.parametrize(
    "config",
    [{"script": "{{ params.a }}", "shell": "/usr/bin/zsh -e"}, {"command": ["a", "{{ params.b }}"]}, {"script": "a"}],
)
def test_settings_that_can_work_pass(config: dict[str, object]) -> None:
    assert problems(**config) == []
