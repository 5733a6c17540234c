"""The store's protocol, as masters and the api role use it.

Masters call `commit`, `claim`, `blame` and `crashed` only; everything else is for people and reads. All methods raise
`Unavailable` with a sentence when the database cannot be reached, and never leave half a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from dsfast.model import RunState
from dsfast.rows import AttemptRow, Batch, Committed, OwnedRun, RunRow


class Store(Protocol):
    """A database that remembers runs. `dsfast.store.open_store(url)` makes one; then `await store.open()`."""

    async def open(self) -> None:
        """Connect. Raises UsageError when the schema is missing, older or newer, or another master has the file."""

    async def close(self) -> None:
        """Finish what was begun and disconnect."""

    async def commit(self, batch: Batch) -> Committed:
        """Make a turn durable in one transaction.

        In order: definitions (insert if new), new runs (insert; one whose idempotency key exists is refused and
        reported in `duplicates`; one whose id exists already is taken as written by an earlier try of this same
        batch), then for runs that exist: those whose (owner, epoch) no longer match are reported in `lost`; run
        and attempt rows of all others, and of the new runs not refused, are upserted whole. Durable on return.

        What was submitted (workflow, digest, params, created_at, idempotency_key) is written once, with the new
        run; later rows of that run change the rest. A row may give the run away (`owner` None at its end, or
        another member): applying that batch again finds its own work and reports nothing as lost. The batch is
        copied before the first await. After `Unavailable` the outcome is unknown: commit the same batch again.
        """

    async def claim(self, owner: str, alive: Collection[str], share: Callable[[int], bool]) -> list[OwnedRun]:
        """Take over unfinished runs whose owner is not in `alive` and whose id satisfies `share`.

        Each is taken by compare-and-set on (owner, epoch), epoch growing by one; returns what was taken, with
        definition and attempts, oldest run first. After `Unavailable`, claim again: runs that were taken without
        the answer getting through are among those returned.
        """

    async def blame(self, run_id: int, reason: str) -> None:
        """Note that a master has ended over this run, or the command of this negative mark: one more."""

    async def crashed(self, least: int) -> dict[int, str]:
        """Runs and marks over which at least so many masters have ended, with what the last one said."""

    async def owned(self, owner: str) -> list[int]:
        """Ids of the unfinished runs of this owner."""

    async def find_key(self, idempotency_key: str) -> int | None:
        """The run that was submitted under this key, if any."""

    async def run(self, run_id: int) -> RunRow | None: ...

    async def runs(
        self,
        *,
        states: Collection[RunState] = (),
        workflow: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[RunRow]:
        """Runs, newest first, by keyset: `before` is the last id of the page before."""

    async def definition(self, digest: str) -> bytes | None: ...

    async def attempts(self, run_id: int, *, task: int | None = None) -> list[AttemptRow]:
        """All attempts of a run (or one task of it), by task and attempt."""

    async def counts(self, run_ids: Sequence[int]) -> dict[int, dict[int, int]]:
        """For each run: how many tasks have their latest attempt in each attempt state (by code)."""
