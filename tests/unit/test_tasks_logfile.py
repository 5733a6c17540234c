"""An attempt's log stays under its cap, keeps its head and tail, and says what it lost."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from dsfast.runtime.logs import LogDir
from dsfast.tasks import logfile
from dsfast.tasks.logfile import LOOK_SECONDS_MAX, LOOK_SECONDS_MIN, AttemptLog
from tests.attempts import log_text, make_job, run

CAP = 256 << 10


def disk_bytes(path: str) -> int:
    return os.stat(path).st_blocks * 512


def write(log: AttemptLog, data: bytes) -> None:
    with open(log.path, "ab") as file:
        file.write(data)


@pytest.fixture
def log(tmp_path: Path) -> AttemptLog:
    return AttemptLog(LogDir(tmp_path).create((1, 2, 3)), CAP)


def read_all(root: Path) -> bytes:
    """The log as a client reads it, chunk by chunk."""
    logs, offset = LogDir(root), 0
    parts: list[bytes] = []
    while True:
        offset, data, size = logs.read((1, 2, 3), offset, 50_000)
        if not data and offset >= size:
            return b"".join(parts)
        parts.append(data)
        offset += len(data)


def test_a_log_within_its_cap_is_not_touched(log: AttemptLog, tmp_path: Path) -> None:
    write(log, b"x" * CAP)
    assert not log.look()
    assert log.size == CAP
    assert Path(log.path).read_bytes() == b"x" * CAP


def test_a_log_that_outgrows_its_cap_keeps_head_and_tail_and_true_offsets(log: AttemptLog, tmp_path: Path) -> None:
    lines = [b"line %d\n" % number for number in range(200_000)]
    for at in range(0, len(lines), 20_000):
        write(log, b"".join(lines[at : at + 20_000]))
        if log.look():
            log.cut()
    whole = b"".join(lines)
    assert os.stat(log.path).st_size == len(whole)
    assert disk_bytes(log.path) <= CAP + 8192
    seen = read_all(tmp_path)
    head, notice, tail = seen.partition(
        b"\n[dsfast: the log has outgrown 262144 bytes; what followed here was dropped]\n"
    )
    assert notice
    assert whole.startswith(head)
    assert whole.endswith(tail)
    assert len(head) > CAP // 5
    assert len(tail) > CAP // 3
    assert b"\0" not in seen


def test_where_holes_cannot_be_made_the_log_starts_again_after_its_head(
    log: AttemptLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoHoles:
        @staticmethod
        def fallocate(*_: object) -> int:
            ctypes.set_errno(errno.EOPNOTSUPP)
            return -1

    monkeypatch.setattr(logfile, "_libc", NoHoles)
    write(log, b"a" * (CAP + 1))
    log.cut()
    write(log, b"the end\n")
    seen = read_all(tmp_path)
    assert len(seen) < CAP
    assert seen.startswith(b"a" * 1000)
    assert seen.endswith(b"was dropped]\nthe end\n")


def test_a_log_that_grows_fast_is_looked_at_often_and_a_quiet_one_seldom(log: AttemptLog) -> None:
    write(log, b"x" * CAP * 4)
    log.look()
    assert log.look_seconds == LOOK_SECONDS_MIN
    for _ in range(10):
        log.look()
    assert log.look_seconds == LOOK_SECONDS_MAX


async def test_a_task_that_writes_at_full_speed_stays_within_bounds(tmp_path: Path) -> None:
    job = make_job(
        "shell", tmp_path, script="echo first; head -c 100000000 /dev/zero; echo; echo last", log_bytes_max=CAP
    )
    await run("shell", job)
    assert os.stat(job.log).st_size == 100_000_012
    assert disk_bytes(job.log) <= CAP + 8192
    assert log_text(job)[:6] == "first\n"
    assert log_text(job)[-5:] == "last\n"


def test_a_log_that_its_task_removed_is_no_trouble(log: AttemptLog) -> None:
    assert not log.look()
    log.cut()
    assert log.size == 0
    log.say("a sentence")
    assert Path(log.path).read_text() == "dsfast: a sentence\n"


def test_a_log_is_never_written_through_a_link(log: AttemptLog, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    os.symlink(target, log.path)
    log.say("a sentence")
    with pytest.raises(OSError, match="symbolic link"):
        log.open()
    assert target.read_text() == "precious"
