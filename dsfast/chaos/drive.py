"""One chaos from beginning to end: set the stage, break it under load by the seed, heal it, wait, judge, clear up."""

from __future__ import annotations

import heapq
import random
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import FrameType

from dsfast.chaos.cluster import Cluster
from dsfast.chaos.faults import Heal, begin, possible
from dsfast.chaos.journal import Journal
from dsfast.chaos.judge import Evidence, Verdict, judge
from dsfast.chaos.load import Load
from dsfast.chaos.network import Loopback, Network, best_network
from dsfast.chaos.plan import Cast, Fault, check_kinds, make_plan
from dsfast.chaos.postgres import PostgresServer
from dsfast.chaos.stage import TASKS, Stage
from dsfast.chaos.story import keep_evidence, tell
from dsfast.chaos.vitals import Vitals
from dsfast.chaos.witness import Witness, marked_processes
from dsfast.chaos.zookeeper import Ensemble
from dsfast.errors import Problem, Unavailable, UsageError

TICK_SECONDS = 0.05
PROGRESS_SECONDS = 10.0
END_SECONDS = 120.0  # for all runs to end once everything is healed: a run here has five tasks of five seconds at most
QUIET_SECONDS = 20.0  # for the processes of ended attempts to be gone
ZOOKEEPERS = 3
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for. Without URLs, servers are started here; `registry` may also be "zookeeper" or "database"."""

    minutes: float
    seed: int
    every: tuple[float, float] = (2.0, 10.0)
    faults: tuple[str, ...] = ()
    masters: int = 3
    workers: int = 5
    slots: int = 4
    runs: int = 12  # unfinished at a time
    lease_seconds: float = 4.0
    store: str = ""
    registry: str = "zookeeper"
    partitions: bool = True
    folder: Path | None = None
    keep: bool = False


@dataclass(slots=True)
class Strike:
    """A fault that happened, and when by the clock of the day."""

    fault: Fault
    at: float


@dataclass(slots=True)
class Tale:
    """What happened to the stage."""

    strikes: list[Strike] = field(default_factory=list)
    missed: Counter[str] = field(default_factory=Counter)  # whose target was not there


def run_chaos(order: Order, say: Say) -> Verdict:
    """Let it happen and judge it. The folder with all that was seen stays if something was found, else it goes.

    Raises UsageError or Unavailable for what is missing on this machine or out of reach.
    """
    folder = order.folder or Path(tempfile.mkdtemp(prefix="dsfast-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise UsageError(Problem(f"{folder} is not empty", hint="chaos keeps what it sees there: name another"))
    say(f"seed {order.seed}, folder {folder}")
    found = True  # until shown otherwise: whatever goes wrong in here, what was seen stays
    try:
        with _interruptible(), _staged(order, folder, say) as stage:
            witness = Witness(folder / TASKS)
            stage.journal.install()
            try:
                verdict = _perform(order, stage, witness, say)
            finally:
                with suppress(Unavailable):
                    stage.journal.remove()
        found = bool(verdict.findings)
        verdict.folder = str(folder) if found or order.keep else ""
        return verdict
    except UsageError:
        found = False
        raise
    finally:
        if not found and not order.keep:
            shutil.rmtree(folder, ignore_errors=True)


def _perform(order: Order, stage: Stage, witness: Witness, say: Say) -> Verdict:
    kinds = check_kinds(order.faults, possible(stage))
    stage.start()
    say(f"{len(stage.cast.masters)} masters, {len(stage.cast.workers)} workers; {stage.network.kind}")
    rng = random.Random(f"load {order.seed}")
    load = Load(lambda: stage.cluster.client(10.0), stage.journal, witness, rng, order.runs)
    vitals = Vitals(stage)
    tale = Tale()
    plan = make_plan(
        order.seed, kinds, stage.cast, every=order.every, seconds=order.minutes * 60, lease=order.lease_seconds
    )
    load.start()
    _break(order, stage, plan, load, tale, vitals, say)
    say("healed; waiting for every run to end")
    _wait_for_end(stage, load, vitals)
    evidence = Evidence(
        promises=load.promises,
        notes=list(stage.journal.notes()),
        sightings=list(witness.sightings()),
        strikes=[(strike.at, strike.fault.kind, strike.fault.targets) for strike in tale.strikes],
        processes=_wait_for_quiet(witness),
        vitals=vitals,
        left_over=vitals.left_over(),
    )
    keep_evidence(evidence, stage.cluster.folder)
    verdict = judge(evidence)
    verdict.story = tell(verdict, evidence, stage.cluster)
    verdict.seed = order.seed
    verdict.faults = Counter(strike.fault.kind for strike in tale.strikes)
    verdict.missed = tale.missed
    verdict.respawned = stage.respawned
    return verdict


def _break(order: Order, stage: Stage, plan: Iterator[Fault], load: Load, tale: Tale, vitals: Vitals, say: Say) -> None:
    """Let the plan happen, then heal what is still broken."""
    started, numbers = time.monotonic(), count()
    heals: list[tuple[float, int, Heal]] = []
    fault = next(plan, None)
    shown = 0.0
    pause = threading.Event()
    try:
        while (now := time.monotonic() - started) < order.minutes * 60:
            while heals and heals[0][0] <= now:
                heapq.heappop(heals)[2]()
            if fault is not None and fault.at <= now:
                heal = _happen(fault, stage, tale, say)
                heapq.heappush(heals, (fault.at + fault.seconds, next(numbers), heal))
                fault = next(plan, None)
            stage.tend()
            vitals.look()
            if now - shown >= PROGRESS_SECONDS:
                shown = now
                say(_progress(now, load, tale))
            if load.error is not None:
                raise load.error
            pause.wait(TICK_SECONDS)
    finally:
        for _, _, heal in heals:
            heal()


def _happen(fault: Fault, stage: Stage, tale: Tale, say: Say) -> Heal:
    try:
        at = time.time()
        heal = begin(fault, stage)
    except Unavailable:
        tale.missed[fault.kind] += 1
        return lambda: None
    tale.strikes.append(Strike(fault, at))
    say(f"{fault.at:8.1f} s  {fault}")
    return heal


def _progress(now: float, load: Load, tale: Tale) -> str:
    return (
        f"{now:8.1f} s  {len(load.promises)} runs accepted, {load.ended} ended, {load.tasks} attempts ended,"
        f" {len(tale.strikes)} faults"
    )


def _wait_for_end(stage: Stage, load: Load, vitals: Vitals) -> None:
    """Wait until no run is unfinished, or it has taken too long."""
    stopping = threading.Thread(target=load.stop)
    stopping.start()
    deadline = time.monotonic() + END_SECONDS
    left: list[int] = [-1]
    while (left or stopping.is_alive()) and time.monotonic() < deadline:
        stage.tend()
        vitals.look()
        stopping.join(TICK_SECONDS * 4)
        with suppress(Unavailable):
            left = stage.journal.unfinished()
    if load.error is not None:
        raise load.error


def _wait_for_quiet(witness: Witness) -> list[tuple[int, str]]:
    """Wait until no process carries an attempt's mark; those that still do when it has taken too long."""
    deadline = time.monotonic() + QUIET_SECONDS
    while (left := marked_processes(witness.folder)) and time.monotonic() < deadline:
        time.sleep(TICK_SECONDS)
    return left


