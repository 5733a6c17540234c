"""Python tasks: what goes in and comes out, warm processes and when they are not used again, crashes and kills."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dsfast.model import OUTPUTS_BYTES_MAX, AttemptState, Outcome
from dsfast.tasks.proc import children
from dsfast.tasks.python import PythonConfig, PythonTask
from dsfast.tasks.types import task_type
from tests.attempts import DEADLINE_SECONDS, carrying, exists, log_text, make_job, read_fifo, run, start, until

MODULE = """
import json, os

calls = []

def add(a, b=10):
    calls.append(a)
    print("adding", json.dumps([a, b]), "call", len(calls))
    return {"sum": a + b}

class Deep:
    @staticmethod
    def pid():
        return os.getpid()
"""


@pytest.fixture
async def lib(tmp_path: Path) -> AsyncIterator[Path]:
    """A directory with users' modules, one of them called json."""
    directory = tmp_path / "lib"
    directory.mkdir()
    (directory / "json.py").write_text("raise SystemExit('the wrong json')")
    (directory / "mine.py").write_text(MODULE)
    before = set(children(os.getpid()))
    yield directory
    task_type("python").close()
    await until(lambda: before.issuperset(children(os.getpid())))


class Tasks:
    """Python attempts in one directory, numbered."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.number = 0

    async def run(self, source: str = "", **config: Any) -> tuple[Outcome, str]:
        """The outcome and the log."""
        self.number += 1
        job = make_job("python", self.root, task=self.number, source=source, **config)
        outcome = await run("python", job)
        return outcome, log_text(job)

    async def value(self, source: str = "", **config: Any) -> Any:
        """The one value `result`."""
        outcome, log = await self.run(source, **config)
        assert outcome.state is AttemptState.SUCCEEDED, (outcome, log)
        return json.loads(outcome.outputs)["result"]


@pytest.fixture
def tasks(tmp_path: Path, lib: Path) -> Tasks:
    return Tasks(tmp_path)


PID = "import os; result = os.getpid()"
DAEMON = """
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "1000"])
    os._exit(0)
os.wait()
"""


# -- in and out -------------------------------------------------------------------------------------------


async def test_a_function_gets_its_arguments_and_hands_its_result_on(tasks: Tasks) -> None:
    outcome, log = await tasks.run(call="mine:add", args={"a": 1}, path=["lib"])
    assert (outcome.state, outcome.exit_code, json.loads(outcome.outputs)) == (
        AttemptState.SUCCEEDED,
        0,
        {"sum": 11},
    )
    assert log == "adding [1, 10] call 1\n"


async def test_a_script_has_its_arguments_as_variables(tasks: Tasks) -> None:
    assert await tasks.value("result = [name.upper() for name in names]", args={"names": ["ä", "b"]}) == ["Ä", "B"]


@pytest.mark.parametrize(
    ("result", "outputs"),
    [
        ("None", None),
        ("{}", None),
        ("{'a': [1, None], 2: 3}", {"a": [1, None], "2": 3}),
        ("0", {"result": 0}),
        ("'\\ud800'", {"result": "?"}),
    ],
)
async def test_results_become_output_values(tasks: Tasks, result: str, outputs: object) -> None:
    outcome, _ = await tasks.run(f"result = {result}")
    assert outcome.state is AttemptState.SUCCEEDED
    assert (json.loads(outcome.outputs) if outcome.outputs else None) == outputs


async def test_values_said_in_the_log_or_written_to_the_file_count_too_and_the_result_wins(tasks: Tasks) -> None:
    source = """
