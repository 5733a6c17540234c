"""A worker's home: one life holds it, and ends what former lives have left."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsfast.config import Config, load_config
from dsfast.errors import UsageError
from dsfast.runtime import home as homes
from dsfast.runtime.home import claim_home
from dsfast.tasks import proc
from tests.attempts import exists

# A process that the mark leads to, and one below it that has shed mark and session; both say when they are there.
TREE = "env -i setsid sh -c 'echo $$; exec sleep 1000' & echo $$; wait"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(flags={"worker.name": "w", "worker.work_dir": str(tmp_path / "work")}, environ={})


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes started by a test, ended with it."""
    made: list[subprocess.Popen[str]] = []
    yield made
    for process in made:
        process.kill()
        process.communicate()


def start(made: list[subprocess.Popen[str]], mark: str, script: str = TREE) -> list[int]:
    """The processes of a script whose environment carries this mark, in a session of their own."""
    environ = {**os.environ, "DSFAST_WORKER": mark}
    process = subprocess.Popen(["sh", "-c", script], env=environ, stdout=-1, text=True, start_new_session=True)
    made.append(process)
    assert process.stdout is not None
    return [int(process.stdout.readline()) for _ in range(2)]


def running(pid: int) -> bool:
    seen = proc.stat(pid)
    return exists(pid) and seen is not None and seen.state != "Z"


def test_what_a_former_life_has_left_ends_with_everything_below_it(
    config: Config, started: list[subprocess.Popen[str]]
) -> None:
    former = claim_home(config)
    left = start(started, former.mark)
    former.close()
    home = claim_home(config)
    assert home.mark == former.mark
    assert home.sweep() == 1
    assert not any(map(running, left))
    home.close()


def test_processes_of_another_worker_are_not_touched(config: Config, started: list[subprocess.Popen[str]]) -> None:
    home = claim_home(config)
    others = start(started, home.mark[:-1] + "x")
    assert home.sweep() == 0
    assert all(map(running, others))
    proc.end(others, f"DSFAST_WORKER={home.mark}".encode(), 0.0)  # numbers alone are no reason to kill anybody
    assert all(map(running, others))
    home.close()
    os.kill(others[1], signal.SIGKILL)
    os.kill(others[0], signal.SIGKILL)


def test_private_directories_of_a_former_life_are_removed(config: Config) -> None:
    home = claim_home(config)
    (home.attempts / "1.1.1").mkdir(parents=True)
    home.sweep()
    assert not home.attempts.exists()
    home.close()


def test_two_lives_do_not_hold_one_home(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homes, "CLAIM_SECONDS", 0.0)
    home = claim_home(config)
    with pytest.raises(UsageError, match="another worker uses"):
        claim_home(config)
    home.close()
    claim_home(config).close()


def test_a_damaged_mark_is_made_anew(config: Config) -> None:
    claim_home(config).close()
    (config.worker.work_dir / "w" / "lock").write_bytes(b"\0\0\0")
    home = claim_home(config)
    assert len(home.mark) == 2 * homes.MARK_BYTES
    home.close()
