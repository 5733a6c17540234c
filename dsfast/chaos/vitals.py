"""Memory, descriptors and files of daemons over time: what must not grow, however long it goes on.

A life is one process of a daemon. Its growth is judged between the first moment at which it has warmed up and its
last, and only if it has lived long enough for a leak to show above the noise.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dsfast.chaos.stage import Stage
from dsfast.runtime.private import is_spare

LOOK_SECONDS = 2.0
WARM_SECONDS = 30.0  # imports, pools and caches are filled by then
LIFE_SECONDS_MIN = 60.0  # of what is judged, after that
RSS_GROWTH_MAX = 48 << 20  # bytes: what is imported when first needed (25 MiB), caches that have a bound
RSS_GROWTH_PER_HOUR_MAX = 64 << 20  # what a run's remains may cost, were it a leak: a tenth of this shows in minutes
FDS_GROWTH_MAX = 30  # links and pooled connections come and go
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Life:
    """What one process used: (seconds since it was first seen, bytes resident, open descriptors)."""

    name: str
    pid: int
    born: float
    samples: list[tuple[float, int, int]] = field(default_factory=list)

    @property
    def growth(self) -> tuple[float, int, int] | None:
        """(seconds, bytes, descriptors) by which the last third exceeds the first; None for a life that is too short.

        Medians of thirds, so that one look at a busy moment does not count.
        """
        warm = [sample for sample in self.samples if sample[0] >= WARM_SECONDS]
        if not warm or warm[-1][0] - warm[0][0] < LIFE_SECONDS_MIN:
            return None
        third = len(warm) // 3
        first, last = warm[:third], warm[-third:]
        middle = third // 2
        seconds = last[middle][0] - first[middle][0]
        bytes_ = sorted(rss for _, rss, _ in last)[middle] - sorted(rss for _, rss, _ in first)[middle]
        fds = sorted(fds for *_, fds in last)[middle] - sorted(fds for *_, fds in first)[middle]
        return seconds, bytes_, fds


class Vitals:
    """Looks at every daemon's own process now and then."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._looked = 0.0
        self.lives: dict[tuple[int, int], Life] = {}

    def look(self) -> None:
        """Take a sample, if it is time to."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        for name in self._stage.cluster.daemons:
            for pid in self._stage.cluster.pids(name)[-1:]:
                with suppress(OSError, ValueError):
                    self._sample(name, pid, now)

    def _sample(self, name: str, pid: int, now: float) -> None:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        life = self.lives.setdefault((pid, int(words[19])), Life(name, pid, now))
        life.samples.append((now - life.born, int(words[21]) * PAGE_BYTES, len(os.listdir(f"/proc/{pid}/fd"))))

    def grown(self) -> list[str]:
        """A sentence for each life that uses more and more."""
        found = []
        for life in self.lives.values():
            if (growth := life.growth) is not None:
                seconds, bytes_, fds = growth
                allowed = RSS_GROWTH_MAX + RSS_GROWTH_PER_HOUR_MAX * seconds / 3600
                if bytes_ > allowed:
                    found.append(f"{life.name} ({life.pid}) grew by {bytes_ >> 20} MiB in {seconds:.0f} s")
                if fds > FDS_GROWTH_MAX:
                    found.append(f"{life.name} ({life.pid}) has {fds} more descriptors after {seconds:.0f} s")
        return found

    def largest(self) -> dict[str, tuple[float, int, int]]:
        """For each role, the longest growth that was measured."""
        best: dict[str, tuple[float, int, int]] = {}
        for life in self.lives.values():
            if (growth := life.growth) is not None:
                role = life.name.rstrip("0123456789")
                best[role] = max(best.get(role, (0.0, 0, 0)), growth)
        return best

    def left_over(self) -> list[str]:
        """What is left in the folders where attempts run, now that none does; not what a worker keeps for the next."""
        found: list[str] = []
        for folder in sorted(self._stage.cluster.folder.glob("*-work")):
            found += [str(path) for path in folder.glob("*/attempts/*") if not is_spare(str(path))]
        return found