import os
print("${setValue(a=log)} ${setValue(b=log)} ${setValue(c=log)}")
open(os.environ["DSFAST_OUTPUT"], "w").write("b=file\\nc=file")
result = {"c": "result"}
"""
    outcome, _ = await tasks.run(source)
    assert json.loads(outcome.outputs) == {"a": "log", "b": "file", "c": "result"}


async def test_an_attempt_has_its_own_environment_and_directory(tasks: Tasks, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    source = "import os, time; result = [os.getcwd(), dict(os.environ), time.tzname[0]]"
    job = make_job("python", tmp_path, task=90, source=source, declared={"TZ": "XYZ-3"}, workdir=tmp_path / "elsewhere")
    directory, environment, zone = json.loads((await run("python", job)).outputs)["result"]
    assert directory == str(tmp_path / "elsewhere")
    assert environment == job.env
    assert zone == "XYZ"


@pytest.mark.parametrize(
    ("source", "code", "reason", "said"),
    [
        ("def f():\n    return 1 / 0\nf()", 1, "ZeroDivisionError: division by zero", "    return 1 / 0\n"),
        ("raise ValueError('first\\nsecond')", 1, "ValueError: first", "ValueError: first\nsecond"),
        ("raise KeyboardInterrupt", 1, "KeyboardInterrupt", "KeyboardInterrupt"),
        ("class E(Exception):\n def __str__(self): raise E\nraise E", 1, "E", "E"),
        ("import sys; print('x'); sys.exit(3)", 3, "exit code 3", "x\n"),
        ("import sys; sys.exit('no data today')", 1, "no data today", "no data today\n"),
        ("result = {1, 2}", 1, "the result cannot be handed on as JSON: Object of type set is not JSON", ""),
        ("result = float('nan')", 1, "the result cannot be handed on as JSON: Out of range", ""),
        (f"result = 'x' * {OUTPUTS_BYTES_MAX}", 1, f"the result is longer than {OUTPUTS_BYTES_MAX} bytes", ""),
        ("import os; os._exit(7)", 7, "the process ended before the task did: exit code 7", ""),
        ("import os; os._exit(0)", 0, "the process ended before the task did: exit code 0", ""),
        ("import os; os.kill(os.getpid(), 11)", 139, "the process ended before the task did: killed by SIGSEGV", ""),
        ("import os; os.write(3, b'{}\\n'); input()", 137, "the task's code has closed or used descriptor 3", ""),
    ],
)
async def test_failures_have_a_reason_in_one_line_and_the_rest_is_in_the_log(
    tasks: Tasks, source: str, code: int, reason: str, said: str
) -> None:
    if "input()" in source:
        source = source.replace("input()", "import time; time.sleep(1000)")
    outcome, log = await tasks.run(source)
    assert (outcome.state, outcome.exit_code) == (AttemptState.FAILED, code)
    assert outcome.reason.startswith(reason)
    assert said in log
    assert "python_child" not in log


async def test_a_working_directory_that_does_not_exist_fails_the_attempt(tasks: Tasks, tmp_path: Path) -> None:
    outcome, _ = await tasks.run("result = 1", workdir=tmp_path / "nonesuch")
    assert outcome.state is AttemptState.FAILED
    assert outcome.reason == f"the working directory {tmp_path}/nonesuch does not exist on this worker"


async def test_leaving_with_success_is_success(tasks: Tasks) -> None:
    outcome, _ = await tasks.run("raise SystemExit")
    assert (outcome.state, outcome.exit_code) == (AttemptState.SUCCEEDED, 0)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"call": "mine:nonesuch", "path": ["lib"]}, "AttributeError: module 'mine' has no attribute 'nonesuch'"),
        ({"call": "nonesuch:f"}, "ModuleNotFoundError: No module named 'nonesuch'"),
        ({"call": "mine:add", "path": ["lib"]}, "TypeError: add() missing 1 required positional argument: 'a'"),
        ({"source": "result = 1", "python": "nonesuch"}, "there is no program 'nonesuch' in the task's PATH"),
        ({"source": "result = 1", "python": "/bin/false"}, "Python ended before it began the task: exit code 1"),
    ],
)
async def test_what_cannot_be_called_fails_with_a_sentence(tasks: Tasks, config: dict[str, Any], reason: str) -> None:
    outcome, _ = await tasks.run(**config)
    assert outcome.state is AttemptState.FAILED
    assert outcome.reason.startswith(reason)


# -- warm processes ---------------------------------------------------------------------------------------


async def test_a_process_that_left_nothing_behind_serves_the_next_attempt(tasks: Tasks) -> None:
    assert await tasks.value(PID) == await tasks.value(PID)


async def test_each_interpreter_and_path_has_its_own_processes(tasks: Tasks) -> None:
    pids = {await tasks.value(PID), await tasks.value(PID, path=["lib"]), await tasks.value(PID, python=sys.executable)}
    assert len(pids) == 2


async def test_an_attempt_can_ask_for_a_process_of_its_own(tasks: Tasks) -> None:
    first = await tasks.value(PID)
    own = await tasks.value(PID, reuse=False)
    assert await tasks.value(PID) == first
    assert own != first
    assert not exists(own)


async def test_modules_of_the_task_are_as_they_are_on_disk_and_forget_their_state(tasks: Tasks, lib: Path) -> None:
    config: dict[str, Any] = {"call": "mine:add", "args": {"a": 1}, "path": ["lib"]}
    _, first = await tasks.run(**config)
    _, second = await tasks.run(**config)
    (lib / "mine.py").write_text("def add(a):\n    return {'new': a}\n")
    outcome, _ = await tasks.run(**config)
    assert first == second == "adding [1, 10] call 1\n"
    assert json.loads(outcome.outputs) == {"new": 1}


async def test_what_an_attempt_changes_in_its_process_is_put_back(tasks: Tasks) -> None:
    mess = """
