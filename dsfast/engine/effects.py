"""What an engine asks for. The order of the fields is the order in which they must be done."""

from __future__ import annotations

import msgspec

from dsfast.engine.events import Stray
from dsfast.rows import Batch
from dsfast.wire.commands import Attempt, Command, Execute, LogRead, Result

Kept = tuple[int, Result]  # a result as the next life of its worker should find it, with the epoch of its run
Send = tuple[str, int, Command]  # peer id, request id it answers (or 0), command


class Claim(msgspec.Struct):
    """Take over the unfinished runs whose owner is not in `alive`: those with id % count == rank, or all (count 1)."""

    alive: frozenset[str]
    rank: int = 0
    count: int = 1

    def share(self, run_id: int) -> bool:
        return run_id % self.count == self.rank


class MasterEffects(msgspec.Struct):
    """A master's turn: first the batch becomes durable, then the sends leave, then the rest."""

    batch: Batch
    sends: list[Send] = []
    claim: Claim | None = None
    lookups: list[Stray] = []  # have the runs ended that workers hold these attempts of?
    probes: list[tuple[str, int]] = []  # peers and requests: does the store answer us?
    ended: list[int] = []  # runs that reached their final state in this turn
    wake_at: float | None = None  # monotonic; None: nothing is due


class KillOrder(msgspec.Struct):
    """End this attempt's processes: ask, and insist after `grace` seconds."""

    key: Attempt
    grace: float
    reason: str


class WorkerEffects(msgspec.Struct):
    """A worker's turn."""

    starts: list[Execute] = []
    kills: list[KillOrder] = []
    kept: list[Kept] = []  # to be written down before anything of them is sent
    patient: bool = False  # something began to run that may run on for a while without lease and link
    forgotten: list[Attempt] = []  # acknowledged: need not be kept any longer
    sends: list[Send] = []
    log_reads: list[tuple[str, int, LogRead]] = []  # peer id and request id of who asks
    wake_at: float | None = None
    idle: bool = False  # draining or stopping, and nothing is left to run or to report
