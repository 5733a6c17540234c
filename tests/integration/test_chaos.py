"""`dsfast chaos` on real processes: a short one is judged clean, an interrupted one is cleared up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsfast.chaos.cluster import clean_environ
from dsfast.chaos.judge import FINDING_KINDS
from dsfast.chaos.stage import processes_of
from tests.integration.local_cluster import read_until

FAULTS = "worker-kill,worker-restart,master-kill,master-restart,master-pause,api-kill,store-connections"
SIZE = ("--masters", "2", "--workers", "3", "--registry", "database", "--lease", "2")


@pytest.fixture
def chaos(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A chaos that has begun."""
    options = ("--minutes", "0.12", "--seed", "11", "--every", "0.5-1", "--faults", FAULTS, *SIZE)
    files = ("--folder", f"{tmp_path}/kept", "--keep", "--json", f"{tmp_path}/result.json")
    with subprocess.Popen(
        [sys.executable, "-m", "dsfast", "chaos", *options, *files],
        env=clean_environ(tmp_path),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        yield process
        process.terminate()


def left_of(process: subprocess.Popen[str], folder: Path) -> list[str]:
    """Daemons and namespaces of this chaos."""
    spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
    found = [line for line in spaces.splitlines() if line.startswith(f"dsfast-{process.pid}-")]
    return found + [str(pid) for pid in processes_of(folder / "kept")]


def test_a_short_chaos_loses_and_doubles_nothing(chaos: subprocess.Popen[str], tmp_path: Path) -> None:
    said, _ = chaos.communicate()
    assert chaos.returncode == 0, said
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["findings"] == []
    assert result["runs"] > 0
    assert result["started"] >= result["tasks"] > 0
    assert sum(result["faults"].values()) >= 4
    assert all(f"{kind}" in said for kind in FINDING_KINDS)
    assert left_of(chaos, tmp_path) == []


def test_an_interrupted_chaos_clears_up(chaos: subprocess.Popen[str], tmp_path: Path) -> None:
    read_until(chaos, "master-kill")
    os.kill(chaos.pid, signal.SIGINT)
    chaos.communicate()
    assert chaos.returncode == 130
    assert left_of(chaos, tmp_path) == []
