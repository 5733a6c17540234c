"""The SQLite store against a dictionary: any order of commits, repeats, stale epochs and claims ends the same."""

from __future__ import annotations

import asyncio
import copy
import tempfile
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dsfast.model import AttemptState, RunState
from dsfast.rows import AttemptRow, Batch, Committed, RunRow
from dsfast.store import open_store
from dsfast.store.writes import RUN_CHANGES, attempt_row
from tests.store_rows import DEFINITION, attempt, dump, run

members = st.sampled_from(["a@1", "b@1", "c@1"])
run_ids = st.integers(1, 6)
attempt_rows = st.builds(
    attempt,
    run_ids,
    task=st.integers(0, 2),
    number=st.integers(1, 2),
    state=st.sampled_from(AttemptState),
    reason=st.sampled_from(["", "failed", "a\0b"]),
    outputs=st.sampled_from([None, b"{}"]),
)


@dataclass
class Oracle:
    """What base.py says, over dictionaries."""

    runs: dict[int, RunRow] = field(default_factory=dict)
    attempts: dict[tuple[int, int, int], AttemptRow] = field(default_factory=dict)

    def commit(self, batch: Batch) -> Committed:
        duplicates = self._duplicates(batch)
        new = {row.id: row for row in batch.new_runs if row.id not in duplicates and row.id not in self.runs}
        good = {run_id for run_id, epoch in batch.epochs.items() if self._held(run_id, batch.owner, epoch)} | new.keys()
        settled = {run_id for run_id in batch.epochs.keys() - good if self._done(run_id, batch)}
        lost = batch.epochs.keys() - good - settled - duplicates.keys()
        self.runs |= copy.deepcopy(new)
        for run_id in good & batch.runs.keys():
            for name in RUN_CHANGES:
                setattr(self.runs[run_id], name, getattr(batch.runs[run_id], name))
        self.attempts |= {key: copy.deepcopy(row) for key, row in batch.attempts.items() if key[0] in good}
        return Committed(frozenset(lost), duplicates)

    def claim(self, owner: str, alive: frozenset[str], share: frozenset[int]) -> list[int]:
        taken = [
            row.id for row in self.runs.values() if row.owner is not None and row.owner not in alive and row.id in share
        ]
        for run_id in taken:
            self.runs[run_id].owner = owner
            self.runs[run_id].epoch += 1
        return sorted(taken)

    def _duplicates(self, batch: Batch) -> dict[int, int]:
        keys = {row.idempotency_key: row.id for row in self.runs.values() if row.idempotency_key}
        duplicates = {}
        for row in batch.new_runs:
            if row.id in self.runs or not row.idempotency_key:
                continue
            holder = keys.setdefault(row.idempotency_key, row.id)
            if holder != row.id:
                duplicates[row.id] = holder
        return duplicates

    def _held(self, run_id: int, owner: str, epoch: int) -> bool:
        return run_id in self.runs and (self.runs[run_id].owner, self.runs[run_id].epoch) == (owner, epoch)

    def _done(self, run_id: int, batch: Batch) -> bool:
        left = batch.runs.get(run_id) or next((row for row in batch.new_runs if row.id == run_id), None)
        now = self.runs.get(run_id)
        return left is not None and now is not None and (now.owner, now.epoch) == (left.owner, left.epoch)


class StoreMachine(RuleBasedStateMachine):
    """Does everything to both and compares what they answer and what they hold."""

    @initialize()
    def start(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.url = f"sqlite:///{self.directory.name}/runs.db"
        self.store = open_store(self.url, create=True)
        self.runner.run(self.store.open())
        self.oracle = Oracle()
        self.last = Batch(owner="a@1")

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.store.close())
            self.runner.close()
            self.directory.cleanup()

    @rule(
        owner=members,
        new=st.lists(
            st.tuples(run_ids, st.sampled_from([None, None, "k1", "k2"])), max_size=3, unique_by=lambda t: t[0]
        ),
        ends=st.sets(run_ids, max_size=2),
        handover=st.none() | st.tuples(run_ids, members),
        attempts=st.lists(attempt_rows, max_size=5),
        stale=st.booleans(),
    )
    def commit(
        self,
        owner: str,
        new: list[tuple[int, str | None]],
        ends: set[int],
        handover: tuple[int, str] | None,
        attempts: list[AttemptRow],
        stale: bool,
    ) -> None:
        batch = Batch(owner=owner, definitions=[DEFINITION])
        batch.new_runs = [run(run_id, owner=owner, idempotency_key=key) for run_id, key in new]
        batch.attempts = {(row.run_id, row.task, row.attempt): row for row in attempts}
        submitted = {run_id for run_id, _ in new}
        fresh = submitted - self.oracle.runs.keys()
        ends -= submitted - fresh  # a run submitted again is a repeat: its row is not written
        touched = submitted | {row.run_id for row in attempts} | ends
        batch.epochs = {run_id: 1 if run_id in fresh else self._epoch(run_id) - stale for run_id in touched}
        for run_id in ends:
            batch.runs[run_id] = run(run_id, owner=None, epoch=batch.epochs[run_id], state=RunState.SUCCEEDED)
        if handover and handover[0] in touched - ends - submitted:
            run_id, to = handover
            batch.runs[run_id] = run(run_id, owner=to, epoch=batch.epochs[run_id] + 1)
        self.last = batch
        self.again()

    @rule()
    def again(self) -> None:
        assert self.runner.run(self.store.commit(self.last)) == self.oracle.commit(self.last)

    @rule(owner=members, alive=st.frozensets(members), share=st.frozensets(run_ids))
    def claim(self, owner: str, alive: frozenset[str], share: frozenset[int]) -> None:
        taken = self.runner.run(self.store.claim(owner, alive, share.__contains__))
        assert [each.run.id for each in taken] == self.oracle.claim(owner, alive, share)
        for each in taken:
            assert each.run == self.oracle.runs[each.run.id]
            assert each.body == DEFINITION.body
            assert each.attempts == self._attempts(each.run.id)

    @invariant()
    def both_hold_the_same(self) -> None:
        if not hasattr(self, "runner"):
            return
        rows = self.runner.run(self.store.runs(limit=100))
        assert {row.id: row for row in rows} == self.oracle.runs
        found = self.runner.run(dump(self.url))["attempts"]
        assert [attempt_row(values) for values in found] == [row for n in range(1, 7) for row in self._attempts(n)]

    def _epoch(self, run_id: int) -> int:
        return self.oracle.runs[run_id].epoch if run_id in self.oracle.runs else 1

    def _attempts(self, run_id: int) -> list[AttemptRow]:
        rows = [copy.deepcopy(row) for key, row in sorted(self.oracle.attempts.items()) if key[0] == run_id]
        for row in rows:
            row.reason = row.reason.replace("\0", "\ufffd")
        return rows


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=30, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
