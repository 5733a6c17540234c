"""Processes on both event loops: how they start, what they inherit, how they end, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from dsfast.ids import run_text
from dsfast.model import AttemptState, Outcome
from dsfast.tasks import proc
from dsfast.tasks.base import StartFailed
from dsfast.tasks.oom import SCORE_ADDED
from tests.attempts import DEADLINE_SECONDS, RUN, carrying, exists, log_text, make_job, read_fifo, run, start

Run = Callable[[Awaitable[Outcome]], Outcome]


@pytest.fixture(params=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield runner


def shell(runner: asyncio.Runner, root: Path, script: str, **config: Any) -> tuple[Outcome, str]:
    """The outcome of a script and its log."""
    job = make_job("shell", root, script=script, **config)
    outcome = runner.run(run("shell", job))
    return outcome, log_text(job)


# -- how they end -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "state", "code", "reason"),
    [
        ("exit 0", AttemptState.SUCCEEDED, 0, ""),
        ("exit 3", AttemptState.FAILED, 3, "exit code 3"),
        ("kill -SEGV $$", AttemptState.FAILED, 139, "killed by SIGSEGV"),
        ("kill -40 $$", AttemptState.FAILED, 168, "killed by signal 40"),
        ("sh -c 'kill -KILL $$'; exit $?", AttemptState.FAILED, 137, "exit code 137: a command was killed by SIGKILL"),
        ("nonesuch", AttemptState.FAILED, 127, "exit code 127: a command was not found"),
        ("/etc/passwd", AttemptState.FAILED, 126, "exit code 126: a command could not be executed"),
    ],
)
def test_the_end_of_the_main_process_is_the_outcome(
    runner: asyncio.Runner, tmp_path: Path, script: str, state: AttemptState, code: int, reason: str
) -> None:
    outcome, _ = shell(runner, tmp_path, script)
    assert (outcome.state, outcome.exit_code, outcome.reason) == (state, code, reason)
    assert 0 < outcome.started_at <= outcome.ended_at


def test_an_attempt_ends_with_its_main_process_and_what_it_left_is_gone_by_then(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    outcome, log = shell(runner, tmp_path, "sleep 1000 & echo $!; setsid sleep 1000 & echo $!; exit 4")
    assert outcome.exit_code == 4
    assert [exists(int(pid)) for pid in log.split()] == [False, False]


DAEMON = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
ready, hold = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        if os.environ.get("FORGETFUL"):
            script = f"trap '' TERM; echo $$ > {sys.argv[1]}; while :; do sleep 1000; done"
            os.execve("/bin/sh", ["sh", "-c", script], {})
        open(sys.argv[1], "w").write(str(os.getpid()))
        os.close(hold)
        while True:
            signal.pause()
    os._exit(0)
os.close(hold)
os.wait()
os.read(ready, 1)  # until the daemon has said its number, or is another program: it would be ended before that
"""


@pytest.fixture
def daemon(tmp_path: Path) -> str:
    """The command of a program that leaves a daemon, which ignores SIGTERM, in another session."""
    (tmp_path / "daemon.py").write_text(DAEMON)
    os.mkfifo(tmp_path / "fifo")
    return f"{sys.executable} {tmp_path}/daemon.py {tmp_path}/fifo"


def test_a_daemon_that_forked_twice_is_ended_after_its_task(
    runner: asyncio.Runner, tmp_path: Path, daemon: str
) -> None:
    async def body() -> tuple[int, Outcome]:
        _, outcome = start("shell", make_job("shell", tmp_path, script=f"{daemon}; exit 5"))
        pid = int(await read_fifo(tmp_path / "fifo"))
        return pid, await asyncio.wait_for(outcome, DEADLINE_SECONDS)

    pid, outcome = runner.run(body())
    assert (outcome.state, outcome.exit_code) == (AttemptState.FAILED, 5)
    assert not exists(pid)


def test_a_kill_ends_a_task_that_ignores_sigterm_and_has_a_daemon(
    runner: asyncio.Runner, tmp_path: Path, daemon: str
) -> None:
    async def body() -> tuple[int, Outcome]:
        script = f"trap '' TERM; {daemon}; while :; do sleep 1000; done"
        execution, outcome = start("shell", make_job("shell", tmp_path, script=script))
        pid = int(await read_fifo(tmp_path / "fifo"))
        execution.kill(0.05, "it took too long")
        return pid, await asyncio.wait_for(outcome, DEADLINE_SECONDS)

    pid, outcome = runner.run(body())
    assert (outcome.state, outcome.exit_code, outcome.reason) == (AttemptState.KILLED, 137, "it took too long")
    assert not exists(pid)
    assert carrying(1) == []


