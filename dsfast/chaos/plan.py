"""When which fault happens to whom: decided by the seed alone, before anything has started.

A target has one fault at a time and a moment of peace after it, so that each is what it says it is.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dsfast.errors import Problem, UsageError

PEACE_SECONDS = 2.0  # after a fault, before the same target has another: a daemon needs about one to start


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: how often it is chosen, whom it befalls, and how long it lasts.

    Seconds count from its beginning to its healing; `leases` are added to them in units of the registry's session.
    """

    share: int
    targets: tuple[str, ...]  # of roles; "masters" is all of them at once
    seconds: tuple[float, float] = (0.0, 0.0)
    leases: tuple[float, float] = (0.0, 0.0)
    about: str = ""


DOWN = (0.2, 5.0)
CUT = (1.0, 4.0)
BEYOND = (1.3, 2.5)  # leases: long enough that others must act
EITHER = (0.0, 2.0)  # leases: some end before anybody acts
KINDS = {
    "worker-kill": Kind(10, ("worker",), DOWN, about="kill -9 of a worker's daemon; back after a while"),
    "worker-restart": Kind(5, ("worker",), about="kill -9 of a worker's daemon; back at once under the same name"),
    "guardian-kill": Kind(4, ("worker",), DOWN, about="kill -9 of a guardian of a worker"),
    "worker-both": Kind(4, ("worker",), DOWN, about="kill -9 of a worker's daemon and its guardian at once"),
    "worker-pause": Kind(5, ("worker",), leases=BEYOND, about="SIGSTOP of a worker's daemon beyond its lease"),
    "master-kill": Kind(8, ("master",), DOWN, about="kill -9 of a master; back after a while"),
    "master-restart": Kind(4, ("master",), about="kill -9 of a master; back at once under the same name"),
    "master-pause": Kind(5, ("master",), leases=BEYOND, about="SIGSTOP of a master beyond its lease"),
    "masters-out": Kind(1, ("masters",), (1.0, 8.0), about="kill -9 of all masters at once"),
    "api-kill": Kind(2, ("api",), about="kill -9 of the api; back at once"),
    "store-restart": Kind(2, ("store",), (0.0, 3.0), about="PostgreSQL crashes and comes back"),
    "store-connections": Kind(3, ("store",), about="all connections to PostgreSQL are ended"),
    "registry-server": Kind(3, ("registry",), DOWN, about="one ZooKeeper server is killed and comes back"),
    "registry-out": Kind(2, ("registry",), leases=EITHER, about="ZooKeeper loses its majority"),
    "registry-session": Kind(3, ("member",), about="the ZooKeeper session of a daemon is ended"),
    "cut-master-worker": Kind(4, ("master", "worker"), CUT, EITHER, "a master and a worker, one way or both"),
    "cut-worker": Kind(4, ("worker",), CUT, EITHER, "a worker and everybody"),
    "cut-master-store": Kind(3, ("master",), CUT, EITHER, "a master and PostgreSQL, one way or both"),
    "cut-master-registry": Kind(2, ("master",), CUT, EITHER, "a master and ZooKeeper"),
    "cut-worker-registry": Kind(2, ("worker",), CUT, EITHER, "a worker and ZooKeeper"),
}
DEADLY = frozenset({"worker-kill", "worker-restart", "guardian-kill", "worker-both", "master-kill", "master-restart"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: it begins `at` seconds after the start and is healed after `seconds`; `roll` decides details."""

    at: float
    kind: str
    targets: tuple[str, ...]
    seconds: float
    roll: float

    def __str__(self) -> str:
        span = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.kind} {' '.join(self.targets)}{span}"


@dataclass(frozen=True, slots=True)
class Cast:
    """Who there is to break, by role."""

    masters: Sequence[str]
    workers: Sequence[str]

    def of(self, role: str) -> Sequence[str]:
        """The names of a role; the role's own where there is one."""
        everybody = {"master": self.masters, "worker": self.workers, "member": [*self.masters, *self.workers]}
        return everybody.get(role, [role])

    def mortals(self, role: str) -> Sequence[str]:
        """Those that may be killed: one of several lives on, so that growth has the time to show."""
        names = self.of(role)
        return names[1:] if len(names) > 2 else names


def make_plan(
    seed: int, kinds: Sequence[str], cast: Cast, *, every: tuple[float, float], seconds: float, lease: float
) -> Iterator[Fault]:
    """The faults of a seed, in order of time."""
    rng = random.Random(seed)
    busy: dict[str, float] = {}
    at = rng.uniform(*every)
    while at < seconds:
        fault = _choose(rng, kinds, cast, at, busy, lease)
        if fault is not None:
            for target in _touched(fault, cast):
                busy[target] = at + fault.seconds + PEACE_SECONDS
            yield fault
        at += rng.uniform(*every)


def _choose(
    rng: random.Random, kinds: Sequence[str], cast: Cast, at: float, busy: dict[str, float], lease: float
) -> Fault | None:
    """A fault whose targets are at peace; None if chance found none in as many tries as there are kinds."""
    for _ in kinds:
        name = rng.choices(kinds, [KINDS[kind].share for kind in kinds])[0]
        kind = KINDS[name]
        choose = cast.mortals if name in DEADLY else cast.of
        targets = tuple(rng.choice(choose(role)) for role in kind.targets)
        seconds = rng.uniform(*kind.seconds) + rng.uniform(*kind.leases) * lease
        fault = Fault(at, name, targets, seconds, rng.random())
        if all(busy.get(target, 0.0) <= at for target in _touched(fault, cast)):
            return fault
    return None


def _touched(fault: Fault, cast: Cast) -> Sequence[str]:
    return cast.masters if fault.targets == ("masters",) else fault.targets


def check_kinds(names: Sequence[str], possible: Sequence[str]) -> list[str]:
    """The kinds asked for, all that are possible without any. Raises UsageError for those that are not."""
    wrong = [name for name in names if name not in possible]
    if wrong:
        hint = f"there are: {', '.join(possible)}"
        raise UsageError([Problem(f"there is no fault {name!r} here", hint=hint) for name in wrong])
    return list(names or possible)
