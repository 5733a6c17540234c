"""How many unfinished attempts a worker lets each master have with it.

A worker's capacity is its slots plus a prefetch, so that when a short task ends the next one is already here and
no round trip is waited for. The prefetch follows the pace: what the worker would get done, at the mean duration of
recent attempts, in twice the time it takes a master to make a result durable and answer. Long tasks get none, so
they stay where they can still be placed best; instant ones get up to PREFETCH_MAX, from the moment the first of them
has ended. Several masters share the capacity: those with nothing waiting keep an equal share to start from, and those
that wait (Demand) split what the others do not use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

HORIZON_SECONDS = 0.005  # the least time to cover: several times a durable commit on a good disk (0.2-0.5 ms)
# Attempts: enough that instant tasks keep both sides busy, with some 4 ms of work for each. Four times as many give a
# tenth more of them a second, and make whoever comes later wait five times as long.
PREFETCH_MAX = 256
SMOOTHING = 0.2  # weight of a new duration in the mean: about the last ten attempts count


@dataclass(slots=True)
class Share:
    """One linked master as its worker sees it."""

    held: int = 0
    hungry: bool = False
    limit: int = 0  # what it was last told


class Pace:
    """The mean duration of recent attempts, unknown until the first has ended, and of their masters' answers."""

    __slots__ = ("_answer", "_mean")

    def __init__(self) -> None:
        self._mean: float | None = None
        self._answer = 0.0

    def add(self, seconds: float) -> None:
        self._mean = seconds if self._mean is None else self._mean + SMOOTHING * (seconds - self._mean)

    def add_answer(self, seconds: float) -> None:
        """Count how long a result waited for its acknowledgement."""
        self._answer += SMOOTHING * (seconds - self._answer)

    def prefetch(self, slots: int) -> int:
        """How many attempts beyond its slots the worker should have at hand."""
        if self._mean is None:
            return 0
        horizon = max(2 * self._answer, HORIZON_SECONDS)
        return min(int(slots * horizon / max(self._mean, 1e-6)), PREFETCH_MAX)


def limits(capacity: int, masters: Mapping[str, Share]) -> dict[str, int]:
    """The limit of each master, at least 1 so that none is shut out."""
    hungry = [share for share in masters.values() if share.hungry]
    equal = max(capacity // max(len(masters), 1), 1)
    spare = capacity - sum(share.held for share in masters.values() if not share.hungry)
    each = max(spare // len(hungry), 1) if hungry else equal
    return {peer: max(each, equal) if share.hungry else equal for peer, share in masters.items()}


def worth_telling(old: int, new: int) -> bool:
    """Whether a changed limit is worth a frame: any growth by a quarter, any cut by a quarter."""
    return (new > old and 4 * new >= 5 * old) or (new < old and 4 * new <= 3 * old)