def test_a_daemon_that_shed_its_marks_ends_with_the_last_task_that_may_have_left_it(
    runner: asyncio.Runner, tmp_path: Path, daemon: str
) -> None:
    async def body() -> int:
        bystander, bystander_ends = start("shell", make_job("shell", tmp_path, task=1, script="sleep 1000"))
        job = make_job("shell", tmp_path, task=2, script=daemon, declared={"FORGETFUL": "1"})
        _, outcome = start("shell", job)
        pid = int(await read_fifo(tmp_path / "fifo"))
        await asyncio.wait_for(outcome, DEADLINE_SECONDS)
        assert exists(pid)
        bystander.kill(0, "")
        await asyncio.wait_for(bystander_ends, DEADLINE_SECONDS)
        return pid

    assert not exists(runner.run(body()))


def test_children_of_other_code_are_left_alone(runner: asyncio.Runner, tmp_path: Path) -> None:
    others = [subprocess.Popen(["sleep", "1000"], start_new_session=True)]

    async def body() -> None:
        execution, outcome = start("shell", make_job("shell", tmp_path, script="setsid sleep 1000 & sleep 1000"))
        others.append(subprocess.Popen(["sleep", "1000"]))  # noqa: ASYNC220 - as blocking as a plug-in may be
        execution.kill(0, "")
        await asyncio.wait_for(outcome, DEADLINE_SECONDS)

    try:
        runner.run(body())
        assert [other.poll() for other in others] == [None, None]
    finally:
        for other in others:
            other.kill()
            other.wait()


# -- how they are killed ----------------------------------------------------------------------------------


