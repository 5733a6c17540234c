"""Networks that fall apart around a working cluster: every daemon in a network namespace of its own, cut between them.

Whatever is cut off, no task runs beside its replacement (the kernel says so) and what was accepted ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from dsfast.chaos.cluster import Cluster
from dsfast.chaos.network import Namespaces
from dsfast.chaos.postgres import PostgresServer
from dsfast.chaos.zookeeper import Ensemble
from dsfast.cli.exits import Exit
from dsfast.client import Client
from dsfast.errors import Unavailable
from dsfast.ids import run_number
from dsfast.model import Task, Workflow, canonical
from dsfast.views import RunView
from tests.integration.witness import Witness

DAEMONS = ("m1", "m2", "w1", "w2", "api")
SERVERS = ("store", "registry")
LEASE_SECONDS = 3.0
RUN_SECONDS = 60.0
TASKS = 20
LOST_PERCENT = 20
END_CONNECTIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
CUT_OFF_SECONDS = 90.0  # a commit hangs for half a minute in a silent network; then the others are asked
HEARTBEATS = {"DSFAST_CLUSTER_HEARTBEAT_SECONDS": "0.4", "DSFAST_CLUSTER_HEARTBEAT_TIMEOUT_SECONDS": "1.5"}


class Partitioned(Cluster):
    """Two masters, two workers and an api, each at its own address, as are their store and their registry."""

    def __init__(self, folder: Path, network: Namespaces, store: PostgresServer, registry: Ensemble) -> None:
        database = store.new_migrated_database()
        url = registry.url("partitions")
        super().__init__(folder, database, url, session_seconds=LEASE_SECONDS, network=network, settings=HEARTBEATS)
        self.store, self.net, self._database = store, network, database
        self.witness = Witness(folder)
        self._cuts: set[tuple[str, str]] = set()
        self._runs = 0

    def cut(self, some: Iterable[str], others: Iterable[str], *, one_way: bool = False) -> None:
        """Lose everything between these and those; one way: only what these send."""
        pairs = set(product(some, others))
        self._cuts |= pairs if one_way else pairs | {(two, one) for one, two in pairs}
        for source, target in self._cuts:
            self.net.cut(source, target)

    def heal(self) -> None:
        """Let everything through again; returns once all are back."""
        for source, target in self._cuts:
            self.net.mend(source, target)
        self._cuts.clear()
        self.until(lambda: self.complete(2, 2))

    def gated(self, client: Client) -> tuple[RunView, str, str, str]:
        """A run whose first task runs until its gate is opened: the run, gate, its owner and its worker."""
        self._runs += 1
        gate = f"gate{self._runs}"
        tasks = (self.witness.task("first", gate), Task(name="second", type="noop", needs=("first",)))
        run = client.submit(msgspec.Raw(canonical(Workflow(name=gate, tasks=tasks))))
        self.until(lambda: self.witness.lines(run.id)["start"] == 1)
        owner = self.sql(f"SELECT owner FROM runs WHERE id = {run_number(run.id)}").partition("@")[0]
        return run, gate, owner, (client.task(run.id, "first").history[0].worker or "").partition("@")[0]

    def sql(self, statement: str) -> str:
        return self.store.sql(statement, self._database)

    def attempts(self, client: Client, run: RunView) -> list[str]:
        return [attempt.state for attempt in client.task(run.id, "first").history]


@pytest.fixture(scope="module")
def network() -> Iterator[Namespaces]:
    try:
        made = Namespaces()
    except Unavailable as error:
        raise pytest.UsageError(f"these tests need root and iproute2 (apt-get install iproute2): {error}") from None
    yield made
    made.close()


@pytest.fixture(scope="module")
def parted(network: Namespaces, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Partitioned]:
    for name in (*DAEMONS, *SERVERS):
        network.join(name)
    store = PostgresServer(network.address("store"), network.enter("store"))
    registry = Ensemble([(network.address("registry"), network.enter("registry"))])
    cluster = Partitioned(tmp_path_factory.mktemp("parted"), network, store, registry)
    try:
        cluster.start_all(masters=2, workers=2)
        yield cluster
    finally:
        cluster.stop()
        registry.close()
        store.close()


def others(*names: str) -> list[str]:
    """Everybody but these."""
    return [name for name in (*DAEMONS, *SERVERS) if name not in names]


def finish(parted: Partitioned, client: Client, run: RunView, gate: str) -> None:
    """Open the gate; the run succeeds, and no two of its attempts ever met."""
    parted.witness.open(gate)
    parted.until(lambda: client.run(run.id).state == "succeeded", RUN_SECONDS)
    assert not parted.witness.lines(run.id)["overlap"], parted.story()


def test_a_worker_cut_off_together_with_the_owner_ends_its_tasks_before_they_are_replaced(parted: Partitioned) -> None:
    """Their link is healthy; the other master has store and registry, and cannot reach the worker."""
    with parted.client() as client:
        run, gate, owner, worker = parted.gated(client)
        parted.cut((owner, worker), others(owner, worker))
        parted.until(lambda: parted.witness.lines(run.id)["start"] == 2)
        finish(parted, client, run, gate)
        assert parted.attempts(client, run) == ["failover", "succeeded"]
        parted.heal()


def test_a_worker_cut_off_from_everything_is_replaced_once(parted: Partitioned) -> None:
    with parted.client() as client:
        run, gate, _, worker = parted.gated(client)
        parted.cut((worker,), others(worker))
        parted.until(lambda: parted.witness.lines(run.id)["start"] == 2)
        parted.heal()
        finish(parted, client, run, gate)
        assert parted.attempts(client, run) == ["failover", "succeeded"]


@pytest.mark.parametrize("sender", ["master", "worker"])
def test_a_worker_that_masters_cannot_reach_one_way_keeps_its_tasks_while_it_is_listed(
    parted: Partitioned, sender: str
) -> None:
    """Heartbeats are question and answer, so one way is as good as both; its lease says that it lives."""
    with parted.client() as client:
        run, gate, owner, worker = parted.gated(client)
        ends = ((owner,), (worker,)) if sender == "master" else ((worker,), (owner,))
        downs = log_of(parted, owner).count(f"link_down peer={worker}")
        parted.cut(*ends, one_way=True)
        parted.until(lambda: log_of(parted, owner).count(f"link_down peer={worker}") > downs)
        parted.witness.open(gate)
        parted.until(lambda: parted.witness.lines(run.id)["end"] == 1)
        parted.heal()
        finish(parted, client, run, gate)
        assert parted.attempts(client, run) == ["succeeded"]


def test_a_master_cut_off_from_the_registry_hands_over_and_disturbs_nothing(parted: Partitioned) -> None:
    with parted.client() as client:
        run, gate, owner, _ = parted.gated(client)
        parted.cut((owner,), ("registry",))
        parted.until(lambda: parted.sql(f"SELECT owner FROM runs WHERE id = {run_number(run.id)}")[:2] != owner)
        finish(parted, client, run, gate)
        assert parted.attempts(client, run) == ["succeeded"]
        parted.heal()


def test_a_master_cut_off_from_the_database_alone_hands_over_and_disturbs_nothing(parted: Partitioned) -> None:
    """It still has its links and its place in the registry, and ends all the same: it cannot do anything with them."""
    with parted.client() as client:
        run, gate, owner, _ = parted.gated(client)
        other = "m2" if owner == "m1" else "m1"
        parted.cut((owner,), ("store",))
        parted.witness.open(gate)  # there is something to write now
        assert parted.daemons[owner].wait(CUT_OFF_SECONDS) == Exit.UNREACHABLE, parted.story()
        assert f"alone cannot reach the database: master {other} has just been answered" in log_of(parted, owner)
        finish(parted, client, run, gate)
        assert parted.attempts(client, run) == ["succeeded"]
        parted.start("master", owner)
        parted.heal()


def test_masters_that_are_all_cut_off_from_the_database_wait_for_it(parted: Partitioned) -> None:
    with parted.client() as client:
        run, gate, owner, _ = parted.gated(client)
        asked = log_of(parted, owner).count("store_outage ")
        parted.sql(END_CONNECTIONS)  # one that is only cut is given up after half a minute
        parted.cut(("m1", "m2"), ("store",))
        parted.witness.open(gate)
        parted.until(lambda: log_of(parted, owner).count("store_outage ") > asked, CUT_OFF_SECONDS)
        parted.heal()
        finish(parted, client, run, gate)
        assert parted.attempts(client, run) == ["succeeded"]
        assert parted.sql(f"SELECT epoch FROM runs WHERE id = {run_number(run.id)}").strip() == "1"


def test_a_network_that_loses_packets_is_slow_and_doubles_nothing(parted: Partitioned) -> None:
    """Everywhere: between daemons, to the database and to the registry."""
    with parted.client() as client:
        run, gate, _, _ = parted.gated(client)
        names = [f"t{number}" for number in range(TASKS)]
        tasks = tuple(replace(parted.witness.task(name, gate), needs=needs) for name, needs in in_turn(names))
        parted.witness.open(gate)
        parted.net.lose(LOST_PERCENT)
        try:
            chain = client.submit(msgspec.Raw(canonical(Workflow(name="chain", tasks=tasks))), idempotency_key="lossy")
            parted.until(lambda: client.run(chain.id).state == "succeeded", 2 * RUN_SECONDS)
        finally:
            lost = parted.net.lose_no_more()
        assert lost > TASKS
        parted.heal()
        finish(parted, client, run, gate)
        assert parted.witness.lines(chain.id)["end"] >= TASKS
        assert not parted.witness.lines(chain.id)["overlap"], parted.story()


def in_turn(names: list[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Each name with the one before it."""
    return [(name, tuple(names[max(place - 1, 0) : place])) for place, name in enumerate(names)]


def log_of(parted: Partitioned, name: str) -> str:
    return (parted.folder / f"{name}.log").read_text()
