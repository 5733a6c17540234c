"""Run the benchmarks, and write what they tell as one HTML page and one JSON file."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.report.collect import ROOT, Report, sections
from benchmarks.report.page import page
from dsfast.bench.figures import machine

LIBRARIES = ("msgspec", "uvloop", "SQLAlchemy", "asyncpg", "kazoo")
SHORT_FILES = ("queue", "frame", "dag", "latency", "throughput", "traces", "scale", "noop")
SHORT_SIZES = {"HOPS": 200, "BACKGROUND": 20_000, "SUBMITS": 20, "SINGLES": 200, "HUGE": 50_000, "TASKS_MAX": 10_000}
SHORT_SIZES |= {"RUNS_MAX": 1_000, "EMBEDDED_MAX": 20_000}


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    options.add_argument("--short", action="store_true", help="some of them, and smaller: about two minutes")
    options.add_argument("--html", type=Path, default=Path("benchmarks.html"), metavar="FILE")
    options.add_argument("--json", type=Path, default=Path("benchmarks.json"), metavar="FILE")
    asked, rest = options.parse_known_args()
    began, here = time.monotonic(), machine()
    taken, failed = run(asked.short, rest)
    if taken is None:
        print("no benchmark has told anything; see above", file=sys.stderr)
        return 1
    report = Report(
        format=1,
        taken_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        seconds=round(time.monotonic() - began, 1),
        short=asked.short,
        commit=commit_of(taken),
        machine=here,
        load_after=round(os.getloadavg()[0], 2),
        versions={name: version(name) for name in LIBRARIES},
        failed=failed,
        sections=sections(taken["benchmarks"]),
    )
    asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    asked.html.write_text(page(report))
    print(f"{asked.html} and {asked.json}: {sum(len(each.figures) for each in report.sections)} figures")
    return 1 if failed else 0


def run(short: bool, rest: list[str]) -> tuple[dict[str, Any] | None, list[str]]:
    """What pytest-benchmark has written, and which benchmarks failed. Further options are pytest's."""
    sizes = {f"DSFAST_BENCH_{name}": str(value) for name, value in SHORT_SIZES.items()} if short else {}
    files = [f"benchmarks/bench_{name}.py" for name in SHORT_FILES] if short else ["benchmarks"]
    with tempfile.TemporaryDirectory() as folder:
        written, failures = Path(folder) / "benchmarks.json", Path(folder) / "failures.txt"
        own = ["--benchmark-only", f"--benchmark-json={written}", "-q", "-rf"]
        chosen = [] if any(Path(each.partition("::")[0]).exists() for each in rest) else files
        command = [sys.executable, "-m", "pytest", *chosen, *own, *rest]
        with failures.open("w+") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=sizes | os.environ, stdout=subprocess.PIPE, text=True, bufsize=1
            )
            assert process.stdout is not None
            for line in process.stdout:
                sys.stdout.write(line)
                output.write(line)
            process.wait()
            output.seek(0)
            failed = [line.split()[1] for line in output if line.startswith(("FAILED ", "ERROR "))]
        found = json.loads(written.read_text()) if written.exists() and written.stat().st_size else None
    return found, failed


def commit_of(taken: dict[str, Any]) -> str:
    """The commit that was measured, and whether the tree was as committed."""
    commit = taken.get("commit_info", {})
    text = str(commit.get("id", "unknown"))[:12]
    return f"commit {text}{', changed' if commit.get('dirty') else ''}"


if __name__ == "__main__":
    sys.exit(main())
