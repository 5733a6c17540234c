"""What an attempt has for itself on its worker's disk: a directory named by it, closed to other users.

    work     where it runs, unless its task names another directory; empty when it starts
    output   where $DSFAST_OUTPUT points; made by the attempt, if at all
    script   what its task type gives an interpreter to read; what it says is cut off at its end

Making and removing files costs as much as starting a process, and on some file systems more with every inode that was
given back a moment ago. But most attempts leave `work` as empty as it was: then the whole becomes the next attempt's,
by a rename. One in which something is left, or that is not what was made (another mode, a link in something's place),
is removed in a thread, and no other attempt ever sees it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat

from dsfast.model import OUTPUTS_BYTES_MAX

WORK, OUTPUT, SCRIPT = "work", "output", "script"
DIRECTORY = stat.S_IFDIR | 0o700
FILE = stat.S_IFREG | 0o600
SPARES_MAX = 64  # kept beside those in use: more than this is what a burst has left


class PrivateDirs:
    """The directories under one root, which nobody else uses."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = os.fspath(root)
        self._spares: list[str] = []

    def take(self, name: str) -> str:
        """A directory of this name, as the module says. Raises OSError."""
        path = f"{self._root}/{name}"
        if self._spares:
            spare = self._spares.pop()
            try:
                os.rename(spare, path)
                return path
            except OSError:  # somebody has removed it, or it cannot be moved: it is no use any more
                _remove(spare)
        os.makedirs(path, 0o700, exist_ok=True)
        os.makedirs(f"{path}/{WORK}", 0o700, exist_ok=True)
        return path

    def give_back(self, path: str) -> None:
        """The attempt has ended, nothing of it runs: keep its directory for another one, or remove it."""
        if len(self._spares) < SPARES_MAX and _as_made(path):
            self._spares.append(path)
        else:
            asyncio.get_running_loop().run_in_executor(None, _remove, path)

    def close(self) -> None:
        """Remove those that are kept."""
        while self._spares:
            _remove(self._spares.pop())


def is_spare(path: str) -> bool:
    """Whether this is a directory that waits for an attempt: nothing of the last one is in it."""
    try:
        with os.scandir(f"{path}/{WORK}") as left, os.scandir(path) as parts:
            empty = next(left, None) is None
            return empty and all(
                part.name == WORK or (part.name == SCRIPT and part.stat().st_size <= 1) for part in parts
            )
    except OSError:
        return False


def _as_made(path: str) -> bool:
    """Whether it is as `take` gives it, apart from the output, which is removed."""
    work = f"{path}/{WORK}"
    try:
        if not (_is_ours(os.lstat(path), DIRECTORY) and _is_ours(os.lstat(work), DIRECTORY)):
            return False
        with os.scandir(work) as left, os.scandir(path) as parts:  # looked through no further than to the first reason
            return next(left, None) is None and all(map(_may_stay, parts))
    except OSError:
        return False


def _may_stay(part: os.DirEntry[str]) -> bool:
    if part.name == WORK:
        return True
    seen = part.stat(follow_symlinks=False)
    if part.name == SCRIPT:
        return _forget(part.path, seen)
    if part.name == OUTPUT and seen.st_size <= OUTPUTS_BYTES_MAX:  # a large file takes the disk too long for the loop
        os.unlink(part.path)
        return True
    return False


def _forget(script: str, seen: os.stat_result) -> bool:
    """Cut off what it says; False if it may be somebody's own file: one with a second name, or a link."""
    if not _is_ours(seen, FILE) or seen.st_nlink != 1:
        return False
    os.truncate(script, 1)  # not 0: ext4 takes that for the start of a replacement, and waits for the disk at its end
    return True


def _is_ours(seen: os.stat_result, mode: int) -> bool:
    return seen.st_mode == mode and seen.st_uid == os.geteuid()


def _remove(path: str) -> None:
    shutil.rmtree(path, ignore_errors=True)
