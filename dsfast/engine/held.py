"""What a worker holds: attempts, and to whom it answers for them."""

from __future__ import annotations

from enum import Enum

import msgspec

from dsfast.model import AttemptState, Outcome
from dsfast.wire import commands as cmd


class Phase(Enum):
    """Where a held attempt stands."""

    QUEUED = "queued"
    RUNNING = "running"
    KILLING = "killing"
    ENDED = "ended"


class Held(msgspec.Struct, gc=False):
    """An attempt this worker answers for."""

    key: cmd.Attempt
    execute: cmd.Execute
    phase: Phase = Phase.QUEUED
    began: float = 0.0  # monotonic, like `ended`
    ended: float = 0.0
    started_at: float = 0.0  # wall; 0 until its process runs
    timeout: float | None = None  # seconds it may run
    runs_on: float | None = 0.0  # seconds it may run on without lease and link; None: without end
    told: bool = False  # Started was said on the present link
    end_as: AttemptState = AttemptState.KILLED  # what a kill under way will be reported as
    reason: str = ""
    outcome: Outcome | None = None
    life: str = ""  # the former life of this worker under which it ended

    @property
    def parting(self) -> tuple[str, cmd.Attempt]:
        """The deadline at which it ends if nobody who may answer for it is back by then."""
        return ("parting", self.key)


class Binding(msgspec.Struct, gc=False):
    """Whom a run is reported to, and how many attempts of it are held."""

    master: str
    epoch: int
    held: int = 0
    sure_at: float = 0.0  # monotonic: nobody else can have taken the run over before that without our knowing
    disowned: bool = False  # its master has said that the run is not its own any more
