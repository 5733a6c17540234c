"""Private directories: one goes from attempt to attempt only as it was made."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dsfast.model import OUTPUTS_BYTES_MAX
from dsfast.runtime.private import DIRECTORY, OUTPUT, SCRIPT, WORK, PrivateDirs, is_spare
from tests.attempts import until


@pytest.fixture
def dirs(tmp_path: Path) -> PrivateDirs:
    return PrivateDirs(tmp_path / "attempts")


def inode(path: str) -> int:
    return os.stat(path).st_ino


def is_fresh(private: str) -> bool:
    """Whether there is nothing in it but an empty directory to work in, and both are closed to others."""
    modes = {os.lstat(path).st_mode for path in (private, f"{private}/{WORK}")}
    return os.listdir(private) == [WORK] and os.listdir(f"{private}/{WORK}") == [] and modes == {DIRECTORY}


def said(file: Path) -> str | None:
    return file.read_text() if file.exists() else None


def test_an_untouched_directory_becomes_the_next_attempts(dirs: PrivateDirs) -> None:
    first = dirs.take("1")
    made = inode(first)
    dirs.give_back(first)
    second = dirs.take("2")
    assert inode(second) == made
    assert os.listdir(os.path.dirname(second)) == ["2"]
    assert is_fresh(second)


def test_an_output_that_was_read_and_what_a_script_said_are_not_handed_on(dirs: PrivateDirs) -> None:
    first = dirs.take("1")
    made = inode(first)
    Path(first, OUTPUT).write_text("rows=1\n")
    write_script(first)
    dirs.give_back(first)
    second = dirs.take("2")
    assert inode(second) == made
    assert not Path(second, OUTPUT).exists()
    assert "secret" not in Path(second, SCRIPT).read_text()


def write_script(private: str) -> None:
    Path(private, SCRIPT).touch(mode=0o600)
    Path(private, SCRIPT).write_text("echo secret")


def leave_a_file(private: str) -> None:
    Path(private, WORK, ".left").touch()


def leave_a_file_beside(private: str) -> None:
    Path(private, "left").touch()


def leave_a_directory_as_output(private: str) -> None:
    Path(private, OUTPUT, "left").mkdir(parents=True)


def leave_a_large_output(private: str) -> None:
    Path(private, OUTPUT).touch()
    os.truncate(Path(private, OUTPUT), OUTPUTS_BYTES_MAX + 1)


def open_it_to_others(private: str) -> None:
    os.chmod(private, 0o755)


def open_its_work_to_others(private: str) -> None:
    os.chmod(Path(private, WORK), 0o777)


def open_its_script_to_others(private: str) -> None:
    write_script(private)
    os.chmod(Path(private, SCRIPT), 0o644)


def give_its_script_a_second_name(private: str) -> None:
    write_script(private)
    os.link(Path(private, SCRIPT), Path(private, "../precious"))


def put_a_link_in_place_of_its_script(private: str) -> None:
    write_script(private)
    os.rename(Path(private, SCRIPT), Path(private, "../precious"))
    os.symlink("../precious", Path(private, SCRIPT))


def put_a_link_in_place_of_its_work(private: str) -> None:
    os.rmdir(Path(private, WORK))
    Path(private, "../elsewhere").mkdir(mode=0o700)
    os.symlink("../elsewhere", Path(private, WORK))


@pytest.mark.parametrize(
    "harm",
    [
        leave_a_file,
        leave_a_file_beside,
        leave_a_directory_as_output,
        leave_a_large_output,
        open_it_to_others,
        open_its_work_to_others,
        open_its_script_to_others,
        give_its_script_a_second_name,
        put_a_link_in_place_of_its_script,
        put_a_link_in_place_of_its_work,
    ],
)
async def test_a_directory_that_was_changed_is_removed(
    dirs: PrivateDirs, tmp_path: Path, harm: Callable[[str], None]
) -> None:
    first = dirs.take("1")
    harm(first)
    dirs.give_back(first)
    await until(lambda: not os.path.exists(first))
    assert is_fresh(dirs.take("2"))
    assert said(tmp_path / "attempts" / "precious") in (None, "echo secret")


async def test_a_link_in_a_directorys_place_is_not_followed(dirs: PrivateDirs, tmp_path: Path) -> None:
    first = dirs.take("1")
    os.rename(first, tmp_path / "moved")
    os.symlink(tmp_path / "moved", first)
    dirs.give_back(first)
    assert inode(dirs.take("2")) != inode(str(tmp_path / "moved"))


def test_a_directory_is_a_spare_until_something_is_in_it(dirs: PrivateDirs) -> None:
    path = dirs.take("a")
    assert is_spare(path)
    Path(path, "script").write_text("x")
    assert is_spare(path)
    for left in ("work/file", "output"):
        Path(path, left).write_text("x")
        assert not is_spare(path)
        Path(path, left).unlink()
    Path(path, "script").write_text("echo")
    assert not is_spare(path)
    assert not is_spare(f"{path}/no-such-directory")


def test_one_that_vanished_while_it_was_kept_is_made_anew(dirs: PrivateDirs) -> None:
    first = dirs.take("1")
    dirs.give_back(first)
    shutil.rmtree(first)
    assert is_fresh(dirs.take("2"))


def test_those_that_are_kept_go_with_their_worker(dirs: PrivateDirs, tmp_path: Path) -> None:
    for path in [dirs.take("1"), dirs.take("2")]:
        dirs.give_back(path)
    dirs.close()
    assert os.listdir(tmp_path / "attempts") == []
