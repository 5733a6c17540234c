"""The key file: made privately, read strictly, refused with what to do."""

from __future__ import annotations

import os
import secrets
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dsfast.errors import UsageError
from dsfast.runtime.keys import load_keys

HEX = "ab" * 32
BASE64 = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cluster.key"


def put(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_key_is_made_once_and_for_its_owner_only(path: Path) -> None:
    made = load_keys(path, create=True)
    assert [len(key) for key in made] == [32]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_keys(path, create=True) == made
    assert load_keys(path, create=False) == made
    assert [entry.name for entry in path.parent.iterdir()] == ["cluster.key"]


def test_daemons_that_start_together_end_up_with_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        for cluster in range(20):
            path = tmp_path / f"{cluster}.key"
            found = [threads.submit(load_keys, path, create=True) for _ in range(4)]
            assert len({each.result() for each in found}) == 1


def test_the_umask_does_not_open_the_key(path: Path) -> None:
    before = os.umask(0)
    try:
        load_keys(path, create=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_directories_are_made_private(tmp_path: Path) -> None:
    load_keys(tmp_path / "state" / "cluster.key", create=True)
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


@pytest.mark.parametrize(("text", "key"), [(HEX, b"\xab" * 32), (BASE64, b"0123456789abcdef" * 2)])
def test_hex_and_base64_are_both_understood(path: Path, text: str, key: bytes) -> None:
    assert load_keys(put(path, f"# the key of the cluster\n\n  {text}\n"), create=False) == (key,)


def test_two_keys_during_a_rotation(path: Path) -> None:
    assert load_keys(put(path, f"{HEX}\n{BASE64}\n"), create=False) == (b"\xab" * 32, b"0123456789abcdef" * 2)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o660])
def test_a_file_that_others_can_open_is_refused_with_the_command_to_close_it(path: Path, mode: int) -> None:
    with pytest.raises(UsageError, match=rf"mode {mode:04o}.*chmod 600 .*cluster\.key"):
        load_keys(put(path, HEX, mode), create=False)


def test_a_missing_file_is_named_and_not_made(path: Path) -> None:
    with pytest.raises(UsageError, match=r"cluster\.key: cannot read the cluster key: No such file.*copy it"):
        load_keys(path, create=False)
    assert not path.exists()


@pytest.mark.parametrize("size", [1, 16, 31])
def test_a_short_key_is_refused_with_the_line_and_the_way_to_make_one(path: Path, size: int) -> None:
    text = f"# comment\n{secrets.token_bytes(size).hex()}\n"
    with pytest.raises(UsageError, match=rf"cluster\.key:2: a key of {size} bytes; .*openssl rand -base64 32"):
        load_keys(put(path, text), create=False)


def test_text_that_is_no_key_is_refused(path: Path) -> None:
    with pytest.raises(UsageError, match=r"cluster\.key:1: neither base64 nor hex"):
        load_keys(put(path, "correct horse battery staple, at least 32 of them"), create=False)


@pytest.mark.parametrize("text", ["", "\n# nothing\n", f"{HEX}\n" * 3])
def test_none_or_three_keys_are_refused(path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="one key, or two during a rotation, not"):
        load_keys(put(path, text), create=False)


def test_what_is_no_file_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(UsageError, match="not an ordinary file"):
        load_keys(path, create=False)
    path.rmdir()
    os.mkfifo(path, 0o600)
    with pytest.raises(UsageError, match="not an ordinary file"):
        load_keys(path, create=False)
