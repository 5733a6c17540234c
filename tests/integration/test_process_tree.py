"""Trees of processes that do not want to end, on the loop that workers run on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from dsfast.model import AttemptState
from tests.attempts import DEADLINE_SECONDS, carrying, exists, make_job, read_fifo, start

# Each line of `pids` is a process that tries to survive in its own way; the last one is written when all are there.
WAYS = {
    "in the background": "sleep 1000 & echo $! >> pids",
    "ignoring every signal": "sh -c 'trap \"\" HUP INT QUIT TERM; echo $$ >> pids; while :; do sleep 1000; done' &",
    "with nohup": "nohup sleep 1000 > /dev/null & echo $! >> pids",
    "in its own session": "setsid sleep 1000 & echo $! >> pids",
    "forked twice": "(setsid sh -c '(sleep 1000 & echo $! >> pids)')",
    "without output": "sleep 1000 > /dev/null 2>&1 < /dev/null & echo $! >> pids",
    "in its own group": f"{sys.executable} -c 'import os, signal; os.setpgid(0, 0); "
    'open("pids", "a").write(f"{os.getpid()}\\n"); signal.pause()\' &',
    "stopped": "sh -c 'echo $$ >> pids; kill -STOP $$' &",
    "without our environment": "env -i setsid sleep 1000 & echo $! >> pids",
    "started again whenever it dies": "sh -c 'while :; do sleep 1000; done' & echo $! >> pids",
}
READY = f'until [ "$(wc -l < pids)" = {len(WAYS)} ]; do sleep 0.01; done; echo > fifo'
ALL = "\n".join(WAYS.values())


def pids(root: Path) -> list[int]:
    return [int(line) for line in (root / "pids").read_text().split()]


@pytest.mark.parametrize("grace", [0.0, 0.1])
async def test_no_way_of_staying_survives_a_kill(tmp_path: Path, grace: float) -> None:
    os.mkfifo(tmp_path / "fifo")
    job = make_job("shell", tmp_path, script=f"trap '' TERM\n{ALL}\n{READY}\nwait; wait")
    execution, outcome = start("shell", job)
    await read_fifo(tmp_path / "fifo")
    execution.kill(grace, "enough")
    ended = await asyncio.wait_for(outcome, DEADLINE_SECONDS)
    assert (ended.state, ended.exit_code) == (AttemptState.KILLED, 137)
    assert [pid for pid in pids(tmp_path) if exists(pid)] == []
    assert carrying(1) == []


async def test_no_way_of_staying_survives_the_end_of_the_task(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    _, outcome = start("shell", make_job("shell", tmp_path, script=f"{ALL}\n{READY}\nexit 3"))
    await read_fifo(tmp_path / "fifo")
    ended = await asyncio.wait_for(outcome, DEADLINE_SECONDS)
    assert (ended.state, ended.exit_code) == (AttemptState.FAILED, 3)
    assert [pid for pid in pids(tmp_path) if exists(pid)] == []
    assert carrying(1) == []


async def test_a_main_process_killed_by_someone_else_takes_its_tree_along(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    script = f"{ALL}\n{READY}\nwait; wait"
    job = make_job("shell", tmp_path, script=f"echo $$ > main; {script}")
    _, outcome = start("shell", job)
    await read_fifo(tmp_path / "fifo")
    os.kill(int((tmp_path / "main").read_text()), signal.SIGKILL)
    ended = await asyncio.wait_for(outcome, DEADLINE_SECONDS)
    assert (ended.state, ended.exit_code, ended.reason) == (AttemptState.FAILED, 137, "killed by SIGKILL")
    assert [pid for pid in pids(tmp_path) if exists(pid)] == []


async def test_a_tree_that_keeps_forking_is_ended(tmp_path: Path) -> None:
    program = """
import os, sys
def grow(depth):
    os.setsid() if depth % 2 else None
    while True:
        child = os.fork()
        if child == 0 and depth < 4:
            grow(depth + 1)
        if child == 0:
            if depth == 4 and os.path.exists("fifo"):
                try: os.close(os.open("fifo", os.O_WRONLY | os.O_NONBLOCK))
                except OSError: pass
            os._exit(0)
        if depth: os.wait()
        else:
            for _ in range(2): os.wait() if os.fork() else grow(1)
grow(0)
"""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "grow.py").write_text(program)
    execution, outcome = start("shell", make_job("shell", tmp_path, script=f"ulimit -u 4000; {sys.executable} grow.py"))
    await read_fifo(tmp_path / "fifo")
    execution.kill(0, "enough")
    ended = await asyncio.wait_for(outcome, DEADLINE_SECONDS)
    assert ended.state is AttemptState.KILLED
    assert carrying(1) == []


async def test_a_neighbour_of_a_killed_task_is_not_touched(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    script = "setsid sleep 1000 & echo $! > neighbour; echo > fifo; wait"
    neighbour, neighbour_ends = start("shell", make_job("shell", tmp_path, task=2, script=script))
    await read_fifo(tmp_path / "fifo")
    victim, victim_ends = start("shell", make_job("shell", tmp_path, task=1, script="setsid sleep 1000 & sleep 1000"))
    victim.kill(0, "")
    await asyncio.wait_for(victim_ends, DEADLINE_SECONDS)
    assert exists(int((tmp_path / "neighbour").read_text()))
    assert not neighbour_ends.done()
    neighbour.kill(0, "")
    await asyncio.wait_for(neighbour_ends, DEADLINE_SECONDS)
