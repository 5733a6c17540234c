"""A cluster in one thread: production engines, a virtual clock, one seeded chance, and everything that can go wrong.

Theory of operation. A world is made from a seed and a profile. First comes the safety phase: clients submit and
cancel, and faults happen, all by plan (plan.py). Then everything is repaired, and in the liveness phase the world runs
until nothing is left to happen: no engine has a timer of its own, so a run that has not ended by then never would.
Checks (checks.py) look at every step. The same seed, profile and items make the same world, in every process.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection

from dsfast.engine.balance import POLICIES
from dsfast.engine.effects import Kept
from dsfast.engine.master import MasterSettings
from dsfast.model import Member
from dsfast.proof.checker import Broken
from dsfast.sim.checks import Checks
from dsfast.sim.client import Client
from dsfast.sim.clock import Clock
from dsfast.sim.faults import Faults
from dsfast.sim.host import Host
from dsfast.sim.master_host import MasterHost
from dsfast.sim.network import NOTICE_SECONDS, Network
from dsfast.sim.plan import Item, make_plan, thinned
from dsfast.sim.profiles import DEFAULT, PROFILES
from dsfast.sim.registry import Registry
from dsfast.sim.store import MemoryStore
from dsfast.sim.story import Story
from dsfast.sim.worker_host import WorkerHost
from dsfast.sim.workload import random_workflow
from dsfast.wire.commands import Attempt

SAFETY_SECONDS = 60.0
LIVENESS_SECONDS = 40_000.0  # virtual; the longest back-offs and retries, and a clock set wrong by an hour, fit in
RESTART_SECONDS_MAX = 15.0  # until whoever watches over a daemon starts it again
CALLS_MAX = 400_000  # that happen in all; ordinary worlds need a hundredth, and one that runs away is ended by it
SLOW_SECONDS_MAX = 1.0  # of a network or a store that has become slow


class Failure(AssertionError):
    """A world in which something went wrong: what, and the story of the task concerned."""

    def __init__(self, world: World, error: BaseException) -> None:
        self.what = str(error).splitlines()[0] if str(error) else repr(error)
        run, task = getattr(error, "run", None), getattr(error, "task", None)
        self.story = world.story.last_lines(run, task)
        super().__init__(f"{self.story}\nseed {world.seed} ({world.name}): {self.what}")


class World:
    """One simulated cluster. `keep`: only these items of the plan happen."""

    def __init__(self, seed: int, profile: str = DEFAULT, keep: Collection[int] | None = None) -> None:
        self.seed = seed
        self.name = profile
        self.profile = PROFILES[profile]
        self.plan = thinned(make_plan(random.Random(f"plan {profile} {seed}"), self.profile), keep)
        self.rng = random.Random(f"world {profile} {seed}")
        self.clock = Clock()
        self.story = Story(self.clock)
        self.store = MemoryStore()
        self.network = Network(self)
        self.registry = Registry(self)
        self.checks = Checks(self)
        self.store.witness = self.checks
        self.client = Client(self)
        self.lives: dict[str, Host] = {}  # every life there ever was, by member id
        self.current: dict[str, Host] = {}  # the last life of each daemon, by name
        self.journals: dict[str, dict[Attempt, Kept]] = {}  # of workers, by name: results that outlive a process
        self.faults = Faults(self)
        self.jumped = False  # somebody has set a clock
        self._lag = self.rng.choice(self.profile.latencies)
        self._store_lag = self.rng.choice(self.profile.store_latencies)
        self._settings = MasterSettings(policy=self.rng.choice(sorted(POLICIES)), failovers_max=1000)

    def run(self) -> None:
        """Live through both phases. Raises Failure when a promise is broken, or an engine fails."""
        try:
            self._set_up()
            self.clock.run(SAFETY_SECONDS, CALLS_MAX)
            self.faults.end()
            if self.clock.run(SAFETY_SECONDS + LIVENESS_SECONDS, CALLS_MAX):
                raise Broken("the world never comes to rest")
            self.checks.at_end()
        except (AssertionError, LookupError, ValueError, TypeError, AttributeError) as error:
            raise Failure(self, error) from error

    def digest(self) -> str:
        """A fingerprint of everything that happened."""
        return hashlib.sha256("\n".join(self.story.lines()).encode()).hexdigest()

    def _set_up(self) -> None:
        rng = self.rng
        for number in range(rng.choice((1, 2, 2, 3, 3))):
            self.clock.after(rng.random() * 0.5, self.start_master, f"m{number}")
        for number in range(rng.choice((1, 2, 3, 4))):
            self.clock.after(rng.random() * 0.5, self.start_worker, f"w{number}")
        for number, item in enumerate(self.plan):
            self.clock.after(item.at, self._happen, item, number)

    def _happen(self, item: Item, number: int) -> None:
        match item.what:
            case "submit":
                self._submit(item, number)
            case "cancel":
                self._cancel_something(item)
            case "explain":
                for run_id in self.store.runs:
                    self.client.explain(run_id)
            case _:
                self.faults.strike(item)

    def _submit(self, item: Item, number: int) -> None:
        dice = item.dice()
        workflow = random_workflow(dice, f"flow{number}")
        key = f"key{number}" if dice.random() < 0.7 else None
        self.story.tell("client", "submits", f"{workflow.name} of {len(workflow.tasks)} tasks")
        self.client.submit(workflow, key)

    def _cancel_something(self, item: Item) -> None:
        if self.store.runs:
            run_id = item.dice().choice(sorted(self.store.runs))
            self.story.tell("client", "cancels", run_id, run_id)
            self.client.cancel(run_id)

    # -- daemons come and go -----------------------------------------------------------------------------------

    def start_master(self, name: str) -> None:
        """A new life of this master."""
        self._begin(MasterHost(self, Member("master", name, self._boot(), name, 1), self._settings))

    def start_worker(self, name: str) -> None:
        """A new life of this worker; the number in its name says which groups it serves."""
        groups = (("default", "both"), ("gpu", "both"), ("default", "gpu", "both"))[(int(name[1:]) + 2) % 3]
        slots = 1 + int(name[1:]) % 3
        self._begin(WorkerHost(self, Member("worker", name, self._boot(), name, 2, groups, slots, 100 * slots)))

    def _boot(self) -> str:
        return f"{self.rng.getrandbits(24):06x}"

    def _begin(self, host: Host) -> None:
        before = self.current.get(host.name)
        assert before is None or not before.alive, f"{host.name} lives already"
        if before is not None:
            before.refuses = True  # another life answers at its address
        self.lives[host.member.id] = self.current[host.name] = host
        self.story.tell(host.name, "begins", host.member.id)
        self.faults.touch(host)
        host.after(self.latency(), self.registry.join, host)

    def crash(self, host: Host, *, power: bool = False, back_in: float | None = None) -> None:
        """The process is gone at once, or all of its machine; it comes back after a while."""
        if not host.alive:
            return
        self.story.tell(host.name, "crashes", f"{host.member.id}{' with its machine' if power else ''}")
        host.end(power=power, notice=NOTICE_SECONDS if power else 0.01)
        self.registry.lose_contact(host)
        self.clock.after(self.rng.random() * RESTART_SECONDS_MAX if back_in is None else back_in, self.restart, host)

    def leave(self, host: Host) -> None:
        """A clean end: the registry knows at once, if it can be told."""
        self.story.tell(host.name, "leaves", host.member.id)
        host.end(power=False, notice=0.01)
        self.registry.leave(host)
        self.clock.after(self.rng.random() * RESTART_SECONDS_MAX, self.restart, host)

    def restart(self, host: Host) -> None:
        """A new life of the same daemon, unless it has one; not before what the old one ran is gone."""
        if self.current[host.name].alive:
            return
        if not self.current[host.name].gone:
            self.clock.after(0.01, self.restart, host)
            return
        start = self.start_master if host.member.role == "master" else self.start_worker
        start(host.name)

    def pause(self, host: Host, seconds: float, *, suspend: bool = False) -> None:
        """The process stands still, or all of its machine, and goes on after so many seconds."""
        if not host.alive or host.paused or not self.faults.active:
            return
        self.story.tell(host.name, "suspends" if suspend else "pauses", f"for {seconds:.1f} s")
        if suspend:
            host.suspend()
        else:
            host.pause()
        self.clock.after(seconds, host.resume)

    def masters(self) -> list[MasterHost]:
        """Those that live, by name."""
        return [host for _, host in sorted(self.current.items()) if host.alive and isinstance(host, MasterHost)]

    def workers(self) -> list[WorkerHost]:
        """Those that live, by name."""
        return [host for _, host in sorted(self.current.items()) if host.alive and isinstance(host, WorkerHost)]

    def hosts(self) -> list[Host]:
        """All that live."""
        return [*self.masters(), *self.workers()]

    # -- how long things take, and whether they work ---------------------------------------------------------------

    def latency(self) -> float:
        """Seconds that something travels from host to host."""
        slow = self.faults.active and self.clock.now < self.faults.network_slow_until
        return self._lag * self.rng.uniform(0.5, 2.0) + (self.rng.random() * SLOW_SECONDS_MAX if slow else 0.0)

    def store_latency(self) -> float:
        """Seconds to the store or back."""
        slow = self.faults.active and self.clock.now < self.faults.store_slow_until
        return self._store_lag * self.rng.uniform(0.2, 2.0) + (self.rng.random() * SLOW_SECONDS_MAX if slow else 0.0)

    def store_fails(self) -> bool:
        """Whether the database is out of reach at this moment."""
        faults = self.faults
        if not faults.active or self.profile.strikes == (0,):
            return False
        return self.clock.now < faults.store_back_at or self.rng.random() < 0.002

    def answer_lost(self) -> bool:
        """Whether the database has done it and does not say so."""
        faults = self.faults
        share = 0.5 if self.clock.now < faults.answers_lost_until else faults.answers_lost
        return faults.active and self.rng.random() < share

    def start_fails(self) -> bool:
        """Whether a worker has no means to start a process at this moment."""
        return self.faults.active and self.rng.random() < self.faults.starts_refused
