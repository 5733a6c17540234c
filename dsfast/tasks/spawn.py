"""Starts one process by the C library's posix_spawn.

Python's own os.posix_spawn lacks two things that a task needs: a working directory for the child alone, and the
closing of every descriptor that is not meant for it. It also keeps the interpreter lock until the child has
executed its program, which is most of a start's 0.2 ms; through ctypes other threads run meanwhile.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache

_SETSIGDEF, _SETSIGMASK, _SETSID = 0x04, 0x08, 0x80  # the same in glibc and musl
_OPAQUE_BYTES = 1024  # more than any C library's spawn objects (336 bytes in glibc) or signal set (128)
_ENCODING = sys.getfilesystemencoding()

_libc = ctypes.CDLL(None)
_add_close_from = getattr(_libc, "posix_spawn_file_actions_addclosefrom_np", None)  # glibc 2.34 and later


def spawn(argv: Sequence[str], env: Mapping[str, str], workdir: str, fds: Sequence[int]) -> int:
    """Start argv[0] (a path) in a session of its own and return its process id.

    `fds` become the child's descriptors 0, 1, 2 and so on; it inherits no other. No signal is blocked or
    ignored in it. Raises OSError when the kernel refuses and ValueError for a NUL character in a string.
    """
    path, arguments = os.fsencode(argv[0]), _strings(argv)
    environment = _strings([f"{name}={value}" for name, value in env.items()])
    actions = ctypes.create_string_buffer(_OPAQUE_BYTES)
    pid = ctypes.c_int()
    _check(_libc.posix_spawn_file_actions_init(actions))
    try:
        for number, fd in enumerate(fds):
            _check(_libc.posix_spawn_file_actions_adddup2(actions, fd, number))
        if _add_close_from is not None:
            _check(_add_close_from(actions, len(fds)))
        _check(_libc.posix_spawn_file_actions_addchdir_np(actions, os.fsencode(workdir)))
        _check(_libc.posix_spawn(ctypes.byref(pid), path, actions, _attributes, arguments, environment))
    finally:
        _libc.posix_spawn_file_actions_destroy(actions)
    return pid.value


def _strings(texts: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    encoded = "\0".join(texts).encode(_ENCODING, "surrogateescape").split(b"\0")  # all at once: there are dozens
    if len(encoded) != len(texts):
        nul = next(text for text in texts if "\0" in text)
        raise ValueError(f"a NUL character cannot be passed to a process: {nul[:80]!r}")
    return _array_of(len(encoded) + 1)(*encoded, None)


@lru_cache(maxsize=1024)
def _array_of(length: int) -> type[ctypes.Array[ctypes.c_char_p]]:
    return ctypes.c_char_p * length  # ctypes itself forgets a type with its last instance, and making one takes 40 us


def _check(number: int) -> None:
    if number:
        raise OSError(number, os.strerror(number))


def _make_attributes() -> ctypes.Array[ctypes.c_char]:
    attributes = ctypes.create_string_buffer(_OPAQUE_BYTES)
    every_signal = ctypes.create_string_buffer(_OPAQUE_BYTES)
    no_signal = ctypes.create_string_buffer(_OPAQUE_BYTES)
    _libc.sigfillset(every_signal)
    _libc.sigemptyset(no_signal)
    _check(_libc.posix_spawnattr_init(attributes))
    _check(_libc.posix_spawnattr_setsigdefault(attributes, every_signal))
    _check(_libc.posix_spawnattr_setsigmask(attributes, no_signal))
    _check(_libc.posix_spawnattr_setflags(attributes, ctypes.c_short(_SETSIGDEF | _SETSIGMASK | _SETSID)))
    return attributes


_attributes = _make_attributes()