@contextmanager
def _staged(order: Order, folder: Path, say: Say) -> Iterator[Stage]:
    """The stage with its servers; all of it is gone afterwards."""
    own_servers = not order.store and order.registry in ("zookeeper", "database")
    network, why = best_network() if order.partitions and own_servers else (Loopback(), "")
    say(f"network: {network.kind}" + (f" ({why})" if why else ""))
    cast = Cast([f"m{n}" for n in range(1, order.masters + 1)], [f"w{n}" for n in range(1, order.workers + 1)])
    store: PostgresServer | None = None
    registry: Ensemble | None = None
    stage: Stage | None = None
    try:
        store = None if order.store else _placed_store(network)
        url = store.new_migrated_database() if store is not None else order.store
        registry = _placed_registry(network) if order.registry == "zookeeper" else None
        for name in (*cast.masters, *cast.workers, "api"):
            network.join(name)
        cluster = Cluster(
            folder,
            url,
            _registry_url(order, registry, url),
            session_seconds=order.lease_seconds,
            network=network,
            settings=_settings(order),
        )
        stage = Stage(cluster, network, Journal(url), cast, order.slots, store, registry)
        yield stage
    finally:
        if stage is not None:
            stage.close()
        else:
            for part in (registry, store, network):
                if part is not None:
                    part.close()


def _placed_store(network: Network) -> PostgresServer:
    network.join("store")
    return PostgresServer(network.address("store"), network.enter("store"))


def _placed_registry(network: Network) -> Ensemble:
    names = [f"zk{number}" for number in range(1, ZOOKEEPERS + 1)]
    for name in names:
        network.join(name)
    return Ensemble([(network.address(name), network.enter(name)) for name in names])


def _registry_url(order: Order, registry: Ensemble | None, store_url: str) -> str:
    if registry is not None:
        return registry.url("chaos")
    return f"database+{store_url}" if order.registry == "database" else order.registry


def _settings(order: Order) -> dict[str, str]:
    """Signs of life and grace in proportion to the lease, so that minutes here are hours elsewhere."""
    return {
        "DSFAST_CLUSTER_HEARTBEAT_SECONDS": f"{order.lease_seconds / 8:g}",
        "DSFAST_CLUSTER_HEARTBEAT_TIMEOUT_SECONDS": f"{order.lease_seconds / 2:g}",
        "DSFAST_MASTER_KILL_GRACE_SECONDS": "1",
    }


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM is Ctrl-C: both end in clearing up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
