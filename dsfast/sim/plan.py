"""What will happen in a world besides its own doing: an explicit list, made from the seed, that can be thinned out.

Every item carries the chance for all that it decides itself (whom it strikes, for how long), so taking one out changes
as little as possible for the others. Which daemons there are is no item: a world without workers fails for no reason.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import NamedTuple

from dsfast.sim.profiles import Profile

PLANNED_SECONDS = 55.0  # faults come within these


class Item(NamedTuple):
    """At this second, this; `chance` seeds what is left to chance in it."""

    at: float
    what: str
    chance: int

    def dice(self) -> random.Random:
        return random.Random(self.chance)


def make_plan(rng: random.Random, profile: Profile) -> list[Item]:
    """The items of a world, in order of time."""
    items = [_item(rng, "submit", 1.0, 40.0) for _ in range(rng.choice(profile.submits))]
    items += [_item(rng, "cancel", 2.0, 50.0) for _ in range(rng.choice(profile.cancels))]
    items.append(_item(rng, "explain", 0.0, 60.0))
    kinds = sorted(profile.faults)
    some = rng.sample(kinds, min(len(kinds), rng.choice((1, 2, 3, len(kinds))))) if kinds else []
    count = rng.choice(profile.strikes) if some else 0
    items += [_item(rng, rng.choice(some), 1.0, PLANNED_SECONDS) for _ in range(count)]
    return sorted(items)


def _item(rng: random.Random, what: str, begin: float, within: float) -> Item:
    return Item(round(begin + rng.random() * within, 6), what, rng.getrandbits(32))


def thinned(items: Sequence[Item], keep: Collection[int] | None) -> list[Item]:
    """Those at these places of the list; all without any."""
    return [item for place, item in enumerate(items) if keep is None or place in keep]
