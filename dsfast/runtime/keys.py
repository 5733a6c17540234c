"""The cluster's key: a file that every daemon of a cluster has a copy of.

One line is the key, as base64 or hex, of at least 32 bytes. During a rotation the file has two lines: add the
new key on every machine and restart the daemons one by one, then remove the old key in the same way; any two
daemons have a key in common at every moment. Lines that are empty or begin with # do not count.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from pathlib import Path

from dsfast.errors import Problem, UsageError
from dsfast.runtime.handshake import KEYS_MAX

KEY_BYTES_MIN = 32  # what HMAC-SHA256 makes full use of, and beyond any guessing
FILE_BYTES_MAX = 4096  # two keys and some comments; anything larger is another file


def load_keys(path: Path, *, create: bool) -> tuple[bytes, ...]:
    """The keys in the file, one or two. With `create`, a missing file is made first, with a new key.

    Raises UsageError when the file is missing, readable by others, or does not hold proper keys.
    """
    if create and not path.exists():
        _create(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        message = f"cannot read the cluster key: {error.strerror}"
        hint = "copy it from another machine of the cluster, or let `dsfast up` make one"
        raise UsageError(Problem(message, file=str(path), hint=hint)) from error
    try:
        require_private(path, os.fstat(descriptor), "the cluster key")
        return _parse(path, os.read(descriptor, FILE_BYTES_MAX + 1))
    finally:
        os.close(descriptor)


def _create(path: Path) -> None:
    """Make the file unless it is there, so that no one ever sees it open to others or half written."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(base64.b64encode(secrets.token_bytes(KEY_BYTES_MIN)) + b"\n")
            os.fsync(descriptor)
        try:
            os.link(draft, path)  # fails if another daemon was faster: then its key is the cluster's
        except FileExistsError:
            return
        finally:
            draft.unlink()
    except OSError as error:
        raise UsageError(Problem(f"cannot create the cluster key: {error.strerror}", file=str(path))) from error


def require_private(path: Path, found: os.stat_result, what: str) -> None:
    """Raises UsageError unless this is an ordinary file that its owner alone can open."""
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(Problem(f"{what} is not an ordinary file", file=str(path)))
    if found.st_mode & 0o077:
        message = f"other users can read or change {what} (mode {stat.S_IMODE(found.st_mode):04o})"
        raise UsageError(Problem(message, file=str(path), hint=f"chmod 600 {path}"))


def _parse(path: Path, text: bytes) -> tuple[bytes, ...]:
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    keys = [_key(path, number, line) for number, line in lines if line and not line.startswith(b"#")]
    if not keys or len(keys) > KEYS_MAX or len(text) > FILE_BYTES_MAX:
        message = f"a cluster key file holds one key, or two during a rotation, not {len(keys)}"
        raise UsageError(Problem(message, file=str(path)))
    return tuple(keys)


def _key(path: Path, number: int, line: bytes) -> bytes:
    hint = f"make one with: openssl rand -base64 {KEY_BYTES_MIN}"
    try:
        key = _decoded(line)
    except (ValueError, binascii.Error):
        raise UsageError(Problem("neither base64 nor hex", file=str(path), line=number, hint=hint)) from None
    if len(key) < KEY_BYTES_MIN:
        message = f"a key of {len(key)} bytes; at least {KEY_BYTES_MIN} are needed"
        raise UsageError(Problem(message, file=str(path), line=number, hint=hint))
    return key


def _decoded(line: bytes) -> bytes:
    """Hex if it is nothing but hex digits, else base64. 64 hex digits would be a fine base64 text, too."""
    try:
        return bytes.fromhex(line.decode("ascii"))
    except ValueError:
        return base64.b64decode(line, validate=True)
