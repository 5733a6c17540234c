"""A SHELL task as a process: two files, `sh`, a log, an exit code. And its end by force.

The original wraps the same in `sudo -u tenant` and copies output through a thread; both are left out, to its advantage.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from benchmarks.baseline.tables import State

KILLED = 137  # the exit code that means KILL; a process that a signal ended shows it as a negative number
APPLICATION = re.compile(r"application_\d+_\d+")  # YARN's, looked for in every log


class ShellTask:
    """One process of a task and where it leaves its log."""

    def __init__(self, folder: Path, number: int, script: str) -> None:
        self.folder = folder / f"task-{number}"
        self.log = self.folder / "task.log"
        self._script, self._command = self.folder / "task_node.sh", self.folder / "task.command"
        self._text = script
        self._process: subprocess.Popen[bytes]

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> int:
        """Start it and return the process id."""
        self._script.write_text(self._text)
        self._command.write_text(f"#!/bin/sh\ncd {self.folder}\nsh {self._script}\n")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["sh", str(self._command)], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return self._process.pid

    def wait(self) -> State:
        """Wait for its end; the state that its exit code means."""
        code = self._process.wait()
        if code == 0:
            return State.SUCCESS
        return State.KILL if code in (KILLED, -signal.SIGKILL) else State.FAILURE

    def applications(self) -> list[str]:
        return applications(self.log)


def applications(log: Path) -> list[str]:
    """YARN applications that a log mentions: the whole of it is read."""
    return APPLICATION.findall(log.read_text(errors="replace")) if log.exists() else []


def kill_tree(pid: int, folder: Path) -> None:
    """kill -9 to a process and all its descendants, as the original does with what `pstree -p` prints.

    Here all hosts share one table of processes, so a pid that is not this cluster's (another has it by now) is spared.
    """
    for number in [pid, *descendants(pid)]:
        with suppress(OSError):
            if Path(os.readlink(f"/proc/{number}/cwd")).is_relative_to(folder):
                os.kill(number, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # it has ended
        return []
    return children + [number for child in children for number in descendants(child)]
