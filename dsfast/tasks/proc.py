"""What the kernel tells about processes: who is whose child, in which session, with which environment.

Imports nothing heavy, so that the guardian can use it before anything heavy is loaded. Every answer may be
outdated when it arrives, except about our own children: they stay (as zombies at least) until we reap them.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


class Stat(NamedTuple):
    """The part of /proc/<pid>/stat that is used here; `started` is in clock ticks since boot."""

    state: str
    parent: int
    group: int
    session: int
    started: int


def become_subreaper() -> None:
    """From now on, descendants whose parent dies become children of this process. Raises OSError."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def prctl(option: int, value: int) -> None:
    """The system call of that name. Raises OSError."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def open_children() -> int:
    """A descriptor for `listed_children` of this very process, or -1 on a kernel without such files. Raises OSError."""
    try:
        return os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1


def listed_children(file: int) -> bytes:
    """Our own children, orphans included, as the kernel lists them: each number followed by a space."""
    if file < 0:
        return b"".join(b"%d " % pid for pid in children_by_scan(os.getpid()))
    listed = part = os.pread(file, 65536, 0)
    while part:
        part = os.pread(file, 65536, len(listed))
        listed += part
    return listed


def children(pid: int) -> list[int]:
    """The children of any thread of this process, dead and unreaped ones included; empty when it is gone."""
    if not _HAS_CHILDREN_FILES:
        return children_by_scan(pid)
    found: list[int] = []
    for thread in _threads(pid):
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found.extend(map(int, file.read().split()))
        except (FileNotFoundError, ProcessLookupError):  # the thread has ended
            continue
    return found


def children_by_scan(pid: int) -> list[int]:
    """The same by a look at every process, for kernels that do not list children."""
    everyone = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return [other for other in everyone if (seen := stat(other)) is not None and seen.parent == pid]


def descendants(roots: Iterable[int]) -> Iterator[tuple[int, int]]:
    """(pid, parent) of everything below these processes, parents first."""
    waiting = list(roots)
    seen = set(waiting)
    while waiting:
        parent = waiting.pop()
        for pid in children(parent):
            if pid not in seen:
                seen.add(pid)
                waiting.append(pid)
                yield pid, parent


def signal_all(family: Iterable[tuple[int, int]], number: int) -> None:
    """Signal these (pid, parent), leaving out whoever is gone, has another parent by now, or may not be signalled.

    Between the two looks a pidfd holds on to the process, so none is hit that only has its number.
    """
    for pid, parent in family:
        try:
            fd = os.pidfd_open(pid)
        except OSError:  # gone; or we are out of descriptors, and it is found again when its parent is dead
            continue
        try:
            seen = stat(pid)
            if seen is not None and seen.parent == parent:
                signal.pidfd_send_signal(fd, number)
        except (ProcessLookupError, PermissionError):
            continue
        finally:
            os.close(fd)


def stat(pid: int) -> Stat | None:
    """The process as the kernel sees it now, or None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(b")") + 2 :].split()  # the name before it may hold spaces and brackets
    return Stat(fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def environment(pid: int) -> frozenset[bytes]:
    """The `NAME=value` pairs with which the process's program was started; empty when they cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return frozenset(file.read().split(b"\0"))
    except OSError:
        return frozenset()


def carrying(mark: bytes) -> list[int]:
    """Processes of others whose environment has this `NAME=value` pair; not ourselves, nor whoever started us."""
    pids = {int(name) for name in os.listdir("/proc") if name.isdigit()} - _ancestry()
    return [pid for pid in pids if mark in environment(pid)]


def end(pids: Iterable[int], mark: bytes, seconds: float) -> int:
    """Kill those of these processes that carry the mark, and all below them; wait for all. How many carried it."""
    deadline, dying = time.monotonic() + seconds, []
    count = 0
    for pid in pids:
        with suppress(OSError):  # gone, or not ours to signal; or out of descriptors, and it is found again
            below = _kill_tree(pid, mark)
            count += bool(below)
            dying += below
    for pid in dying:  # one descriptor at a time: they may be thousands
        with suppress(OSError):
            _await_end(pid, deadline)
    return count


def _kill_tree(pid: int, mark: bytes) -> list[int]:
    """Kill a process that carries the mark, and all below it; who they were, and nobody if it does not."""
    fd = os.pidfd_open(pid)
    try:
        if mark not in environment(pid):  # looked at again: from here on the number cannot become another's
            return []
        below = list(descendants([pid]))
        signal_all(below, signal.SIGKILL)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        return [pid, *(child for child, _ in below)]
    finally:
        os.close(fd)


def _await_end(pid: int, deadline: float) -> None:
    fd = os.pidfd_open(pid)
    try:
        waiting = select.poll()
        waiting.register(fd, select.POLLIN)
        waiting.poll(max(0.0, deadline - time.monotonic()) * 1000)
    finally:
        os.close(fd)


def _ancestry() -> set[int]:
    """We, our parent, its parent and so on."""
    found, seen = {os.getpid()}, stat(os.getpid())
    while seen is not None and seen.parent:
        found.add(seen.parent)
        seen = stat(seen.parent)
    return found


def _threads(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return []


_HAS_CHILDREN_FILES = os.path.exists(f"/proc/self/task/{os.getpid()}/children")
