"""What an engine asks for. The order of the fields is the order in which they must be done."""

from __future__ import annotations

from dataclasses import dataclass, field

from dsfast.engine.events import Stray
from dsfast.rows import Batch
from dsfast.wire.commands import Attempt, Command, Execute, LogRead, Result

Kept = tuple[int, Result]  # a result as the next life of its worker should find it, with the epoch of its run
Send = tuple[str, int, Command]  # peer id, request id it answers (or 0), command


@dataclass(slots=True)
class Claim:
    """Take over the unfinished runs whose owner is not in `alive`: those with id % count == rank, or all (count 1)."""

    alive: frozenset[str]
    rank: int = 0
    count: int = 1

    def share(self, run_id: int) -> bool:
        return run_id % self.count == self.rank


@dataclass(slots=True)
class MasterEffects:
    """A master's turn: first the batch becomes durable, then the sends leave, then the rest."""

    batch: Batch
    sends: list[Send] = field(default_factory=list)
    claim: Claim | None = None
    lookups: list[Stray] = field(default_factory=list)  # have the runs ended that workers hold these attempts of?
    ended: list[int] = field(default_factory=list)  # runs that reached their final state in this turn
    wake_at: float | None = None  # monotonic; None: nothing is due


@dataclass(slots=True)
class KillOrder:
    """End this attempt's processes: ask, and insist after `grace` seconds."""

    key: Attempt
    grace: float
    reason: str


@dataclass(slots=True)
class WorkerEffects:
    """A worker's turn."""

    starts: list[Execute] = field(default_factory=list)
    kills: list[KillOrder] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)  # to be written down before anything of them is sent
    patient: bool = False  # something began to run that may run on for a while without lease and link
    forgotten: list[Attempt] = field(default_factory=list)  # acknowledged: need not be kept any longer
    sends: list[Send] = field(default_factory=list)
    log_reads: list[tuple[str, int, LogRead]] = field(default_factory=list)  # peer id and request id of who asks
    wake_at: float | None = None
    idle: bool = False  # draining or stopping, and nothing is left to run or to report
