"""Results that no master has acknowledged yet, in a file, so that they outlive the worker's process.

Theory of operation. Each turn of the engine that has news appends one frame: the results it brought, and the attempts
whose results were acknowledged. It is written before anything of the turn is sent, with one `write` and no fsync: what
the kernel has taken survives the process, and that is what dies and is started again. Read back, the frames up to the
first that is torn or damaged are replayed in order. A result that is reported once too often changes nothing, so the
file may always hold too much: it is emptied when nothing waits and it has grown, and written anew when most of it is
outdated. Without room on the disk, or beyond BYTES_MAX, results are kept in memory only, as everything else is.

    frame   length and CRC-32 of what follows (4 bytes each, little-endian) | a Turn as msgpack
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from dsfast.engine.effects import Kept
from dsfast.log import log_event
from dsfast.wire.commands import Attempt

EMPTY_BYTES = 64 << 10  # emptying costs 15 us, five times an append: not after every task of a quiet worker
REWRITE_BYTES = 4 << 20  # the least size at which it is looked whether most of the file is outdated
BYTES_MAX = 64 << 20  # of results that wait: a day without masters for a worker that ends five small tasks a second
_HEAD = struct.Struct("<II")
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class Turn(msgspec.Struct, array_like=True, gc=False):
    """What one turn adds and what it removes."""

    kept: list[Kept]
    forgotten: list[Attempt] = []


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Turn).decode


class Journal:
    """The results that wait at one worker."""

    def __init__(self, path: Path, log: logging.Logger) -> None:
        """Read what former lives have left. Raises OSError when the file cannot be opened."""
        self.waiting: dict[Attempt, Kept] = {}
        self._path = path
        self._log = log
        self._full = False
        self._fd = os.open(path, _FLAGS, 0o600)
        self._size = os.fstat(self._fd).st_size
        self._rewrite_at = REWRITE_BYTES
        self._replay(path.read_bytes())
        self._rewrite()

    def write(self, kept: Sequence[Kept], forgotten: Sequence[Attempt]) -> None:
        """Take in the news of a turn; they are safe from the death of this process when this returns."""
        if not kept and not forgotten:
            return
        self._apply(kept, forgotten)
        if not self.waiting and self._size > EMPTY_BYTES:
            self._cut(0)
        else:
            self._append(_frame(kept, forgotten))
            if self._size > self._rewrite_at:
                self._rewrite()

    def close(self) -> None:
        os.close(self._fd)

    def _apply(self, kept: Sequence[Kept], forgotten: Sequence[Attempt]) -> None:
        for entry in kept:
            result = entry[1]
            self.waiting[result.run_id, result.task, result.attempt] = entry
        for key in forgotten:
            self.waiting.pop(key, None)

    def _append(self, frame: bytes) -> None:
        try:
            if self._size + len(frame) > BYTES_MAX:
                raise OSError(0, f"it has reached {BYTES_MAX >> 20} MiB")
            written = os.write(self._fd, frame)
            if written < len(frame):
                raise OSError(0, "there is no room for all of a turn")
            self._size += written
            self._full = False
        except OSError as error:
            self._cut(self._size)  # half a frame would hide what follows
            if not self._full:
                self._full = True
                log_event(self._log, "results_not_kept", level=logging.WARNING, reason=error.strerror)

    def _cut(self, size: int) -> None:
        with suppress(OSError):
            os.ftruncate(self._fd, size)
            self._size = size

    def _rewrite(self) -> None:
        """Leave out what is outdated, in a new file that takes the place of this one."""
        new = self._path.with_suffix(".new")
        frame = _frame(list(self.waiting.values()), ()) if self.waiting else b""
        try:
            fd = os.open(new, _FLAGS | os.O_TRUNC, 0o600)
            try:
                with open(fd, "wb", closefd=False) as file:
                    file.write(frame)
                os.replace(new, self._path)
            except BaseException:
                os.close(fd)
                raise
            os.close(self._fd)
            self._fd, self._size = fd, len(frame)
        except OSError as error:  # the old file is as good, and longer
            log_event(self._log, "journal_not_rewritten", level=logging.WARNING, reason=error.strerror)
        self._rewrite_at = max(REWRITE_BYTES, 2 * self._size)

    def _replay(self, data: bytes) -> None:
        read = 0
        for end, turn in _turns(data):
            read = end
            self._apply(turn.kept, turn.forgotten)
        if read < len(data):
            log_event(self._log, "journal_torn", level=logging.WARNING, bytes=len(data) - read)


def _frame(kept: Sequence[Kept], forgotten: Sequence[Attempt]) -> bytes:
    body = _encode(Turn(list(kept), list(forgotten)))
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def _turns(data: bytes) -> Iterator[tuple[int, Turn]]:
    """Each turn with the offset of its end, up to the first one that is not whole."""
    at = 0
    while at + _HEAD.size <= len(data):
        length, crc = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        body = data[at : at + length]
        if len(body) < length or zlib.crc32(body) != crc:
            return
        try:
            turn = _decode(body)
        except msgspec.MsgspecError:
            return
        at += length
        yield at, turn
