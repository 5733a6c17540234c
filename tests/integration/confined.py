"""A control group for one daemon and all that it starts, so that it runs short of something and its neighbours do not.

The group lies below our own, whose limits go on to hold. Both versions of the kernel's interface will do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dsfast.chaos.network import Loopback

LIMITS = {"pids": ("pids.max", "pids.max"), "memory": ("memory.limit_in_bytes", "memory.max")}  # in versions 1 and 2


class Confined(Loopback):
    """Everybody on 127.0.0.1, and one of them in a group."""

    def __init__(self, name: str, group: Path) -> None:
        self._name = name
        self._group = group

    def enter(self, name: str) -> tuple[str, ...]:
        script = f'echo $$ > {self._group}/cgroup.procs && exec "$@"'
        return ("sh", "-c", script, "sh") if name == self._name else ()


@contextmanager
def group(resource: str, limit: int) -> Iterator[Path]:
    """A group that has so much of it. Skips the test where we may not make one."""
    try:
        above, version = _our_group(resource)
        made = above / f"dsfast-{os.getpid()}"
        made.mkdir()
        (made / LIMITS[resource][version - 1]).write_text(str(limit))
    except OSError as error:
        pytest.skip(f"this machine lets us make no control group for {resource}: {error}")
    try:
        yield made
    finally:
        made.rmdir()  # the kernel refuses while anything lives in it


def _our_group(resource: str) -> tuple[Path, int]:
    """The directory of the group that we are in, where this resource is limited, and the interface's version."""
    ours = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().split()]
    named = {name: path for _, names, path in ours for name in names.split(",")}
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup" and resource in options.split(",") and resource in named:
            return Path(place + named[resource]), 1
        if kind == "cgroup2" and resource in (Path(place) / "cgroup.controllers").read_text().split():
            (Path(place + named[""]) / "cgroup.subtree_control").write_text(f"+{resource}")
            return Path(place + named[""]), 2
    raise OSError(f"nothing limits {resource}")
