"""What a master has decided long before it hears that it is durable may be another master's by then."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsfast.config import load_config
from dsfast.model import RunState, canonical
from dsfast.rows import Batch, Committed
from dsfast.runtime import master
from dsfast.runtime.embedded import Embedded
from dsfast.store.sqlite import SqliteStore
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
