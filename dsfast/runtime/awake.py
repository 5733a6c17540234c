"""A loop that stays awake for a moment.

A core that sleeps takes some 50 us to wake on a virtual machine, longer than a small turn takes to compute, and a hop
from one task to the next waits for two or three of them. While it is awake, a loop looks at its sockets again and again
instead of sleeping until they have something. Between two looks it offers its core to whoever else could run there: on
a machine with more daemons than cores nobody waits for one that only looks.

It does so only while events follow each other closely: at rest, and between tasks that take their time, it sleeps. And
only while its core is its own. If whoever it was offered to has used it for as long as a turn takes, two want it. Then
to look helps nobody, because the core does not sleep anyway, and hurts: a scheduler that shares it fairly may let the
one that looks go on until its share is used up, for milliseconds. Some kernels put all that runs on few cores.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

AWAKE_SECONDS = 0.0004  # more than a hop takes, commit included, on a disk that syncs in 0.2 ms
WANTED_SECONDS = 0.00005  # an offer that took so long was accepted by somebody who takes turns, as we do
SHARED_SECONDS = 1.0  # until the core is tried again: a thousand hops sleep for one that may look

GROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")


class Awake:
    """Keeps the running loop from sleeping around short waits, unless a quota counts the time that this takes."""

    def __init__(
        self,
        *,
        allowed: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
        offer: Callable[[], None] = os.sched_yield,
    ) -> None:
        self._allowed = not has_quota() if allowed is None else allowed
        self._clock = clock
        self._offer = offer  # the core, to whoever else could run here
        self._began = 0.0
        self._brisk = False  # the last wait was a short one: the next is likely to be
        self._until = 0.0
        self._looking = False
        self._shared_until = 0.0  # the core is somebody else's, too

    def wait_begins(self) -> None:
        """Somebody waits for what may be on its way already."""
        self._began = self._clock()
        if self._brisk:
            self._stay(self._began)

    def wait_ended(self) -> None:
        """It has come. To work on it may need an answer, too: of a database, say."""
        now = self._clock()
        self._brisk = now - self._began < AWAKE_SECONDS
        if self._brisk:
            self._stay(now)

    def _stay(self, now: float) -> None:
        self._until = now + AWAKE_SECONDS
        if self._allowed and not self._looking and now >= self._shared_until:
            self._look_again()

    def _look_again(self) -> None:
        self._looking = True
        asyncio.get_running_loop().call_soon(self._looked)

    def _looked(self) -> None:
        before = self._clock()
        self._offer()
        now = self._clock()
        self._looking = False
        if now - before > WANTED_SECONDS:
            self._shared_until = now + SHARED_SECONDS
        elif now < self._until:
            self._look_again()


def has_quota(groups: Path = GROUPS, own: Path = OWN_GROUP) -> bool:
    """Whether a control group (version 2) rations this process's time, as a container's CPU limit does."""
    try:
        group = groups / own.read_text().rpartition("::")[2].strip().lstrip("/")
    except OSError:
        return False
    return any(map(_is_limited, (group, *group.parents)))


def _is_limited(group: Path) -> bool:
    try:
        return not (group / "cpu.max").read_text().startswith("max")
    except OSError:  # the root has no limit, nor has a group without the controller
        return False
