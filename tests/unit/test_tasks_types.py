"""Task types: the built-in ones, plug-ins by entry point, and what importing them costs."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dsfast.errors import UsageError
from dsfast.model import AttemptState
from dsfast.tasks import types
from dsfast.tasks.sleep import SleepConfig, SleepTask
from dsfast.tasks.types import task_type, task_types
from tests.attempts import DEADLINE_SECONDS, make_job, run, start


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package with the task types `good`, `broken`, `partial` and an own `shell`."""
    package = tmp_path / "plug_in_for_tests"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "good.py").write_text(
        "from dsfast.tasks.noop import NoopTask\n"
        "class Good(NoopTask):\n    name = 'good'\n"
        "class Partial:\n    name = 'partial'\n"
    )
    (package / "broken.py").write_text("import nonesuch_for_tests")
    info = tmp_path / "plug_in_for_tests-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-in-for-tests\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[dsfast.tasks]\n"
        "good = plug_in_for_tests.good:Good\n"
        "partial = plug_in_for_tests.good:Partial\n"
        "broken = plug_in_for_tests.broken:Broken\n"
        "shell = plug_in_for_tests.good:Good\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(types, "_loaded", {})
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("plug_in_for_tests")]:
        del sys.modules[name]


def test_the_built_in_types_have_all_parts_and_know_their_names() -> None:
    for name in ("noop", "python", "shell", "sleep"):
        kind = task_type(name)
        assert kind.name == name
        assert kind is task_type(name)
        assert issubclass(kind.Config, msgspec.Struct)
        assert set(kind.templated) <= {field.name for field in msgspec.structs.fields(kind.Config)}


def test_an_unknown_type_is_refused_with_the_names_that_are_close() -> None:
    with pytest.raises(UsageError, match=r"there is no task type 'shel' \(did you mean 'shell'\?\)"):
        task_type("shel")
    with pytest.raises(UsageError, match=r"there are noop, python, shell, sleep"):
        task_type("quux")


def test_an_installed_package_can_add_a_type_and_not_replace_ours(installed: Path) -> None:
    assert task_type("good").name == "good"
    assert task_type("shell").name == "shell"


def test_a_plug_in_that_cannot_be_imported_is_an_error_that_names_it(installed: Path) -> None:
    expected = (
        "the task type 'broken' of the plug-in 'plug_in_for_tests.broken:Broken' cannot be loaded: "
        "ModuleNotFoundError: No module named 'nonesuch_for_tests'"
    )
    with pytest.raises(UsageError) as caught:
        task_type("broken")
    assert str(caught.value) == expected
    with pytest.raises(UsageError, match="broken"):
        task_types()


def test_a_plug_in_that_is_no_task_type_is_refused(installed: Path) -> None:
    with pytest.raises(UsageError, match="is not a task type: it has no Config, templated"):
        task_type("partial")


def test_checking_needs_no_event_loop_no_processes_and_no_plug_ins() -> None:
    program = (
        "import sys\nfrom dsfast.tasks.types import task_type\n"
        "for name in ('noop', 'python', 'shell', 'sleep'): list(task_type(name).check(task_type(name).Config"
        "(**({'seconds': 1} if name == 'sleep' else {}))))\n"
        "heavy = {'asyncio', 'uvloop', 'minijinja', 'importlib.metadata', 'subprocess', 'ctypes'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"


async def test_the_example_of_the_documentation_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    monkeypatch.setattr(types, "_loaded", {"wait_for_file": names["WaitForFile"]()})
    file = tmp_path / "file"
    job = make_job("wait_for_file", tmp_path, file=str(file))
    _, outcome = start("wait_for_file", job)
    file.touch()
    assert (await asyncio.wait_for(outcome, DEADLINE_SECONDS)).state is AttemptState.SUCCEEDED
    file.unlink()
    execution, outcome = start("wait_for_file", job)
    execution.kill(0, "enough")
    assert outcome.result().reason == "enough"
    assert list(task_type("wait_for_file").check(job.config)) == []


# -- noop and sleep ---------------------------------------------------------------------------------------


async def test_a_noop_is_done_before_its_start_returns(tmp_path: Path) -> None:
    execution, outcome = start("noop", make_job("noop", tmp_path))
    assert outcome.done()
    assert outcome.result().state is AttemptState.SUCCEEDED
    execution.kill(0, "too late")


async def test_a_sleep_lets_the_time_pass(tmp_path: Path) -> None:
    outcome = await run("sleep", make_job("sleep", tmp_path, seconds=0.05))
    assert outcome.state is AttemptState.SUCCEEDED
    assert outcome.ended_at - outcome.started_at >= 0.049


async def test_a_kill_wakes_a_sleep(tmp_path: Path) -> None:
    execution, outcome = start("sleep", make_job("sleep", tmp_path, seconds=1000))
    execution.kill(1000, "enough")
    execution.kill(0, "again")
    ended = await asyncio.wait_for(outcome, 1)
    assert (ended.state, ended.reason) == (AttemptState.KILLED, "enough")


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
def test_a_sleep_needs_a_time_that_ends(seconds: float) -> None:
    [(field, sentence)] = SleepTask().check(SleepConfig(seconds))
    assert (field, "must be 0 or more and finite" in sentence) == ("seconds", True)