import os, signal, sys
os.environ["LEFT"] = "x"; os.chdir("/tmp"); os.umask(0); sys.path.append("/left"); sys.argv.append("left")
signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.alarm(1000); sys.stdout = None; left = 1
"""
    look = """
import os, signal, sys
result = [os.environ.get("LEFT"), os.umask(0o22), "/left" in sys.path, "left" in sys.argv,
          signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, signal.alarm(0), "left" in dir(), os.getpid()]
"""
    pid = await tasks.value(PID)
    await tasks.run(mess)
    umask = os.umask(0)
    os.umask(umask)
    assert await tasks.value(look) == [None, umask, False, False, True, 0, False, pid]


@pytest.mark.parametrize(
    "leaves",
    [
        "import threading, time; threading.Thread(target=time.sleep, args=(1000,)).start()",
        "import subprocess; subprocess.Popen(['sleep', '1000'])",
        "import subprocess; subprocess.Popen(['setsid', 'sleep', '1000'])",
        DAEMON,
    ],
)
async def test_a_process_that_left_something_behind_is_ended_with_it(tasks: Tasks, leaves: str) -> None:
    outcome, _ = await tasks.run(f"{leaves}\nimport os\nresult = os.getpid()")
    assert outcome.state is AttemptState.SUCCEEDED
    assert not exists(json.loads(outcome.outputs)["result"])
    assert carrying(tasks.number) == []


async def test_closing_ends_the_processes_that_wait(tasks: Tasks) -> None:
    pid = await tasks.value(PID)
    task_type("python").close()
    await until(lambda: not exists(pid))
    assert await tasks.value(PID) != pid


# -- isolation --------------------------------------------------------------------------------------------


async def test_users_code_is_not_imported_into_the_worker(tasks: Tasks) -> None:
    await tasks.run(call="mine:add", args={"a": 1}, path=["lib"])
    assert "mine" not in sys.modules
    assert await tasks.value(call="mine:Deep.pid", path=["lib"]) != os.getpid()


async def test_the_workers_directory_and_environment_do_not_reach_imports(
    tasks: Tasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hidden.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    outcome, _ = await tasks.run("import hidden")
    assert outcome.reason == "ModuleNotFoundError: No module named 'hidden'"


# -- kill -------------------------------------------------------------------------------------------------


async def test_a_kill_ends_the_process_and_the_next_attempt_gets_another(tasks: Tasks, tmp_path: Path) -> None:
    pid = await tasks.value(PID)
    os.mkfifo(tmp_path / "fifo")
    source = """
import os, signal, subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["setsid", "sleep", "1000"])
open("fifo", "w").write(f"{os.getpid()} {child.pid}")
while True: signal.pause()
"""
    execution, outcome = start("python", make_job("python", tmp_path, task=80, source=source))
    pids = [int(word) for word in (await read_fifo(tmp_path / "fifo")).split()]
    execution.kill(0.05, "enough")
    ended = await asyncio.wait_for(outcome, DEADLINE_SECONDS)
    assert (ended.state, ended.exit_code, ended.reason) == (AttemptState.KILLED, 137, "enough")
    assert pids[0] == pid
    assert [exists(each) for each in pids] == [False, False]
    assert carrying(80) == []
    assert await tasks.value(PID) != pid


async def test_attempts_run_side_by_side_each_in_its_own_process(tasks: Tasks, tmp_path: Path) -> None:
    jobs = [make_job("python", tmp_path, task=70 + number, source=PID) for number in range(4)]
    outcomes = await asyncio.gather(*(run("python", job) for job in jobs))
    assert len({outcome.outputs for outcome in outcomes}) == 4


async def test_a_large_request_reaches_its_process_whole(tasks: Tasks) -> None:
    assert await tasks.value("result = len(text)", args={"text": "x" * 1_000_000}) == 1_000_000


# -- checking ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "field", "sentence"),
    [
        ({}, "call", "needs either a call or a source"),
        ({"call": "a:b", "source": "c"}, "call", "needs either a call or a source"),
        ({"call": "a.b"}, "call", "must look like module:function, not 'a.b'"),
        ({"call": "a:b", "args": {"a b": 1}}, "args", "'a b' cannot be the name of an argument"),
        ({"source": "x = 1\nif:"}, "source", "is not Python: invalid syntax in its line 2"),
    ],
)
def test_settings_that_cannot_work_are_found_before_anything_runs(
    config: dict[str, object], field: str, sentence: str
) -> None:
    [(found, said)] = PythonTask().check(msgspec.convert(config, PythonConfig))
    assert found == field
    assert sentence in said


def test_another_interpreter_may_know_another_python() -> None:
    assert list(PythonTask().check(PythonConfig(source="print 'hello'", python="python2"))) == []
