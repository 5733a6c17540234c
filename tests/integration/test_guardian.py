"""The guardian: when a worker dies, its tasks die with it, and only then does its port refuse."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dsfast.runtime.guardian import LOOK_SECONDS
from dsfast.tasks import proc
from tests.attempts import DEADLINE_SECONDS, read_fifo, until

ROOT = Path(__file__).parents[2]
TREE = """
sleep 1000 & echo $! >> pids
setsid sh -c 'trap "" TERM; echo $$ >> pids; sleep 1000 & echo $! >> pids; wait' &
setsid sh -c '(env -i setsid sleep 1000 & echo $! >> pids)'
echo $$ >> pids
until [ "$(wc -l < pids)" = 5 ]; do sleep 0.01; done
echo > fifo
wait
"""


@dataclass
class Guarded:
    """A worker under its two guardians."""

    process: subprocess.Popen[str]
    port: int
    daemon: int
    guardian: int  # the inner one
    outer: int

    def refuses(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_SECONDS).close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:  # it closed between our two packets: the next one is refused
            return False
        return False

    def kill(self, *names: str) -> None:
        """Kill these of its processes, one right after the other."""
        for pid in [getattr(self, name) for name in names]:
            os.kill(pid, signal.SIGKILL)

    def stopped(self, pid: int) -> bool:
        seen = proc.stat(pid)
        return seen is not None and seen.state == "T"


def alive(pid: int) -> bool:
    """Whether the process can still do anything; zombies wait for a parent that is not under test."""
    seen = proc.stat(pid)
    return seen is not None and seen.state not in "ZX"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Guarded]]:
    """Everything started by `start_guarded`, ended with the test."""
    made: list[Guarded] = []
    yield made
    for guarded in made:
        for pid in (guarded.daemon, guarded.guardian, guarded.outer):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        guarded.process.wait(DEADLINE_SECONDS)
        assert guarded.process.stdout is not None
        guarded.process.stdout.close()


def start_guarded(root: Path, made: list[Guarded], script: str) -> Guarded:
    command = [sys.executable, "-m", "tests.integration.guarded", str(root), script]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    guarded = Guarded(process, **json.loads(process.stdout.readline()))
    made.append(guarded)
    return guarded


async def with_tree(root: Path, made: list[Guarded]) -> tuple[Guarded, list[int]]:
    """A worker whose task has processes in three sessions, and their ids."""
    os.mkfifo(root / "fifo")
    guarded = start_guarded(root, made, TREE)
    await read_fifo(root / "fifo")
    pids = [int(line) for line in (root / "pids").read_text().split()]
    assert all(map(alive, pids))
    return guarded, pids


async def test_the_port_of_a_killed_worker_refuses_when_the_last_of_its_tasks_is_dead(
    tmp_path: Path, started: list[Guarded]
) -> None:
    guarded, pids = await with_tree(tmp_path, started)
    os.kill(guarded.daemon, signal.SIGKILL)
    await until(guarded.refuses)
    assert [pid for pid in pids if alive(pid)] == []
    assert guarded.process.wait(DEADLINE_SECONDS) == 128 + signal.SIGKILL


async def test_the_port_is_held_for_as_long_as_a_task_of_a_dead_worker_lives(
    tmp_path: Path, started: list[Guarded]
) -> None:
    guarded, pids = await with_tree(tmp_path, started)
    os.kill(guarded.guardian, signal.SIGSTOP)
    await until(lambda: guarded.stopped(guarded.guardian))
    os.kill(guarded.daemon, signal.SIGKILL)
    await until(lambda: not alive(guarded.daemon))
    assert not guarded.refuses()
    assert all(map(alive, pids))
    os.kill(guarded.guardian, signal.SIGCONT)
    await until(guarded.refuses)
    assert not any(map(alive, pids))


async def test_a_worker_that_leaves_by_itself_is_cleaned_up_after_as_well(
    tmp_path: Path, started: list[Guarded]
) -> None:
    guarded, pids = await with_tree(tmp_path, started)
    os.kill(guarded.guardian, signal.SIGTERM)
    assert guarded.process.wait(DEADLINE_SECONDS) == 7
    assert guarded.refuses()
    assert not any(map(alive, pids))


def test_a_signal_sent_to_the_guardian_reaches_the_worker_once(tmp_path: Path, started: list[Guarded]) -> None:
    guarded = start_guarded(tmp_path, started, ":")
    os.kill(guarded.guardian, signal.SIGINT)
    assert guarded.process.stdout is not None
    assert guarded.process.stdout.readline() == "INT\n"
    os.kill(guarded.guardian, signal.SIGTERM)
    assert guarded.process.stdout.read() == ""


async def test_guardians_that_were_stopped_for_a_while_go_on(tmp_path: Path, started: list[Guarded]) -> None:
    guarded, pids = await with_tree(tmp_path, started)
    guardians = (guarded.outer, guarded.guardian)
    for pid in guardians:
        os.kill(pid, signal.SIGSTOP)
        await until(lambda pid=pid: guarded.stopped(pid))
    await asyncio.sleep(2 * LOOK_SECONDS)  # this is the fault: whatever they waited for is over when they go on
    for pid in guardians:
        os.kill(pid, signal.SIGCONT)
    os.kill(guarded.guardian, signal.SIGINT)
    assert guarded.process.stdout is not None
    assert await asyncio.to_thread(guarded.process.stdout.readline) == "INT\n"
    assert all(map(alive, [*guardians, *pids]))


def test_ctrl_c_in_a_terminal_reaches_the_worker_once(tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "tests.integration.guarded", str(tmp_path), ":"])
    with os.fdopen(terminal, "rb+", buffering=0) as file:
        assert read_line(file.fileno()).startswith(b'{"port"')
        file.write(b"\x03")
        said = read_line(file.fileno())
        os.kill(pid, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        said += drained(file.fileno())
    assert said.replace(b"^C", b"").split() == [b"INT"]


@pytest.mark.parametrize("victims", [("guardian",), ("daemon", "guardian"), ("daemon", "outer")])
async def test_nothing_survives_whoever_is_killed_and_the_port_refuses_last(
    tmp_path: Path, started: list[Guarded], victims: tuple[str, ...]
) -> None:
    guarded, pids = await with_tree(tmp_path, started)
    guarded.kill(*victims)
    await until(guarded.refuses)
    assert [pid for pid in [guarded.daemon, *pids] if alive(pid)] == []


async def test_a_worker_whose_outer_guardian_is_killed_is_told_to_end(tmp_path: Path, started: list[Guarded]) -> None:
    guarded, pids = await with_tree(tmp_path, started)
    os.kill(guarded.outer, signal.SIGKILL)
    await until(guarded.refuses)
    assert [pid for pid in [guarded.daemon, *pids] if alive(pid)] == []


async def test_a_worker_that_loses_both_guardians_is_told_to_end(tmp_path: Path, started: list[Guarded]) -> None:
    guarded = start_guarded(tmp_path, started, ":")
    guarded.kill("outer", "guardian")
    await until(lambda: not alive(guarded.daemon))


def test_a_guardian_needs_nothing_heavy() -> None:
    program = (
        "import sys, dsfast.runtime.guardian\n"
        "print(sorted({'asyncio', 'uvloop', 'socket', 'logging', 'msgspec', 'subprocess'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert said.stdout == "[]\n"


def read_line(fd: int) -> bytes:
    """A terminal's output up to the next end of a line."""
    said = b""
    while not said.endswith(b"\n"):
        said += os.read(fd, 1)
    return said


def drained(fd: int) -> bytes:
    """The rest of a terminal's output, whose end is an error."""
    said = b""
    while True:
        try:
            said += os.read(fd, 4096)
        except OSError:
            return said
