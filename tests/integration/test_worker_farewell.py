"""A worker that is told to stop leaves, also with results that nobody is there to take."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from dsfast.config import load_config
from dsfast.engine import events as ev
from dsfast.model import Member
from dsfast.registry.memory import MemoryHub, MemoryRegistry
from dsfast.runtime import worker as module
from dsfast.runtime.wiring import Surroundings, build_worker
from dsfast.wire.commands import Execute

MASTER = Member("master", "m", "1")
DEADLINE_SECONDS = 20.0


async def test_a_worker_leaves_though_no_master_takes_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FAREWELL_SECONDS", 0.05)
    monkeypatch.setattr(module, "STOP_GRACE_SECONDS", 0.05)
    config = load_config(flags={"state_dir": str(tmp_path), "worker.port": "0", "worker.name": "w"}, environ={})
    registry = MemoryRegistry(MemoryHub())
    worker = await build_worker(Surroundings(config, (b"k" * 32,), registry, logging.getLogger("dsfast.worker")))
    await worker.start()
    worker.inbox.put(ev.LinkUp(MASTER))
    worker.inbox.put(ev.Received(MASTER.id, 0, Execute(1, 0, 1, 1, "t", b'{"type":"noop"}')))
    serving = asyncio.create_task(worker.serve())
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not worker.engine.held:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.001)
        worker.stop(0.0)
        await serving
    assert len(worker.engine.held) == 1
    await worker.close()
