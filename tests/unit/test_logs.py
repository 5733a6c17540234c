"""Logs are found by attempt and by nothing else, and read in bounded pieces."""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsfast.errors import NotFound, Unavailable
from dsfast.ids import run_text
from dsfast.runtime.logs import LOG_CHUNK_BYTES_MAX, LogDir

KEY = (1 << 50, 7, 2)


@pytest.fixture
def logs(tmp_path: Path) -> LogDir:
    return LogDir(tmp_path / "state" / "logs")


def put(logs: LogDir, data: bytes) -> Path:
    path = Path(logs.create(KEY))
    path.write_bytes(data)
    return path


def test_a_log_lies_under_its_run_and_is_closed_to_others(logs: LogDir) -> None:
    path = Path(logs.create(KEY))
    assert path == Path(logs.root, run_text(KEY[0]), "7.2.log")
    assert logs.create(KEY) == str(path)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700


@given(key=st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 10**6), st.integers(1, 10**6)))
def test_every_path_stays_within_the_root(tmp_path_factory: pytest.TempPathFactory, key: tuple[int, int, int]) -> None:
    logs = LogDir(tmp_path_factory.getbasetemp())
    assert Path(logs.path(key)).resolve().is_relative_to(logs.root)


@pytest.mark.parametrize("key", [("../x", 1, 1), (1, "../1", 1), (1, 1, "/etc/passwd")])
def test_nothing_but_numbers_makes_a_path(logs: LogDir, key: tuple[int, int, int]) -> None:
    with pytest.raises((TypeError, ValueError)):
        logs.path(key)


@pytest.mark.parametrize(
    ("offset", "limit", "expected"),
    [
        (0, 4, (0, b"0123", 10)),
        (4, 100, (4, b"456789", 10)),
        (-3, 100, (7, b"789", 10)),
        (-100, 2, (0, b"01", 10)),
        (10, 5, (10, b"", 10)),
        (99, 5, (10, b"", 10)),
        (0, 0, (0, b"", 10)),
        (0, -1, (0, b"", 10)),
    ],
)
def test_reading(logs: LogDir, offset: int, limit: int, expected: tuple[int, bytes, int]) -> None:
    put(logs, b"0123456789")
    assert logs.read(KEY, offset, limit) == expected


def test_an_empty_log_can_be_read(logs: LogDir) -> None:
    put(logs, b"")
    assert logs.read(KEY, 0, 10) == (0, b"", 0)
    assert logs.read(KEY, -10, 10) == (0, b"", 0)
    assert logs.tail_lines(KEY, 5) == []


def test_one_read_is_bounded(logs: LogDir) -> None:
    put(logs, b"x" * (LOG_CHUNK_BYTES_MAX + 1))
    _, data, size = logs.read(KEY, 0, 1 << 40)
    assert (len(data), size) == (LOG_CHUNK_BYTES_MAX, LOG_CHUNK_BYTES_MAX + 1)


@given(data=st.binary(max_size=200), limit=st.integers(1, 50), start=st.integers(-250, 250))
def test_reading_on_gives_everything_from_the_start(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, limit: int, start: int
) -> None:
    logs = LogDir(tmp_path_factory.mktemp("logs"))
    put(logs, data)
    offset, seen, size = logs.read(KEY, start, limit)
    while offset + len(seen) < size:
        _, more, size = logs.read(KEY, offset + len(seen), limit)
        seen += more
    assert seen == (data[start:] if start >= 0 or -start <= len(data) else data)


def test_a_hole_is_skipped(logs: LogDir) -> None:
    path = put(logs, b"head")
    with path.open("r+b") as file:
        file.truncate(1 << 20)
        file.seek(0, 2)
        file.write(b"tail")
    offset, data, size = logs.read(KEY, 500_000, 100)
    assert (offset, data, size) == (1 << 20, b"tail", (1 << 20) + 4)


def test_the_last_lines(logs: LogDir) -> None:
    put(logs, b"one\ntwo\n\xff three\nfour")
    assert logs.tail_lines(KEY, 2) == ["\ufffd three", "four"]
    assert logs.tail_lines(KEY, 99) == ["one", "two", "\ufffd three", "four"]
    assert logs.tail_lines(KEY, 0) == []


def test_a_log_that_is_not_there_is_not_found(logs: LogDir) -> None:
    with pytest.raises(NotFound, match=f"there is no log of attempt 2 of task 7 of run {run_text(KEY[0])}"):
        logs.read(KEY, 0, 10)
    logs.create(KEY)
    with pytest.raises(NotFound):
        logs.tail_lines(KEY, 10)


@pytest.mark.parametrize("what", ["link to a file", "link to a directory", "directory", "fifo"])
def test_only_a_plain_file_in_a_plain_directory_is_read(logs: LogDir, tmp_path: Path, what: str) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "7.2.log").write_text("secret")
    path = Path(logs.create(KEY))
    if what == "link to a file":
        path.symlink_to(secret / "7.2.log")
    elif what == "link to a directory":
        path.parent.rmdir()
        path.parent.symlink_to(secret)
    elif what == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(NotFound):
        logs.read(KEY, 0, 100)


def test_a_log_that_cannot_be_opened_just_now_is_unavailable(logs: LogDir) -> None:
    put(logs, b"x")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(Unavailable, match="Too many open files"):
            logs.read(KEY, 0, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
