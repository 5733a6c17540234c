"""What is told and kept when a promise was broken: all that was seen, and the tale of the task concerned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from dsfast.chaos.cluster import Cluster
from dsfast.chaos.judge import Evidence, Verdict
from dsfast.ids import run_text
from dsfast.proof.history import Event, write

LINES_TOLD = 60  # of the events of a task, and of log lines that name its run
SECONDS_AROUND = 15.0  # of faults before the first and after the last event of the task


def keep_evidence(seen: Evidence, folder: Path) -> None:
    """Write the history, for `python -m dsfast.proof --unseen-ends`, and the faults beside it."""
    with (folder / "history.jsonl").open("wb") as file:
        file.writelines(write(seen.history()))
    lives = [] if seen.vitals is None else list(seen.vitals.lives.values())
    (folder / "vitals.jsonl").write_bytes(b"".join(msgspec.json.encode(life) + b"\n" for life in lives))
    (folder / "faults.jsonl").write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in seen.strikes))


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
    told = [(each.at, _line(each)) for each in seen.history() if _concerns(each, run, task)]
    if told:
        first, last = told[0][0] - SECONDS_AROUND, told[-1][0] + SECONDS_AROUND
        told += [(at, f"fault {kind} {' '.join(who)}") for at, kind, who in seen.strikes if first <= at <= last]
    return (f"{at:.3f}  {line}" for at, line in sorted(told))


def _concerns(event: Event, run: int, task: int | None) -> bool:
    return event.run == run and event.kind != "plan" and (task is None or event.task in (None, task))


def _line(event: Event) -> str:
    """An event on one line, without what it does not say."""
    said = [event.node, event.kind]
    for name in ("task", "attempt", "state", "owner", "epoch", "worker", "value", "key", "detail"):
        value = getattr(event, name)
        said += [] if value in (None, "") else [f"{name}={value}"]
    return " ".join(said)


def _log_lines(folder: Path, run: int) -> Iterator[str]:
    """Lines of daemons' logs that name the run."""
    for log in sorted(folder.glob("*.log")):
        for line in log.read_text(errors="replace").splitlines():
            if run_text(run) in line or str(run) in line:
                yield f"{log.name}: {line}"
