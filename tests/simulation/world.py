"""A cluster in one thread: production engines, a virtual clock, one seeded chance, and everything that can go wrong.

Theory of operation. A world is made from a seed. First comes the safety phase: clients submit and cancel, and
faults happen by plan. Then everything is repaired, and in the liveness phase the world runs until nothing is left
to happen: no engine has a timer of its own, so a run that has not ended by then never would. Checks (checks.py)
look at every step. The same seed makes the same world, in every process.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from dsfast.engine.balance import POLICIES
from dsfast.engine.events import SessionChanged
from dsfast.engine.master import MasterSettings
from dsfast.model import Member
from tests.simulation.checks import Broken, Checks
from tests.simulation.client import Client
from tests.simulation.clock import Clock
from tests.simulation.faults import Faults
from tests.simulation.host import Host
from tests.simulation.master_host import MasterHost
from tests.simulation.memory import MemoryStore
from tests.simulation.network import NOTICE_SECONDS, Network
from tests.simulation.story import Story
from tests.simulation.worker_host import WorkerHost
from tests.simulation.workload import random_workflow

SAFETY_SECONDS = 60.0
LIVENESS_SECONDS = 20_000.0  # virtual; the longest back-offs and retries fit many times
SESSION_SECONDS = 6.0  # the registry misses a member after at most this
CALLS_MAX = 400_000  # that happen in all; ordinary worlds need a hundredth, and one that runs away is ended by it


class World:
    """One simulated cluster."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.clock = Clock()
        self.story = Story(self.clock)
        self.store = MemoryStore()
        self.network = Network(self)
        self.checks = Checks(self)
        self.store.witness = self.checks
        self.client = Client(self)
        self.lives: dict[str, Host] = {}  # every life there ever was, by member id
        self.current: dict[str, Host] = {}  # the last life of each daemon, by name
        self.members: dict[str, Member] = {}  # the registry's truth
        self.faults = Faults(self)
        self._lag = self.rng.choice((0.0002, 0.002, 0.05, 0.4))
        self._store_lag = self.rng.choice((0.0002, 0.002, 0.05, 0.5))
        self._settings = MasterSettings(policy=self.rng.choice(sorted(POLICIES)), failovers_max=1000)

    def run(self) -> None:
        """Live through both phases. Raises Broken, with the story of whom it concerns, when a promise is broken."""
        try:
            self._set_up()
            self.clock.run(SAFETY_SECONDS, CALLS_MAX)
            self.faults.end()
            if self.clock.run(SAFETY_SECONDS + LIVENESS_SECONDS, CALLS_MAX):
                raise Broken("the world never comes to rest")
            self.checks.at_end()
            self._check_accepted()
        except AssertionError as error:
            run, task = getattr(error, "run", None), getattr(error, "task", None)
            story = self.story.last_lines(run, task)
            raise AssertionError(f"seed {self.seed}: {error}\n{story}\nseed {self.seed}: {error}") from error

    def digest(self) -> str:
        """A fingerprint of everything that happened."""
        return hashlib.sha256("\n".join(self.story.lines()).encode()).hexdigest()

    def _check_accepted(self) -> None:
        for key, run_id in self.client.accepted.items():
            assert run_id in self.store.runs, f"run {run_id}, accepted under {key}, is lost"
        named = {row.idempotency_key for row in self.store.runs.values() if row.idempotency_key}
        assert len(named) == sum(row.idempotency_key is not None for row in self.store.runs.values())
        anonymous = sum(row.idempotency_key is None for row in self.store.runs.values())
        assert anonymous >= self.client.anonymous, "a run that was accepted without a key is lost"

    def _set_up(self) -> None:
        rng = self.rng
        for number in range(rng.choice((1, 2, 2, 3, 3))):
            self.clock.after(rng.random() * 0.5, self.start_master, f"m{number}")
        for number in range(rng.choice((1, 2, 3, 4))):
            self.clock.after(rng.random() * 0.5, self.start_worker, f"w{number}")
        for number in range(rng.choice((1, 2, 4, 8))):
            workflow = random_workflow(rng, f"flow{number}")
            key = f"key{number}" if rng.random() < 0.7 else None
            self.clock.after(1.0 + rng.random() * 40.0, self.client.submit, workflow, key)
        for _ in range(rng.choice((0, 0, 1, 4))):
            self.clock.after(2.0 + rng.random() * 50.0, self._cancel_something)
        self.clock.after(rng.random() * SAFETY_SECONDS, self._explain_everything)
        self.faults.plan()

    def _cancel_something(self) -> None:
        if self.store.runs:
            self.client.cancel(self.rng.choice(sorted(self.store.runs)))

    def _explain_everything(self) -> None:
        for run_id in self.store.runs:
            self.client.explain(run_id)

    # -- daemons come and go -----------------------------------------------------------------------------------

    def start_master(self, name: str) -> None:
        """A new life of this master."""
        host = MasterHost(self, Member("master", name, self._boot(), name, 1), self._settings)
        self._begin(host)
        self.faults.touch(host)
        host.put(SessionChanged("connected"))
        host.learn_members(self.view())
        self.clock.after(self.latency(), self.join, host)

    def start_worker(self, name: str) -> None:
        """A new life of this worker; the number in its name says which groups it serves."""
        groups = (("default", "both"), ("gpu", "both"), ("default", "gpu", "both"))[(int(name[1:]) + 2) % 3]
        slots = 1 + int(name[1:]) % 3
        host = WorkerHost(self, Member("worker", name, self._boot(), name, 2, groups, slots, 100 * slots))
        self._begin(host)
        self.faults.touch(host)
        host.learn_members(self.view())
        self.clock.after(self.latency(), self.join, host)

    def _boot(self) -> str:
        return f"{self.rng.getrandbits(24):06x}"

    def _begin(self, host: Host) -> None:
        before = self.current.get(host.name)
        assert before is None or not before.alive, f"{host.name} lives already"
        if before is not None:
            before.refuses = True  # another life answers at its address
        self.lives[host.member.id] = self.current[host.name] = host
        self.story.tell(host.name, "begins", host.member.id)

    def crash(self, host: Host, *, power: bool = False) -> None:
        """The process is gone at once; without power its machine does not even refuse connections."""
        self.story.tell(host.name, "crashes", host.member.id)
        host.end(refuses=not power, notice=NOTICE_SECONDS if power else 0.01)
        self.clock.after(self.rng.random() * SESSION_SECONDS, self._remove, host)
        self.clock.after(self.rng.random() * 15.0, self.restart, host)

    def leave(self, host: Host) -> None:
        """A clean end: the registry knows at once."""
        self.story.tell(host.name, "leaves", host.member.id)
        host.end(refuses=True, notice=0.01)
        self._remove(host)
        self.clock.after(self.rng.random() * 15.0, self.restart, host)

    def restart(self, host: Host) -> None:
        """A new life of the same daemon, unless it has one."""
        if self.current[host.name].alive:
            return
        start = self.start_master if host.member.role == "master" else self.start_worker
        start(host.name)

    def masters(self) -> list[MasterHost]:
        """Those that live, by name."""
        return [host for _, host in sorted(self.current.items()) if host.alive and isinstance(host, MasterHost)]

    def workers(self) -> list[WorkerHost]:
        """Those that live, by name."""
        return [host for _, host in sorted(self.current.items()) if host.alive and isinstance(host, WorkerHost)]

    def hosts(self) -> Sequence[Host]:
        """All that live."""
        return [*self.masters(), *self.workers()]

    # -- the registry ------------------------------------------------------------------------------------------

    def view(self) -> tuple[Member, ...]:
        return tuple(member for _, member in sorted(self.members.items()))

    def join(self, host: Host) -> None:
        """The registry shows this member from now on."""
        if host.alive:
            self.members[host.member.id] = host.member
            self._tell_members()

    def _remove(self, host: Host) -> None:
        if self.members.pop(host.member.id, None) is not None:
            self._tell_members()

    def lose_session(self, host: Host, seconds: float) -> None:
        """The registry believes this daemon dead, for a while. A worker knows it no later than anybody else."""
        if host.unlisted_now:
            return
        host.unlisted = host.unlisted_now = True
        told = self.latency()
        self.clock.after(told, host.put, SessionChanged("lost"))
        seen = self.rng.random() * 2.0 if host.member.role == "worker" else 0.0
        self.clock.after(told + seen if seen else 0.0, self._remove, host)
        self.clock.after(told + seen + seconds, self._regain_session, host)

    def _regain_session(self, host: Host) -> None:
        host.unlisted_now = False
        self.join(host)
        host.put(SessionChanged("connected"))

    def _tell_members(self) -> None:
        """Everybody learns the newest view in their own time; views never go back."""
        for host in self.hosts():
            self.clock.after(self.latency() + self.rng.random() * 0.2, self._show_members, host)

    def _show_members(self, host: MasterHost | WorkerHost) -> None:
        host.learn_members(self.view())

    # -- how long things take, and whether they work ---------------------------------------------------------------

    def latency(self) -> float:
        """Seconds that something travels from host to host."""
        return self._lag * self.rng.uniform(0.5, 2.0)

    def store_latency(self) -> float:
        """Seconds to the store or back."""
        return self._store_lag * self.rng.uniform(0.2, 2.0)

    def store_fails(self) -> bool:
        return self.faults.active and (self.clock.now < self.faults.store_back_at or self.rng.random() < 0.002)

    def answer_lost(self) -> bool:
        return self.faults.active and self.rng.random() < self.faults.answers_lost

    def start_fails(self) -> bool:
        return self.faults.active and self.rng.random() < self.faults.starts_refused
