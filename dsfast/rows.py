"""What one turn of a master makes durable, and what a master reads back when it takes runs over.

A `Batch` is applied in one transaction. Rows are whole: several changes of one row within a turn
are one write, and writing the same row twice changes nothing, so a batch whose outcome is unknown
(a connection lost during COMMIT) is simply applied again. Every write to an existing run carries
the epoch under which its writer owns it; the store applies it only if the run's row still has that
owner and epoch, and reports the run as lost otherwise.
"""

from __future__ import annotations

import msgspec

from dsfast.model import AttemptState, Priority, RunState


class DefinitionRow(msgspec.Struct, frozen=True):
    """A workflow definition; `digest` is the SHA-256 of `body` in hex. Writing a known digest is a no-op."""

    digest: str
    name: str
    body: bytes


class RunRow(msgspec.Struct, gc=False):
    """One execution of a workflow. `owner` is a member id, or None once the run has ended."""

    id: int
    workflow: str
    digest: str
    state: RunState
    owner: str | None
    epoch: int
    priority: Priority
    params: bytes  # JSON object: the run's own values over the workflow's defaults
    created_at: float
    idempotency_key: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    reason: str = ""
    tasks: int = 0


class AttemptRow(msgspec.Struct, gc=False):  # holds no containers, and a master holds a million of them
    """One try of one task; (run_id, task, attempt) is its key, `task` the task's position in the workflow."""

    run_id: int
    task: int
    attempt: int
    state: AttemptState
    worker: str | None = None  # the member id of the worker it is bound to
    dispatched_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    reason: str = ""
    outputs: bytes | None = None  # JSON object


class Batch(msgspec.Struct):
    """Everything one turn wants durable. `owner` is the master's own member id."""

    owner: str
    definitions: list[DefinitionRow] = []
    new_runs: list[RunRow] = []
    runs: dict[int, RunRow] = {}  # changed runs (state, times, reason, owner=None at the end)
    attempts: dict[tuple[int, int, int], AttemptRow] = {}
    epochs: dict[int, int] = {}  # run id -> epoch, for every run touched above

    def __bool__(self) -> bool:
        return bool(self.new_runs or self.runs or self.attempts or self.definitions)


class Committed(msgspec.Struct):
    """What a commit found: runs that another master owns by now, and submits that were repeats."""

    lost: frozenset[int] = frozenset()
    duplicates: dict[int, int] = {}  # refused new run id -> run that has its idempotency key


class OwnedRun(msgspec.Struct):
    """A run read back with everything needed to continue it: definition body and all attempts, in key order."""

    run: RunRow
    body: bytes
    attempts: list[AttemptRow]
