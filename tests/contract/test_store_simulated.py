"""The simulation's store keeps the contract that real ones keep: the same tests, where they need no SQL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from inspect import signature

import pytest

from dsfast.model import RunState
from dsfast.rows import AttemptRow, Batch, Committed, OwnedRun, RunRow
from dsfast.sim.store import MemoryStore, copy_batch
from tests.contract import test_store

NOT_SIMULATED = {
    "test_text_that_databases_cannot_hold_is_replaced": "it holds any text",
    "test_counts_look_at_the_latest_attempt_of_each_task": "nobody counts there",
    "test_runs_over_which_masters_end_are_counted": "an engine that fails ends the world: that is the find",
    "test_unknown_things_are_none": "nobody counts there",
    "test_a_store_can_be_closed_and_opened_again": "it never closes",
}
SHARED = [
    test
    for name, test in vars(test_store).items()
    if name.startswith("test_") and name not in NOT_SIMULATED and list(signature(test).parameters) == ["store"]
]


class Asked:
    """The simulated store as masters and people ask a real one. Nothing travels: every answer is there at once."""

    def __init__(self) -> None:
        self.truth = MemoryStore()

    async def commit(self, batch: Batch) -> Committed:
        return self.truth.commit(copy_batch(batch))

    async def claim(self, owner: str, alive: Collection[str], share: Callable[[int], bool]) -> list[OwnedRun]:
        return self.truth.claim(owner, alive, share)

    async def owned(self, owner: str) -> list[int]:
        return [run_id for run_id, run in sorted(self.truth.runs.items()) if run.owner == owner]

    async def find_key(self, idempotency_key: str) -> int | None:
        return self.truth.keys.get(idempotency_key)

    async def run(self, run_id: int) -> RunRow | None:
        return self.truth.runs.get(run_id)

    async def runs(
        self,
        *,
        states: Collection[RunState] = (),
        workflow: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[RunRow]:
        newest = [run for _, run in sorted(self.truth.runs.items(), reverse=True)]
        found = [run for run in newest if (not states or run.state in states) and workflow in (None, run.workflow)]
        return [run for run in found if before is None or run.id < before][:limit]

    async def definition(self, digest: str) -> bytes | None:
        return self.truth.definitions.get(digest)

    async def attempts(self, run_id: int, *, task: int | None = None) -> list[AttemptRow]:
        rows = sorted(self.truth.attempts.get(run_id, {}).items())
        return [row for key, row in rows if task in (None, key[1])]


@pytest.mark.parametrize("test", SHARED, ids=lambda test: test.__name__.removeprefix("test_"))
async def test_the_simulated_store_keeps_the_contract(test: Callable[[Asked], Awaitable[None]]) -> None:
    await test(Asked())


def test_most_of_the_contract_is_shared() -> None:
    assert len(SHARED) >= 15
