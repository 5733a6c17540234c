"""The smallest plan that still fails: items are left out, by halves and then one by one, as long as it goes on failing.

What counts is that the same promise is broken; which task it concerns, and when, may change.
"""

from __future__ import annotations

import re

from dsfast.sim.world import Failure, World

CALLS_MAX = 2_000_000  # made in all worlds that are tried: half a minute


def failure_of(world: World) -> Failure | None:
    """What goes wrong in this world, if anything does."""
    try:
        world.run()
    except Failure as failure:
        return failure
    return None


def kind_of(failure: Failure) -> str:
    """The promise that was broken, without names and numbers."""
    return re.sub(r"[mw]?\d+@[0-9a-f]+|\d+", "", failure.what)


def shrink(seed: int, profile: str, failure: Failure) -> tuple[list[int], Failure]:
    """The places in the plan of the items that it takes to fail in this way, and the failure that they lead to."""
    keep = list(range(len(World(seed, profile).plan)))
    calls, step = 0, max(len(keep) // 2, 1)
    while calls < CALLS_MAX:
        for begin in range(0, len(keep), step):
            rest = keep[:begin] + keep[begin + step :]
            world = World(seed, profile, rest)
            found = failure_of(world)
            calls += world.clock.calls
            if found is not None and kind_of(found) == kind_of(failure):
                keep, failure = rest, found
                break
        else:
            if step == 1:
                break
            step = max(step // 2, 1)
    return keep, failure
