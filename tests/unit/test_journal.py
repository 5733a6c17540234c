"""The journal of results: what a worker that was killed still has to say."""

from __future__ import annotations

import logging
import os
import resource
import signal
import stat
from pathlib import Path

import pytest

from dsfast.engine.effects import Kept
from dsfast.model import AttemptState, Outcome
from dsfast.runtime import journal as journals
from dsfast.runtime.journal import Journal
from dsfast.wire.commands import Attempt, Result

LOG = logging.getLogger("test")


def entry(task: int, outputs: bytes = b"") -> Kept:
    return 7, Result(1, task, 1, Outcome(AttemptState.SUCCEEDED, 0, outputs=outputs), "w@1")


def read(path: Path) -> list[Attempt]:
    """What the next life finds."""
    journal = Journal(path, LOG)
    journal.close()
    return list(journal.waiting)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results"


def test_results_outlive_the_process_until_they_are_acknowledged(path: Path) -> None:
    child = os.fork()
    if child == 0:
        journal = Journal(path, LOG)
        journal.write([entry(1), entry(2)], [])
        journal.write([entry(3)], [(1, 1, 1)])
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    journal = Journal(path, LOG)
    assert list(journal.waiting.values()) == [entry(2), entry(3)]
    journal.close()


def test_nobody_else_can_read_it(path: Path) -> None:
    Journal(path, LOG).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("lost", range(1, 40))
def test_a_torn_end_costs_its_own_turn_only(path: Path, lost: int) -> None:
    journal = Journal(path, LOG)
    journal.write([entry(1)], [])
    journal.write([entry(2)], [])
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    expected = [(1, 1, 1)] if lost < len(whole) // 2 else []
    assert read(path) == expected
    assert read(path) == expected  # and what is appended later stands behind what could be read


def test_a_damaged_turn_ends_what_is_believed(path: Path) -> None:
    journal = Journal(path, LOG)
    journal.write([entry(1)], [])
    journal.write([entry(2)], [])
    journal.close()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert read(path) == [(1, 1, 1)]


def test_an_empty_journal_does_not_stay_large(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "EMPTY_BYTES", 100)
    journal = Journal(path, LOG)
    journal.write([entry(1, b"x" * 200)], [])
    journal.write([], [(1, 1, 1)])
    assert path.stat().st_size == 0
    journal.write([entry(2)], [])
    journal.close()
    assert read(path) == [(1, 2, 1)]


def test_outdated_turns_are_left_out_when_it_has_grown(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "REWRITE_BYTES", 10_000)
    journal = Journal(path, LOG)
    journal.write([entry(0)], [])
    for task in range(1, 200):
        journal.write([entry(task, b"x" * 500)], [(1, task - 1, 1)] if task > 1 else [])
    assert path.stat().st_size < 30_000
    journal.close()
    assert read(path) == [(1, 0, 1), (1, 199, 1)]


def test_a_full_disk_stops_the_journal_and_not_the_worker(path: Path) -> None:
    """The kernel takes part of a frame, then nothing: as with a disk that is full."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        journal = Journal(path, LOG)
        journal.write([entry(1)], [])
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, resource.RLIM_INFINITY))
        journal.write([entry(2)], [])
        journal.write([entry(3)], [])
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        journal.write([entry(4)], [])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert read(path) == [(1, 1, 1), (1, 4, 1)]


def test_it_has_an_upper_bound(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "BYTES_MAX", 1000)
    journal = Journal(path, LOG)
    for task in range(100):
        journal.write([entry(task)], [])
    assert path.stat().st_size <= 1000
    journal.close()
