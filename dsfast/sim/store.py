"""A store in memory, with the semantics of dsfast.store.base and nothing else: in a simulation it is the truth.

It is synchronous; who asks decides how long the question and the answer travel and whether they arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from msgspec.structs import replace

from dsfast.rows import AttemptRow, Batch, Committed, OwnedRun, RunRow
from dsfast.wire.commands import Attempt

SUBMITTED = ("workflow", "digest", "params", "created_at", "idempotency_key")


class Witness(Protocol):
    """Who looks at every change before it is made."""

    def run_changes(self, old: RunRow | None, new: RunRow) -> None: ...

    def attempt_changes(self, old: AttemptRow | None, new: AttemptRow, epoch: int) -> None: ...


class MemoryStore:
    """Runs, attempts and definitions; every row in it is its own copy."""

    def __init__(self) -> None:
        self.runs: dict[int, RunRow] = {}
        self.attempts: dict[int, dict[Attempt, AttemptRow]] = {}
        self.definitions: dict[str, bytes] = {}
        self.keys: dict[str, int] = {}
        self.witness: Witness | None = None

    def commit(self, batch: Batch) -> Committed:
        """See dsfast.store.base.Store.commit."""
        touched = batch.runs.keys() | {key[0] for key in batch.attempts}
        assert touched <= batch.epochs.keys() | {row.id for row in batch.new_runs}, "rows of a run without an epoch"
        for definition in batch.definitions:
            self.definitions.setdefault(definition.digest, definition.body)
        duplicates, fresh = self._insert(batch)
        lost, settled = self._fence(batch, fresh | duplicates.keys())
        refused = lost | settled | duplicates.keys()
        for run_id, row in batch.runs.items():
            if run_id not in refused:
                self._put_run(row)
        for key, attempt in batch.attempts.items():
            if key[0] not in refused:
                self._put_attempt(key, attempt, batch.epochs.get(key[0], self.runs[key[0]].epoch))
        return Committed(frozenset(lost), duplicates)

    def _insert(self, batch: Batch) -> tuple[dict[int, int], set[int]]:
        duplicates: dict[int, int] = {}
        fresh = set()
        for row in batch.new_runs:
            if row.id in self.runs:
                continue
            known = self.keys.get(row.idempotency_key or "")
            if known is not None:
                duplicates[row.id] = known
                continue
            if row.idempotency_key:
                self.keys[row.idempotency_key] = row.id
            fresh.add(row.id)
            self._put_run(batch.runs.get(row.id, row))
        return duplicates, fresh

    def _fence(self, batch: Batch, unchecked: Collection[int]) -> tuple[set[int], set[int]]:
        """Of the runs that were there before: those lost, and those that an earlier try of this batch has ended."""
        lost, settled = set(), set()
        for run_id, epoch in batch.epochs.items():
            if run_id in unchecked:
                continue
            now = self.runs.get(run_id)
            after = batch.runs.get(run_id)
            if now is not None and (now.owner, now.epoch) == (batch.owner, epoch):
                continue
            if now is not None and after is not None and (now.owner, now.epoch) == (after.owner, after.epoch):
                settled.add(run_id)
            else:
                lost.add(run_id)
        return lost, settled

    def claim(self, owner: str, alive: Collection[str], share: Callable[[int], bool]) -> list[OwnedRun]:
        """See dsfast.store.base.Store.claim."""
        taken = []
        for run_id in sorted(self.runs):
            run = self.runs[run_id]
            if run.state.final or run.owner in alive or not share(run_id):
                continue
            self._put_run(replace(run, owner=owner, epoch=run.epoch + 1))
            attempts = [replace(row) for _, row in sorted(self.attempts.get(run_id, {}).items())]
            taken.append(OwnedRun(replace(self.runs[run_id]), self.definitions[run.digest], attempts))
        return taken

    def attempt(self, key: Attempt) -> AttemptRow | None:
        return self.attempts.get(key[0], {}).get(key)

    def _put_run(self, row: RunRow) -> None:
        """What was submitted is written once; the rest is replaced whole."""
        old = self.runs.get(row.id)
        if old is not None:
            row = replace(row, **{name: getattr(old, name) for name in SUBMITTED})
        if self.witness is not None:
            self.witness.run_changes(old, row)
        self.runs[row.id] = replace(row)

    def _put_attempt(self, key: Attempt, row: AttemptRow, epoch: int) -> None:
        of_run = self.attempts.setdefault(key[0], {})
        if self.witness is not None:
            self.witness.attempt_changes(of_run.get(key), row, epoch)
        of_run[key] = replace(row)


def copy_batch(batch: Batch) -> Batch:
    """The batch as it is at this moment: the engine may change its rows while the database works."""
    return Batch(
        batch.owner,
        list(batch.definitions),
        [replace(row) for row in batch.new_runs],
        {run_id: replace(row) for run_id, row in batch.runs.items()},
        {key: replace(row) for key, row in batch.attempts.items()},
        dict(batch.epochs),
    )
