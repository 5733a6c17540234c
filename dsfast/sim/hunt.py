"""Worlds one after the other, by seeds and profiles, until the seeds or the time run out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from dsfast.sim.shrink import shrink
from dsfast.sim.world import Failure, World

PROGRESS_SECONDS = 10.0  # between two lines that say how far it is


@dataclass(slots=True)
class Hunt:
    """What was found so far."""

    worlds: int = 0
    virtual_seconds: float = 0.0
    events: int = 0
    failures: list[Failure] = field(default_factory=list)
    by_profile: Counter[str] = field(default_factory=Counter)

    def live(self, seed: int, profile: str) -> Failure | None:
        """One world more; what goes wrong in it."""
        world = World(seed, profile)
        self.worlds += 1
        self.by_profile[profile] += 1
        try:
            world.run()
        except Failure as failure:
            self.failures.append(failure)
            return failure
        finally:
            self.virtual_seconds += world.clock.now
            self.events += len(world.checks.history)
        return None

    def summary(self, took: float) -> str:
        """One line."""
        worlds = f"{self.worlds} worlds, {self.virtual_seconds / 3600:.1f} virtual hours, {self.events} events"
        return f"{worlds} in {took:.0f} s ({took / max(self.worlds, 1) * 1e3:.0f} ms each): {len(self.failures)} failed"


def hunt(
    seeds: Sequence[int] | None, first: int, profiles: Sequence[str], minutes: float, say: Callable[[str], None]
) -> Hunt:
    """Live through these seeds, or from `first` on for so many minutes, each in all of these profiles."""
    found, began, told = Hunt(), time.monotonic(), time.monotonic()
    for seed, profile in _worlds(seeds, first, profiles):
        now = time.monotonic()
        if seeds is None and now - began > minutes * 60:
            break
        if now - told > PROGRESS_SECONDS:
            told = now
            say(f"seed {seed}: {found.summary(now - began)}")
        failure = found.live(seed, profile)
        if failure is not None:
            say(tale(seed, profile, failure))
    say(found.summary(time.monotonic() - began))
    return found


def _worlds(seeds: Sequence[int] | None, first: int, profiles: Sequence[str]) -> Iterator[tuple[int, str]]:
    for seed in seeds if seeds is not None else count(first):
        for profile in profiles:
            yield seed, profile


def tale(seed: int, profile: str, failure: Failure) -> str:
    """A failure as it is told: the smallest plan, its story, what was broken, and how to see it again."""
    keep, smallest = shrink(seed, profile, failure)
    world = World(seed, profile)
    items = "\n".join(f"  {place:3} {world.plan[place].at:9.3f} s  {world.plan[place].what}" for place in keep)
    chosen = ",".join(map(str, keep)) or "none"
    return (
        f"{smallest.story}\n\nseed {seed} ({profile}) fails: {smallest.what}\n"
        f"it takes {len(keep)} of the {len(world.plan)} items of its plan:\n{items}\n"
        f"again: python -m dsfast.sim --seed {seed} --profile {profile} --keep {chosen}\n"
    )
