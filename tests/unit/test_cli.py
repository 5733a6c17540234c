"""The command line without a cluster: what it imports, how it fails, what it prints."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from dsfast.cli.admin import masked
from dsfast.cli.exits import RUN_EXITS, Exit
from dsfast.cli.main import COMMANDS, invoke, root
from dsfast.cli.options import read_params
from dsfast.cli.output import safe, span
from dsfast.cli.watch import safe_line
from dsfast.errors import UsageError
from dsfast.views import RUN_WORDS, TASK_WORDS

HEAVY = ("sqlalchemy", "uvloop", "rich", "kazoo", "starlette", "uvicorn", "yaml", "alembic", "asyncio", "msgspec")
HEAVY_FOR_CLIENTS = tuple(name for name in HEAVY if name != "msgspec")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in os.environ:
        if name.startswith("DSFAST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def imported_by(code: str) -> set[str]:
    """Which heavy packages a fresh interpreter has after this code."""
    script = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_starting_imports_nothing_heavy() -> None:
    assert imported_by("import dsfast.cli.main").isdisjoint(HEAVY)


def test_commands_that_speak_http_import_nothing_heavy_either() -> None:
    modules = "runs submit logs daemons admin files"
    code = "\n".join(f"import dsfast.cli.{name}" for name in modules.split())
    assert imported_by(code + "\nimport dsfast.cli.remote").isdisjoint(HEAVY_FOR_CLIENTS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_listed_command_exists_and_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module, _, attribute = COMMANDS[name][0].partition(":")
    assert isinstance(getattr(import_module(module), attribute), click.Command)
    assert invoke([name, "--help"]) == 0
    assert f"Usage: dsfast {name}" in capsys.readouterr().out


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["--help"]) == 0
    out = capsys.readouterr().out
    for name, (_, about) in COMMANDS.items():
        assert f"  {name} " in out
        assert about in out


def test_a_misspelt_command_is_recognised(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["stauts"]) == Exit.USAGE
    assert "did you mean 'status'?" in capsys.readouterr().err


def test_every_way_a_run_can_end_has_an_exit_code() -> None:
    finals = {word for state, word in RUN_WORDS.items() if state.final}
    assert set(RUN_EXITS) == finals


@pytest.mark.parametrize(
    "args", [["ps"], ["status", "last"], ["wait", "x"], ["cancel", "x"], ["logs", "x"], ["worker", "ls"]]
)
def test_without_a_token_the_sentence_says_where_one_would_be(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(args) == Exit.USAGE
    err = capsys.readouterr().err
    assert "api.token: no token for the api" in err
    assert "Traceback" not in err


def test_an_api_that_is_not_there_is_unreachable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DSFAST_TOKEN", "x")
    assert invoke(["ps", "--api", "http://127.0.0.1:1"]) == Exit.UNREACHABLE
    assert "dsfast up" in capsys.readouterr().err
    assert invoke(["ps", "--api", "127.0.0.1:1"]) == Exit.USAGE


def test_mistakes_in_the_configuration_are_listed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "dsfast.toml").write_text("[worker]\nslot = 1\n")
    assert invoke(["config", "check", "--set", "master.port=x"]) == Exit.USAGE
    err = capsys.readouterr().err.splitlines()
    assert err == [
        f"error: {home}/dsfast.toml:2: there is no setting 'worker.slot' (did you mean 'worker.slots'?)",
        "error: flag: master.port: 'x' is not a port (0 to 65535)",
    ]


def test_the_configuration_is_shown_with_its_origins(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["config", "show", "-o", "json", "--set", "store.url=postgresql://me:secret@db/x"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["store.url"] == {"value": "postgresql://me:***@db/x", "origin": "flag"}
    assert shown["master.port"] == {"value": "7480", "origin": "default"}
    assert invoke(["config", "show", "--origin"]) == 0
    assert "ORIGIN" in capsys.readouterr().out


def test_a_daemon_does_not_listen_beyond_the_machine_with_a_made_up_secret(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["config", "check", "--set", "api.host=0.0.0.0", "--set", "worker.host=0.0.0.0"]) == Exit.USAGE
    err = capsys.readouterr().err
    assert "api.token_file" in err
    assert "cluster.key_file" in err
    assert invoke(["api", "--host", "0.0.0.0"]) == Exit.USAGE
    assert invoke(["master", "--host", "0.0.0.0"]) == Exit.USAGE


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:////x/y.db", "sqlite:////x/y.db"),
        ("postgresql://u:p@h/d", "postgresql://u:***@h/d"),
        ("database+postgresql://u:p%40q@h:5/d?sslmode=require", "database+postgresql://u:***@h:5/d?sslmode=require"),
        ("zookeeper://a:1,b:2", "zookeeper://a:1,b:2"),
        ("zookeeper://u:p@a:1,b:2/x", "zookeeper://u:***@a:1,b:2/x"),
        ("postgresql:///d?host=h&password=p&x=1", "postgresql:///d?host=h&password=***&x=1"),
        ("a path", "a path"),
    ],
)
def test_passwords_in_urls_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


def test_parameters_are_json_or_else_text(home: Path) -> None:
    (home / "p.json").write_text('{"a": 1, "b": [2]}')
    given = ["a=2", "c=text", 'd="text"', "e=", "f=1.5", "g=null", "h=a=b", "i=NaN", "j={"]
    assert read_params(given, "p.json") == {
        "a": 2, "b": [2], "c": "text", "d": "text", "e": "", "f": 1.5, "g": None, "h": "a=b", "i": "NaN", "j": "{",
    }  # fmt: skip


@pytest.mark.parametrize("content", ["[1]", "{", "NaN", '{"a": NaN}'])
def test_a_file_of_parameters_that_is_not_one(home: Path, content: str) -> None:
    (home / "p.json").write_text(content)
    with pytest.raises(UsageError, match=r"p\.json"):
        read_params([], "p.json")
    with pytest.raises(UsageError, match="name=value"):
        read_params(["name"], None)


def test_what_tasks_wrote_cannot_steer_a_terminal() -> None:
    assert safe_line("\x1b[31mred\x1b[0m \x1b]8;;http://x\x07link\x07\ttab") == "red ]8;;http://xlink\ttab"
    assert safe("a\nb\x1b[2J") == "a\\x0ab\\x1b[2J"


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, ""), (0.0123, "12 ms"), (9.96, "10.0 s"), (61, "1 min 1 s"), (7260, "2 h 1 min")]
)
def test_durations_for_people(seconds: float | None, text: str) -> None:
    assert span(seconds) == text


def test_colour_is_for_terminals_that_want_it(home: Path) -> None:
    code = "from dsfast.cli.output import say, colored; say(colored('failed'))"
    assert in_terminal(code) == "\x1b[31mfailed\x1b[0m\r\n"
    assert in_terminal(code, NO_COLOR="1") == "failed\r\n"
    assert in_terminal(code, TERM="dumb") == "failed\r\n"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"failed\n"


def in_terminal(code: str, **environ: str) -> str:
    """What this prints when its output is a terminal."""
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    subprocess.run([sys.executable, "-c", code], stdout=theirs, env=kept | {"TERM": "xterm"} | environ, check=True)
    os.close(theirs)
    try:
        return os.read(ours, 65536).decode()
    finally:
        os.close(ours)


def test_a_reader_that_leaves_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, "-m", "dsfast", "config", "show"], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert process.stderr == b""


def test_an_internal_error_is_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    @click.command("broken")
    def broken() -> None:
        raise KeyError("x")

    monkeypatch.setattr("dsfast.cli.files.validate", broken)
    assert invoke(["validate"]) == Exit.ERROR
    err = capsys.readouterr().err
    assert "internal error: KeyError: 'x'" in err
    assert "Traceback" not in err


def test_completion_is_offered_for_three_shells(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert invoke(["completion", shell]) == 0
        assert "_DSFAST_COMPLETE" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dsfast ")
    assert root.name == "root"


def test_the_page_of_the_command_line_is_complete() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    for name in COMMANDS:
        assert f"`dsfast {name}" in page
    for code in Exit:
        assert f"| {code.value} |" in page
    for word in (*RUN_WORDS.values(), *TASK_WORDS):
        assert f"`{word}`" in page


def test_a_database_is_made_and_checked(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["db", "check"]) == Exit.USAGE
    assert "dsfast db upgrade" in capsys.readouterr().err
    assert invoke(["db", "upgrade"]) == 0
    assert "has schema" in capsys.readouterr().out
    assert invoke(["db", "check"]) == 0
    assert "as this release needs" in capsys.readouterr().out
    assert (home / "state" / "dsfast" / "dsfast.db").stat().st_mode & 0o077 == 0
