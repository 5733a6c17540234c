"""Tasks that bear witness of themselves: whether two ran at once is seen by the kernel, not by us.

Each attempt holds a lock of its task for as long as anything of it lives, and appends lines to one file.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from dsfast.model import Task
from tests.workflows import shell

# Opened for appending a line at a time, so lines of many processes never mix. The lock ends with its last holder.
SCRIPT = """
exec 9>>{folder}/$DSFAST_RUN_ID.$DSFAST_TASK.lock
flock -n 9 || echo "overlap $DSFAST_RUN_ID $DSFAST_TASK $DSFAST_ATTEMPT" >> {folder}/witness
echo "start $DSFAST_RUN_ID $DSFAST_TASK $DSFAST_ATTEMPT" >> {folder}/witness
until [ -e {gate} ]; do sleep 0.05; done
echo "end $DSFAST_RUN_ID $DSFAST_TASK $DSFAST_ATTEMPT" >> {folder}/witness
"""


class Witness:
    """The file, and the gates at which tasks wait."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "witness").touch()

    def task(self, name: str, gate: str, **traits: object) -> Task:
        """A task that runs until this gate is opened."""
        return shell(name, SCRIPT.format(folder=self._folder, gate=self._folder / gate), **traits)

    def open(self, gate: str) -> None:
        """Let tasks that wait at this gate end."""
        (self._folder / gate).touch()

    def lines(self, run: str = "") -> Counter[str]:
        """What was witnessed of a run, or of all: how many lines of each kind."""
        lines = (self._folder / "witness").read_text().splitlines()
        return Counter(line.split()[0] for line in lines if run in line)