# Says that it is ready, and cleans up when it is asked to end. (A shell's child that is asked before it has executed
# its program may swallow the signal with the shell's own handler; then only the deadline ends it.)
CLEANER = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
open("fifo", "w").close()
signal.sigwait({signal.SIGTERM})
print("cleaned")
"""


async def killed(root: Path, script: str, *graces: float) -> Outcome:
    """Start the script, wait until it has opened `fifo`, kill it once for each grace."""
    os.mkfifo(root / "fifo")
    (root / "cleaner.py").write_text(CLEANER)
    execution, outcome = start("shell", make_job("shell", root, script=script))
    await read_fifo(root / "fifo")
    for grace in graces:
        execution.kill(grace, "enough")
    return await asyncio.wait_for(outcome, DEADLINE_SECONDS)


@pytest.mark.parametrize("session", ["", "setsid "])
def test_a_kill_asks_first_and_waits_for_children_that_clean_up(
    runner: asyncio.Runner, tmp_path: Path, session: str
) -> None:
    outcome = runner.run(killed(tmp_path, f"{session}{sys.executable} cleaner.py & wait", 1000))
    assert (outcome.state, outcome.exit_code) == (AttemptState.KILLED, 143)
    assert (tmp_path / "1.log").read_text() == "cleaned\ndsfast: killed: enough\n"


def test_a_task_that_exits_by_itself_after_being_asked_counts_as_killed(runner: asyncio.Runner, tmp_path: Path) -> None:
    outcome = runner.run(killed(tmp_path, f"exec {sys.executable} cleaner.py", 1000))
    assert (outcome.state, outcome.exit_code) == (AttemptState.KILLED, 0)


def test_a_second_kill_can_only_hurry(runner: asyncio.Runner, tmp_path: Path) -> None:
    outcome = runner.run(killed(tmp_path, "trap '' TERM; echo > fifo; while :; do sleep 1000; done", 1000, 2000, 0.01))
    assert (outcome.state, outcome.exit_code, outcome.reason) == (AttemptState.KILLED, 137, "enough")


def test_a_stopped_task_can_be_killed_gently(runner: asyncio.Runner, tmp_path: Path) -> None:
    runner.run(killed(tmp_path, "trap 'echo cleaned; exit' TERM; (kill -STOP $$; echo > fifo) & wait; wait", 1000))
    assert (tmp_path / "1.log").read_text() == "cleaned\ndsfast: killed: enough\n"


def test_a_kill_after_the_end_changes_nothing(runner: asyncio.Runner, tmp_path: Path) -> None:
    async def body() -> Outcome:
        execution, outcome = start("shell", make_job("shell", tmp_path, script="exit 0"))
        ended = await asyncio.wait_for(outcome, DEADLINE_SECONDS)
        execution.kill(0, "too late")
        return ended

    assert runner.run(body()).state is AttemptState.SUCCEEDED


# -- what they inherit ------------------------------------------------------------------------------------


def test_a_process_inherits_no_descriptor_no_signal_setting_and_no_terminal(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    leaky = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leaky, True)
    previous = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        status = make_job("shell", tmp_path, task=1, command=["cat", "/proc/self/status"])
        script = "readlink /proc/self/fd/0; cut -d' ' -f5,6 /proc/$$/stat; echo $$; ls /proc/self/fd"
        other = make_job("shell", tmp_path, task=2, script=script)
        for job in (status, other):
            assert runner.run(run("shell", job)).state is AttemptState.SUCCEEDED
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
        signal.signal(signal.SIGUSR1, previous)
        os.close(leaky)
    signals = dict(line.split(":\t") for line in log_text(status).splitlines())
    stdin, group_and_session, pid, *fds = log_text(other).splitlines()
    assert stdin == "/dev/null"
    assert group_and_session == f"{pid} {pid}"
    assert set(fds) <= {"0", "1", "2", "3", "10"}  # 3 is ls's directory, 10 the shell's script
    assert int(signals["SigBlk"], 16) == 0
    assert int(signals["SigIgn"], 16) & (1 << 31) - 1 == 0  # the C library keeps 32 and 33 for itself


def test_the_environment_is_exactly_the_jobs(runner: asyncio.Runner, tmp_path: Path) -> None:
    job = make_job("shell", tmp_path, command=["/usr/bin/env", "-0"], declared={"GREETING": "a\nb=c"})
    os.environ["DSFAST_SECRET_OF_THE_WORKER"] = "x"
    try:
        runner.run(run("shell", job))
    finally:
        del os.environ["DSFAST_SECRET_OF_THE_WORKER"]
    seen = dict(pair.split("=", 1) for pair in log_text(job).split("\0") if pair)
    assert seen == {
        "PATH": os.environ["PATH"],
        "GREETING": "a\nb=c",
        "DSFAST_RUN_ID": run_text(RUN),
        "DSFAST_TASK": "job",
        "DSFAST_ATTEMPT": "1",
        "DSFAST_ATTEMPT_KEY": f"{run_text(RUN)}.1.1",
        "DSFAST_OUTPUT": str(tmp_path / "1.output"),
    }


def test_a_process_starts_in_its_working_directory_and_ours_stays(runner: asyncio.Runner, tmp_path: Path) -> None:
    before = os.getcwd()
    (tmp_path / "a b").mkdir()
    job = make_job("shell", tmp_path, workdir=tmp_path / "a b", command=["pwd"])
    runner.run(run("shell", job))
    assert log_text(job) == f"{tmp_path}/a b\n"
    assert os.getcwd() == before


# -- what cannot be started -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code", "sentence"),
    [
        (["nonesuch"], 127, "there is no program 'nonesuch' in the task's PATH"),
        (["./nonesuch"], 127, "there is no program ./nonesuch"),
        (["./plain"], 126, "./plain may not be executed: it has no execute permission"),
        (["./lost"], 127, "./lost cannot be started: the interpreter in its first line (#!) does not exist"),
        (["./text"], 126, "./text is neither a program nor a script whose first line begins with #!"),
        (["echo", "x" * 200_000], 126, "the arguments and environment of"),
        (["echo", "a\0b"], 126, "a NUL character cannot be passed to a process"),
    ],
)
def test_a_command_that_cannot_be_started_fails_with_a_sentence_that_is_in_the_log_too(
    runner: asyncio.Runner, tmp_path: Path, command: list[str], code: int, sentence: str
) -> None:
    for name, content, mode in (("plain", "", 0o600), ("lost", "#!/nonesuch\n", 0o700), ("text", "hello", 0o700)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(mode)
    job = make_job("shell", tmp_path, command=command)
    outcome = runner.run(run("shell", job))
    assert (outcome.state, outcome.exit_code) == (AttemptState.FAILED, code)
    assert sentence in outcome.reason
    assert log_text(job) == f"dsfast: {outcome.reason}\n"


def test_a_working_directory_that_does_not_exist_fails_the_attempt(runner: asyncio.Runner, tmp_path: Path) -> None:
    job = make_job("shell", tmp_path, script="echo hello", workdir=tmp_path / "nonesuch")
    outcome = runner.run(run("shell", job))
    assert outcome.reason == f"the working directory {tmp_path}/nonesuch does not exist on this worker"
    assert log_text(job) == f"dsfast: {outcome.reason}\n"


def oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def test_the_kernel_ends_a_task_rather_than_its_worker(runner: asyncio.Runner, tmp_path: Path) -> None:
    before = oom_score(os.getpid())
    outcome, said = shell(runner, tmp_path, "(cat /proc/self/oom_score_adj); cat /proc/$$/oom_score_adj")
    assert outcome.state is AttemptState.SUCCEEDED
    assert {int(line) for line in said.split()} == {min(before + SCORE_ADDED, 1000)}
    assert oom_score(os.getpid()) == before


def test_a_worker_keeps_its_place_with_the_kernel_when_a_task_cannot_be_started(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    before = oom_score(os.getpid())
    outcome = runner.run(run("shell", make_job("shell", tmp_path, command=["/nonesuch"])))
    assert outcome.state is AttemptState.FAILED
    assert oom_score(os.getpid()) == before


def test_a_shortage_of_ours_is_not_the_tasks_failure(runner: asyncio.Runner, tmp_path: Path) -> None:
    runner.run(run("shell", make_job("shell", tmp_path, script=":")))  # so that everything is loaded
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def refused() -> None:
        outcomes: list[Outcome] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(StartFailed, match="Too many open files"):
                start("shell", make_job("shell", tmp_path, script=":"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert outcomes == []

    runner.run(refused())
    assert runner.run(run("shell", make_job("shell", tmp_path, script=":"))).state is AttemptState.SUCCEEDED


def test_a_script_that_does_not_fit_on_the_disk_is_not_run_in_part(runner: asyncio.Runner, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def refused() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            with pytest.raises(StartFailed, match=r"cannot write the files of a task: .*File too large"):
                start("shell", make_job("shell", tmp_path, script="touch run\n" * 1000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    runner.run(refused())
    assert not (tmp_path / "run").exists()


def test_a_log_that_cannot_be_written_is_not_the_tasks_failure(runner: asyncio.Runner, tmp_path: Path) -> None:
    async def refused() -> None:
        job = make_job("shell", tmp_path, script="touch run")
        (tmp_path / "1.log").mkdir()
        with pytest.raises(StartFailed, match="cannot write the files of a task"):
            start("shell", job)

    runner.run(refused())
    assert not (tmp_path / "run").exists()


def test_running_out_of_descriptors_while_tasks_run_delays_their_end_and_loses_none(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    async def body() -> Outcome:
        _, outcome = start("shell", make_job("shell", tmp_path, script="sleep 1000 & setsid sleep 1000 & exit 3"))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(outcome), 0.3)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return await asyncio.wait_for(outcome, DEADLINE_SECONDS)

    assert runner.run(body()).exit_code == 3


def test_an_exit_code_that_other_code_has_taken_is_a_failure_not_a_hang(runner: asyncio.Runner, tmp_path: Path) -> None:
    async def body() -> Outcome:
        os.mkfifo(tmp_path / "fifo")
        job = make_job("shell", tmp_path, script="echo $$ > fifo")
        _, outcome = start("shell", job)
        os.waitpid(int((tmp_path / "fifo").read_text()), 0)  # noqa: ASYNC222 - as rude code would
        return await asyncio.wait_for(outcome, DEADLINE_SECONDS)

    assert runner.run(body()).exit_code == 255


# -- that nothing stays -----------------------------------------------------------------------------------


def test_five_hundred_processes_leave_no_descriptor_and_no_zombie(runner: asyncio.Runner, tmp_path: Path) -> None:
    async def wave(width: int) -> None:
        jobs = [make_job("shell", tmp_path, task=number, script="sleep 1000 & :") for number in range(width)]
        await asyncio.gather(*(run("shell", job) for job in jobs))

    def kept() -> tuple[int, list[str]]:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return len(os.listdir("/proc/self/fd")), children

    runner.run(wave(10))
    before = kept()
    for _ in range(10):
        runner.run(wave(25))
    assert kept() == before


def test_children_are_found_without_the_kernels_lists_too() -> None:
    child = subprocess.Popen(["sh", "-c", "sleep 1000 & wait"])
    file = proc.open_children()
    try:
        while not proc.children(child.pid):
            os.sched_yield()
        assert child.pid in proc.children_by_scan(os.getpid())
        assert proc.children_by_scan(child.pid) == proc.children(child.pid)
        assert child.pid in map(int, proc.listed_children(file).split())
        assert child.pid in map(int, proc.listed_children(-1).split())
        assert sorted(proc.children(os.getpid())) == sorted(proc.children_by_scan(os.getpid()))  # of all threads
    finally:
        os.close(file)
        for pid in [*proc.children(child.pid), child.pid]:
            os.kill(pid, signal.SIGKILL)
        child.wait()


def test_all_children_are_listed_however_many_there_are() -> None:
    file = proc.open_children()
    started = {os.posix_spawn("/bin/sleep", ["sleep", "1000"], {}) for _ in range(1000)}  # more than fit in a page
    try:
        assert started <= set(map(int, proc.listed_children(file).split()))
    finally:
        os.close(file)
        for pid in started:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
