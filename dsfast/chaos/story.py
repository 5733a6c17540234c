"""What is told and kept when a promise was broken: all that was seen, and the tale of the task concerned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from dsfast.chaos.cluster import Cluster
from dsfast.chaos.journal import Note
from dsfast.chaos.judge import Evidence, Verdict
from dsfast.ids import run_text
from dsfast.model import AttemptState, RunState

LINES_TOLD = 60  # of the events of a task, and of log lines that name its run
SECONDS_AROUND = 15.0  # of faults before the first and after the last event of the task


def keep_evidence(seen: Evidence, folder: Path) -> None:
    """Write what the database and the client said beside what tasks and daemons wrote."""
    _write(folder / "notes.jsonl", seen.notes)
    _write(folder / "promises.jsonl", seen.promises)
    _write(folder / "strikes.jsonl", seen.strikes)


def _write(path: Path, items: object) -> None:
    assert isinstance(items, (list, tuple))
    path.write_bytes(b"".join(msgspec.json.encode(item) + b"\n" for item in items))


def tell(verdict: Verdict, seen: Evidence, cluster: Cluster) -> str:
    """The tale of the first finding that concerns a run; empty if nothing was found."""
    for finding in verdict.findings:
        if finding.run is not None:
            lines = list(_events(seen, finding.run, finding.task))
            logs = list(_log_lines(cluster.folder, finding.run))
            return "\n".join([*lines[-LINES_TOLD:], *logs[-LINES_TOLD:]])
    return ""


def _events(seen: Evidence, run: int, task: int | None) -> Iterator[str]:
    """What concerns this task, and the faults about that time, in order of time."""
    told = [(note.at, f"database  {_note(note)}") for note in seen.notes if _concerns(note, run, task)]
    for each in seen.sightings:
        if each.key[0] == run and task in (None, each.key[1]):
            told += [(each.at, f"task      {each.what} {each.key[1:]} pid {each.pid} code {each.code}")]
    if told:
        first, last = min(told)[0] - SECONDS_AROUND, max(told)[0] + SECONDS_AROUND
        told += [(at, f"fault     {kind} {' '.join(who)}") for at, kind, who in seen.strikes if first <= at <= last]
    return (f"{at:.3f}  {line}" for at, line in sorted(told))


def _concerns(note: Note, run: int, task: int | None) -> bool:
    return note.run_id == run and (task is None or note.task in (None, task))


def _note(note: Note) -> str:
    if note.what == "run":
        return f"run {RunState(note.state).name} of {note.holder} in epoch {note.epoch} {note.reason}"
    state = AttemptState(note.state).name
    return f"task {note.task} attempt {note.attempt} {state} on {note.holder} in epoch {note.epoch} {note.reason}"


def _log_lines(folder: Path, run: int) -> Iterator[str]:
    """Lines of daemons' logs that name the run."""
    for log in sorted(folder.glob("*.log")):
        for line in log.read_text(errors="replace").splitlines():
            if run_text(run) in line or str(run) in line:
                yield f"{log.name}: {line}"
