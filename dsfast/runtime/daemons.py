"""The daemons `dsfast master` and `dsfast worker`: from a configuration to a process that ends when it is told to."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable

from dsfast.config import Config, require_safe_bind
from dsfast.log import log_event, setup_logging
from dsfast.registry import open_registry
from dsfast.runtime import heap
from dsfast.runtime.guardian import Deadline
from dsfast.runtime.home import Home
from dsfast.runtime.keys import load_keys
from dsfast.runtime.notify import notify_ready
from dsfast.runtime.wiring import Surroundings, build_master, build_worker
from dsfast.store import open_store
from dsfast.tasks.types import load_built_in

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def serve_master(config: Config) -> None:
    """Run a master until SIGTERM or SIGINT. Raises UsageError or Unavailable with a sentence if it cannot start."""
    around = _surroundings(config, "master")
    store = open_store(config.store.url, create=config.store.url.startswith("sqlite"))
    await store.open()
    master = await build_master(around, store)
    try:
        await master.start()
        _on_stop_signals(master.stop)
        me = master.links.me
        log_event(around.log, "master_ready", id=me.id, host=me.host, port=me.port)
        heap.settle()
        notify_ready()
        await master.serve()
    finally:
        await master.close()
        log_event(around.log, "master_stopped")


async def serve_worker(config: Config, listener: socket.socket, home: Home, deadline: Deadline) -> None:
    """Run a worker on a listening socket until SIGTERM or SIGINT (drain; a second one ends what runs).

    Raises Unavailable when what its former life has left cannot be ended.
    """
    load_built_in()
    around = _surroundings(config, "worker")
    around.sock = listener
    if swept := home.sweep():
        log_event(around.log, "former_life_swept", level=logging.WARNING, processes=swept)
    worker = await build_worker(around, home, deadline)
    try:
        await worker.start()
        _on_stop_signals(lambda: worker.stop(config.worker.drain_seconds))
        me = worker.links.me
        log_event(around.log, "worker_ready", id=me.id, host=me.host, port=me.port, slots=me.slots)
        heap.settle()
        notify_ready()
        await worker.serve()
    finally:
        await worker.close()
        log_event(around.log, "worker_stopped")


def _surroundings(config: Config, role: str) -> Surroundings:
    require_safe_bind(config, role)
    log = setup_logging(config.log, role)
    keys = load_keys(config.cluster.key_file, create=not config.explicit("cluster.key_file"))
    registry = open_registry(
        config.registry.url, cluster=config.cluster.name, session_seconds=config.registry.session_seconds
    )
    return Surroundings(config, keys, registry, log, allow_remote=True)


def _on_stop_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop)
