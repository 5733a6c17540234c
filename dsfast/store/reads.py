"""The part of a store that people read: shared by all databases, which only differ in how a statement is run."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from dsfast.model import RunState
from dsfast.rows import AttemptRow, RunRow
from dsfast.store.writes import attempt_row, run_row, storable

if TYPE_CHECKING:
    from sqlalchemy import Executable

PAGE_RUNS_MAX = 1000  # runs in one page: a person reads fifty, and a page is built in memory


class Reads(ABC):
    """The answers of `Store` to people; `_fetch` runs one SQLAlchemy statement."""

    _queries: ClassVar[ModuleType | None] = None

    @abstractmethod
    async def _fetch(self, statement: Executable) -> Sequence[Any]: ...

    async def _ask(self, question: Callable[[ModuleType], Executable]) -> Sequence[Any]:
        # Not before the first question: SQLAlchemy costs a `dsfast run` 0.14 s. Nor in the loop, which it would stop.
        if Reads._queries is None:
            Reads._queries = await asyncio.to_thread(import_module, "dsfast.store.queries")
        return await self._fetch(question(Reads._queries))

    async def owned(self, owner: str) -> list[int]:
        """Ids of the unfinished runs of this owner."""
        return [run_id for (run_id,) in await self._ask(lambda queries: queries.owned(owner))]

    async def find_key(self, idempotency_key: str) -> int | None:
        """The run that was submitted under this key, if any."""
        found = await self._ask(lambda queries: queries.by_key(storable(idempotency_key)))
        return found[0][0] if found else None

    async def run(self, run_id: int) -> RunRow | None:
        """One run, or None."""
        found = await self._ask(lambda queries: queries.run(run_id))
        return run_row(found[0]) if found else None

    async def runs(
        self,
        *,
        states: Collection[RunState] = (),
        workflow: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[RunRow]:
        """Runs, newest first, by keyset: `before` is the last id of the page before."""
        limit = min(limit, PAGE_RUNS_MAX)
        found = await self._ask(lambda queries: queries.run_page(states, workflow, before, limit))
        return [run_row(values) for values in found]

    async def definition(self, digest: str) -> bytes | None:
        """The body of a definition, or None."""
        found = await self._ask(lambda queries: queries.definition(digest))
        return found[0][0] if found else None

    async def attempts(self, run_id: int, *, task: int | None = None) -> list[AttemptRow]:
        """All attempts of a run (or one task of it), by task and attempt."""
        found = await self._ask(lambda queries: queries.attempts_of(run_id, task))
        return [attempt_row(values) for values in found]

    async def counts(self, run_ids: Sequence[int]) -> dict[int, dict[int, int]]:
        """For each run: how many tasks have their latest attempt in each attempt state (by code)."""
        counts: dict[int, dict[int, int]] = {run_id: {} for run_id in run_ids}
        for run_id, state, tasks in await self._ask(lambda queries: queries.latest_states(run_ids)):
            counts[run_id][state] = tasks
        return counts
