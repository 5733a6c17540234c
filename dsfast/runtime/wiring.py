"""A master and a worker built from what the configuration says: used by the daemons and by `dsfast run`."""

from __future__ import annotations

import logging
import os
import random
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from dsfast.config import Config, MasterConfig, WorkerConfig, advertised_host
from dsfast.engine.events import Event
from dsfast.engine.fence import absent_seconds
from dsfast.engine.master import MasterEngine, MasterSettings
from dsfast.engine.worker import WorkerEngine
from dsfast.model import Member, OnDisconnect
from dsfast.registry.base import Registry
from dsfast.runtime.awake import Awake
from dsfast.runtime.executor import Executor, ExecutorSettings
from dsfast.runtime.guardian import Deadline
from dsfast.runtime.home import Home
from dsfast.runtime.inbox import Inbox
from dsfast.runtime.journal import Journal
from dsfast.runtime.limits import LinkLimits
from dsfast.runtime.links import Links
from dsfast.runtime.logs import LogDir
from dsfast.runtime.master import Master
from dsfast.runtime.points import inbox_type, links_type, master_type
from dsfast.runtime.standstill import Standstill
from dsfast.runtime.tls import tls_of
from dsfast.runtime.worker import Worker
from dsfast.store.base import Store

ACCEPTED = frozenset({"master", "api"})  # the roles that may open a link to a master or a worker
BOOT_BYTES = 6  # of a boot id: enough that no two lives of one name share it


@dataclass(slots=True)
class Surroundings:
    """What a daemon is given besides its role's configuration."""

    config: Config
    keys: tuple[bytes, ...]
    registry: Registry
    log: logging.Logger
    sock: socket.socket | None = None
    allow_remote: bool = False
    in_one_process: bool = False  # with all that it speaks to: its loop never sleeps while there is something to do
    rng: random.Random = field(default_factory=lambda: random.Random(secrets.randbits(64)))

    def inbox(self) -> Inbox:
        return inbox_type()(awake=Awake(allowed=False) if self.in_one_process else None)

    def links(self, me: Member, on_event: Callable[[Event], None], load: Callable[[], int]) -> Links:
        cluster = self.config.cluster
        limits = LinkLimits(
            heartbeat_seconds=cluster.heartbeat_seconds, heartbeat_timeout_seconds=cluster.heartbeat_timeout_seconds
        )
        return links_type()(
            me,
            keys=self.keys,
            cluster=cluster.name,
            accept=ACCEPTED,
            on_event=on_event,
            rng=self.rng,
            load=load,
            limits=limits,
            tls=tls_of(cluster),
        )


def new_member(role: str, config: MasterConfig | WorkerConfig) -> Member:
    """This life of a daemon: its name, and a boot id that no other life has."""
    host = advertised_host(config)
    member = Member(role, config.name, secrets.token_hex(BOOT_BYTES), host=host, started_at=time.time())
    if isinstance(config, WorkerConfig):
        member = msgspec.structs.replace(member, groups=config.groups, slots=config.slots, weight=config.weight)
    return member


async def build_master(around: Surroundings, store: Store, *, alone: bool = False) -> Master:
    """A master that listens, over a store that is open; one that is `alone` takes over nobody's runs."""
    config, inbox = around.config.master, around.inbox()
    load: Callable[[], int] = lambda: len(engine.core.runs)  # noqa: E731 - the engine comes after the port is known
    links = around.links(new_member("master", config), inbox.put, load)
    await links.listen(config.host, config.port, sock=around.sock, allow_remote=around.allow_remote)
    cluster = around.config.cluster
    on_disconnect = OnDisconnect(cluster.replace, cluster.stop_after_seconds or None, cluster.replace_after_seconds)
    absent = absent_seconds(cluster.heartbeat_timeout_seconds)
    settings = MasterSettings(config.policy, config.kill_grace_seconds, absent, config.failovers_max, on_disconnect)
    engine = MasterEngine(links.me, settings, around.rng)
    return master_type()(engine, store, around.registry, links, inbox, around.log, alone=alone)


async def build_worker(around: Surroundings, home: Home | None = None, deadline: Deadline | None = None) -> Worker:
    """A worker that listens. Its events wait until it serves.

    Without a home it keeps nothing for another life; without a deadline no guardian looks after it.
    """
    config, inbox = around.config.worker, around.inbox()
    load: Callable[[], int] = lambda: engine.busy  # noqa: E731 - likewise
    links = around.links(new_member("worker", config), inbox.put, load)
    await links.listen(config.host, config.port, sock=around.sock, allow_remote=around.allow_remote)
    engine = WorkerEngine(links.me)
    work_dir, mark = (home.attempts, home.mark) if home else (config.work_dir, "")
    settings = ExecutorSettings(work_dir, config.log_bytes_max, config.env_allow, dict(os.environ), mark)
    executor = Executor(settings, LogDir(config.log_dir), inbox.put, around.log)
    journal = Journal(home.results, around.log) if home else None
    if journal is not None:
        engine.recall(journal.waiting.values())
    registry, absent = around.registry, absent_seconds(around.config.cluster.heartbeat_timeout_seconds)
    standstill = Standstill(deadline, lambda: registry.listed_until, absent) if deadline else None
    return Worker(engine, executor, registry, links, inbox, around.log, journal, standstill)
