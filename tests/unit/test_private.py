"""Private directories: one goes from attempt to attempt only as it was made."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dsfast.model import OUTPUTS_BYTES_MAX
from dsfast.runtime.private import OUTPUT, PrivateDirs
from tests.attempts import until


@pytest.fixture
def dirs(tmp_path: Path) -> PrivateDirs:
    return PrivateDirs(tmp_path / "attempts")


def inode(path: str) -> int:
    return os.stat(path).st_ino


def test_an_empty_directory_becomes_the_next_attempts(dirs: PrivateDirs) -> None:
    first = dirs.take("1")
    made = inode(first)
    dirs.give_back(first)
    second = dirs.take("2")
    assert inode(second) == made
    assert os.listdir(os.path.dirname(second)) == ["2"]
    assert os.stat(second).st_mode & 0o777 == 0o700


def test_an_output_file_that_was_read_is_not_handed_on(dirs: PrivateDirs) -> None:
    first = dirs.take("1")
    Path(first, OUTPUT).write_text("rows=1\n")
    dirs.give_back(first)
    assert os.listdir(dirs.take("2")) == []


def leave_a_file(path: Path) -> None:
    (path / ".left").touch()


def leave_a_directory_as_output(path: Path) -> None:
    (path / OUTPUT).mkdir()
    (path / OUTPUT / "left").touch()


def leave_a_large_output(path: Path) -> None:
    (path / OUTPUT).touch()
    os.truncate(path / OUTPUT, OUTPUTS_BYTES_MAX + 1)


def open_it_to_others(path: Path) -> None:
    path.chmod(0o777)


@pytest.mark.parametrize("harm", [leave_a_file, leave_a_directory_as_output, leave_a_large_output, open_it_to_others])
async def test_a_directory_that_was_changed_is_removed(dirs: PrivateDirs, harm: Callable[[Path], None]) -> None:
    first = dirs.take("1")
    harm(Path(first))
    dirs.give_back(first)
    second = dirs.take("2")
    assert os.listdir(second) == []
    assert os.stat(second).st_mode & 0o777 == 0o700
    await until(lambda: not os.path.exists(first))


async def test_a_link_in_a_directorys_place_is_not_followed(dirs: PrivateDirs, tmp_path: Path) -> None:
    first = dirs.take("1")
    os.rmdir(first)
    os.symlink(tmp_path, first)
    dirs.give_back(first)
    assert inode(dirs.take("2")) != inode(str(tmp_path))


def test_one_that_vanished_while_it_was_kept_is_made_anew(dirs: PrivateDirs) -> None:
    first = dirs.take("1")
    dirs.give_back(first)
    os.rmdir(first)
    assert os.listdir(dirs.take("2")) == []


def test_those_that_are_kept_go_with_their_worker(dirs: PrivateDirs, tmp_path: Path) -> None:
    for path in [dirs.take("1"), dirs.take("2")]:
        dirs.give_back(path)
    dirs.close()
    assert os.listdir(tmp_path / "attempts") == []
