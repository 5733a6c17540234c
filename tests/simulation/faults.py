"""What goes wrong in a world, planned by chance from its seed, and put right at the end of the safety phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.master_host import MasterHost

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.world import World

LEASE_SECONDS = 10.0  # of a worker in the registry, renewed every third of it
PLANNED_SECONDS = 55.0


class Faults:
    """The faults of one world."""

    def __init__(self, world: World) -> None:
        rng = world.rng
        self._world = world
        self.active = True
        self.store_back_at = 0.0
        self.answers_lost = rng.choice((0.0, 0.0, 0.02, 0.1))
        self.starts_refused = rng.choice((0.0, 0.0, 0.1, 0.5))
        self._slow = rng.choice((0.0, 0.0, 0.0, 0.1))
        kinds = [
            self._crash_master, self._crash_master_between, self._crash_worker, self._cut, self._block,
            self._isolate_worker, self._unlist_worker, self._lose_session, self._lose_session, self._drain,
            self._fail_store,
        ]  # fmt: skip
        self._kinds = rng.sample(kinds, rng.choice((1, 2, 3, len(kinds))))

    def plan(self) -> None:
        """Spread some faults over the safety phase."""
        rng = self._world.rng
        for _ in range(rng.choice((0, 1, 3, 8, 20, 40))):
            self._world.clock.after(1.0 + rng.random() * PLANNED_SECONDS, self._strike, rng.choice(self._kinds))

    def touch(self, host: Host) -> None:
        """Make a new life slow, in a slow world."""
        if self.active:
            host.slow = self._world.rng.random() * self._slow

    def end(self) -> None:
        """Repair everything; who is down comes back."""
        world = self._world
        self.active = False
        world.network.heal()
        for host in world.hosts():
            host.slow = 0.0
            if isinstance(host, MasterHost):
                host.crash_after = None

    def _strike(self, kind: object) -> None:
        if self.active:
            kind()  # type: ignore[operator]

    def _crash_master(self) -> None:
        if masters := self._world.masters():
            self._world.crash(self._world.rng.choice(masters), power=self._world.rng.random() < 0.2)

    def _crash_master_between(self) -> None:
        """After a commit, before all of its sends have left."""
        if masters := self._world.masters():
            self._world.rng.choice(masters).crash_after = self._world.rng.choice((0, 0, 1, 2, 5))

    def _crash_worker(self) -> None:
        if workers := self._world.workers():
            self._world.crash(self._world.rng.choice(workers), power=self._world.rng.random() < 0.3)

    def _pair(self) -> tuple[str, str] | None:
        masters, workers, rng = self._world.masters(), self._world.workers(), self._world.rng
        return (rng.choice(masters).name, rng.choice(workers).name) if masters and workers else None

    def _cut(self) -> None:
        if pair := self._pair():
            self._world.story.tell("fault", "cuts", pair)
            self._world.network.cut(*pair, notice=self._world.rng.choice((0.001, 0.1, 6.0)))

    def _block(self) -> None:
        if pair := self._pair():
            self._world.story.tell("fault", "blocks", pair)
            self._world.network.block(*pair, seconds=self._world.rng.choice((1.0, 8.0, 30.0)))

    def _isolate_worker(self) -> None:
        """A worker reaches nobody: no link, and after its lease no place in the registry."""
        if not self._world.workers():
            return
        worker, seconds = self._world.rng.choice(self._world.workers()), self._world.rng.choice((5.0, 15.0, 40.0))
        self._world.story.tell("fault", "isolates", f"{worker.name} for {seconds} s")
        for name in self._world.current:
            self._world.network.block(name, worker.name, seconds)
        lease = LEASE_SECONDS * self._world.rng.uniform(0.6, 1.0)
        if seconds > lease:
            self._world.clock.after(lease, self._world.lose_session, worker, seconds - lease)

    def _unlist_worker(self) -> None:
        if workers := self._world.workers():
            worker = self._world.rng.choice(workers)
            self._world.story.tell("fault", "unregisters", worker.name)
            self._world.lose_session(worker, self._world.rng.choice((0.5, 5.0, 20.0)))

    def _lose_session(self) -> None:
        if masters := self._world.masters():
            master = self._world.rng.choice(masters)
            self._world.story.tell("fault", "unregisters", master.name)
            self._world.lose_session(master, self._world.rng.choice((0.5, 5.0, 20.0)))

    def _drain(self) -> None:
        if workers := self._world.workers():
            worker = self._world.rng.choice(workers)
            self._world.story.tell("fault", "drains", worker.name)
            worker.drain(self._world.rng.choice((0.0, 1.0, 10.0)))

    def _fail_store(self) -> None:
        seconds = self._world.rng.choice((0.3, 3.0, 12.0))
        self._world.story.tell("fault", "stops", f"the store for {seconds} s")
        self.store_back_at = self._world.clock.now + seconds
