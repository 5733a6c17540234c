"""What was decided, or said, long ago may be out of date: a master asks again, a worker forgets it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from dsfast.config import load_config
from dsfast.engine import events as ev
from dsfast.model import RunState, canonical
from dsfast.registry.memory import MemoryHub, MemoryRegistry
from dsfast.rows import Batch, Committed
from dsfast.runtime import master
from dsfast.runtime.embedded import Embedded
from dsfast.runtime.wiring import Surroundings, build_worker
from dsfast.store.sqlite import SqliteStore
from dsfast.wire import commands as cmd
from tests.workflows import flat


async def test_a_confirmation_that_took_long_is_asked_for_again_before_anything_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(master, "DOUBT_SECONDS", -1.0)
    config = load_config(flags={"state_dir": str(tmp_path), "master.port": 0, "worker.port": 0}, environ={})
    async with Embedded(config) as embedded:
        assert isinstance(embedded.store, SqliteStore)
        other = SqliteStore(config.store.url, exclusive=False, shared=True)
        await other.open()
        commit, runs = embedded.store.commit, []

        async def slow(batch: Batch) -> Committed:
            """Another master takes the first run over while the answer is on its way."""
            committed = await commit(batch)
            if batch.new_runs and not runs:
                runs.extend(await other.claim("other@1", (), lambda run: True))
            return committed

        monkeypatch.setattr(embedded.store, "commit", slow)
        lost = await embedded.submit(canonical(flat(1)), b"{}")
        assert [owned.run.id for owned in runs] == [lost]
        kept = await embedded.submit(canonical(flat(1)), b"{}")
        assert (await embedded.wait(kept)).state is RunState.SUCCEEDED  # on the same link, behind the first
        assert not embedded._worker.engine.held
        await other.close()


async def test_a_worker_that_stood_still_loses_its_links_before_its_lease_and_hears_no_master(tmp_path: Path) -> None:
    """The other way round it would believe that all masters are linked and that nobody can have replaced anything."""
    config = load_config(flags={"state_dir": str(tmp_path), "worker.port": 0}, environ={})
    worker = await build_worker(Surroundings(config, (b"k" * 32,), MemoryRegistry(MemoryHub()), logging.getLogger()))
    down, said = ev.LinkDown("m@1"), ev.Received("m@1", 0, cmd.Demand(True))
    worker.inbox.put(down)
    told = worker._distrust([said, ev.Tick()])
    assert next(event for event in told if not isinstance(event, ev.Tick)) == down
    assert said not in told
    assert [event.state for event in told[-2:] if isinstance(event, ev.SessionChanged)] == ["lost", "suspended"]
    await worker.close()
