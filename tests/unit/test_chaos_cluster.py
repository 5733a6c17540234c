"""Which processes a daemon consists of: chaos must hit the one that it means."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from dsfast.chaos.cluster import CHAIN_MAX, guarded_pids

DEPTH = CHAIN_MAX + 1  # a process more than a worker has: one that is about to become a task
CHAIN = f"""
import os, signal
for _ in range({DEPTH - 1}):
    if os.fork():
        break
os.write(1, b"%d\\n" % os.getpid())
signal.pause()
"""


def test_a_child_that_is_about_to_become_a_task_is_not_the_worker() -> None:
    """Until it calls exec it looks just like its parent."""
    command = [sys.executable, "-c", CHAIN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as outer:
        assert outer.stdout is not None
        try:
            chain = sorted(int(outer.stdout.readline()) for _ in range(DEPTH))
            assert set(guarded_pids(outer.pid)) < set(chain)
            assert len(guarded_pids(outer.pid)) == CHAIN_MAX
        finally:
            os.killpg(outer.pid, signal.SIGKILL)
