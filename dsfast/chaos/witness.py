"""What tasks themselves say: a line at their start and end, and a lock of the kernel's while any of them lives.

The lock is on a file of the task's own, held by a descriptor that everything the task starts inherits: so it is free
only when the last of its processes is gone, and a second attempt that finds it taken has been started too early. That
one says "overlap", and no clock is involved. Lines are appended to one file by one write each.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dsfast.ids import run_number
from dsfast.tasks.environment import KEY

SCRIPT = r"""
key=$DSFAST_ATTEMPT_KEY
say() { read -r up _ </proc/uptime; printf '%s %s %s %s %s %s\n' "$1" "$key" "$$" "$up" "$EPOCHREALTIME" "$2" \
  >>"$CHAOS/witness"; }
exec 9>>"$CHAOS/locks/${key%.*}"
flock -n 9 || say overlap 0
say start 0
trap 'say end $?' EXIT
# The first attempt that gets here fails, the others go on.
fail_once() { [ -e "$CHAOS/locks/${key%.*}.failed" ] || { : >"$CHAOS/locks/${key%.*}.failed"; exit 1; }; }
"""

Attempt = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Sighting:
    """One line: `what` is start, end or overlap; `up` counts from the machine's start, `at` is the time of day."""

    what: str
    key: Attempt
    pid: int
    up: float
    at: float
    code: int


class Witness:
    """The folder in which tasks leave their lines and locks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lines = folder / "witness"
        (folder / "locks").mkdir(parents=True)
        (folder / "witness.sh").write_text(SCRIPT)

    def script(self, body: str) -> str:
        """A task's script with the witness before it, for bash."""
        return f'. "$CHAOS/witness.sh"\n{body}\n'

    @property
    def environ(self) -> dict[str, str]:
        """What tasks need in their environment."""
        return {"CHAOS": str(self.folder)}

    def sightings(self) -> Iterator[Sighting]:
        """Every whole line, in the order in which they were written."""
        if self._lines.exists():
            for line in self._lines.read_text().splitlines():
                words = line.split()
                if len(words) == 6:  # a machine whose disk is full writes parts of lines
                    what, key, pid, up, at, code = words
                    yield Sighting(what, attempt_of(key), int(pid), float(up), float(at.replace(",", ".")), int(code))


def attempt_of(key: str) -> Attempt:
    """The attempt behind the mark in its processes' environment."""
    run, task, attempt = key.split(".")
    return run_number(run), int(task), int(attempt)


def marked_processes(folder: Path) -> list[tuple[int, str]]:
    """(pid, attempt) of living processes that carry an attempt's mark and this witness's folder."""
    mine, mark = f"CHAOS={folder}".encode(), f"{KEY}=".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            variables = _environ(name)
            keys = [each for each in variables if each.startswith(mark)]
            if keys and mine in variables:
                found.append((int(name), keys[0].decode().partition("=")[2]))
    return found


def _environ(pid: str) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
