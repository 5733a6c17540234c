"""The private directories in which attempts run, each named by its attempt.

Most attempts leave theirs as empty as it was, so an ended attempt's directory becomes the next one's by a rename:
making and removing one costs as much as starting a process, and on some file systems more with every inode that was
given back a moment ago. A directory in which something is left, or that is not what was made (another mode, a link in
its place), is removed in a thread, and no other attempt ever sees it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat

from dsfast.model import OUTPUTS_BYTES_MAX

MODE = 0o700
OUTPUT = "output"  # where $DSFAST_OUTPUT points: what is in it has been read when the directory is given back
SPARES_MAX = 64  # kept beside those in use: more than this is what a burst has left


class PrivateDirs:
    """The directories under one root, which nobody else uses."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = os.fspath(root)
        self._spares: list[str] = []

    def take(self, name: str) -> str:
        """An empty directory of this name that only its owner can enter. Raises OSError."""
        path = f"{self._root}/{name}"
        if self._spares:
            spare = self._spares.pop()
            try:
                os.rename(spare, path)
                return path
            except OSError:  # somebody has removed it, or it cannot be moved: it is no use any more
                _remove(spare)
        os.makedirs(path, MODE, exist_ok=True)
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


def _as_made(path: str) -> bool:
    """Whether it is as `take` gives it, apart from its output file, which is removed."""
    try:
        seen = os.lstat(path)
        if seen.st_mode != stat.S_IFDIR | MODE or seen.st_uid != os.geteuid():
            return False
        with os.scandir(path) as entries:
            return all(_is_spent_output(entry) for entry in entries)  # looks no further than the first that is not
    except OSError:
        return False


def _is_spent_output(entry: os.DirEntry[str]) -> bool:
    if entry.name != OUTPUT or entry.stat(follow_symlinks=False).st_size > OUTPUTS_BYTES_MAX:
        return False  # a large file takes the disk too long for the event loop
    os.unlink(entry.path)
    return True


def _remove(path: str) -> None:
    shutil.rmtree(path, ignore_errors=True)
