"""What an engine can be told. One vocabulary for masters and workers; each handles the events it expects."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from dsfast.model import Member, Outcome
from dsfast.rows import OwnedRun
from dsfast.wire.commands import Attempt, Command

Stray = tuple[str, Attempt]  # worker id, and an attempt that it holds of a run that is not ours


class LinkUp(msgspec.Struct, gc=False):
    """An authenticated link to this peer exists (dialled by us or by it)."""

    peer: Member


class LinkDown(msgspec.Struct, gc=False):
    """The link ended; the peer may still live."""

    peer_id: str
    reason: str = ""


class PeerDead(msgspec.Struct, gc=False):
    """The peer's process is gone for sure: its port refuses, or its lease has run out."""

    peer_id: str


class Received(msgspec.Struct, gc=False):
    """A command arrived from a peer; `request_id` is not 0 when it wants an answer."""

    peer_id: str
    request_id: int
    command: Command


class Members(msgspec.Struct, gc=False):
    """The registry's view changed: everyone alive, sorted by id."""

    members: tuple[Member, ...]


class SessionChanged(msgspec.Struct, gc=False):
    """Whether our own registration is visible to others (`connected`), uncertain, or gone.

    Of one that is lost, `since` is the monotonic second at which our lease ended if that may be in the past.
    """

    state: str
    since: float | None = None


class Claimed(msgspec.Struct, gc=False):
    """Runs that this master owns from now on, read back from the store.

    Those in `quarantined` have ended several masters (with what the last one said) and are continued by none.
    """

    runs: list[OwnedRun]
    quarantined: dict[int, str] = {}


class RunsLost(msgspec.Struct, gc=False):
    """Writes of ours under these epochs (run id -> epoch) were refused: another master owns the runs by now.

    Unless, that is, we have taken them over in the meantime under a higher epoch. Comes first in its turn: a run
    whose writes were refused looks settled in memory, and must not be spoken for once more.
    """

    epochs: dict[int, int]


class RunsEnded(msgspec.Struct, gc=False):
    """Answer to a look-up of these strays: their runs with the last epoch; without one, the run has not ended.

    The epoch of a run that never was is 0.
    """

    strays: list[Stray]
    epochs: dict[int, int]


class AttemptStarted(msgspec.Struct, gc=False):
    """An attempt's process runs (told to a worker by its task type); it may run for `timeout` seconds.

    Without lease and link it may run on for `runs_on` seconds; None is without end.
    """

    key: Attempt
    wall: float
    timeout: float | None = None
    runs_on: float | None = 0.0


class AttemptEnded(msgspec.Struct, gc=False):
    """An attempt has ended and nothing of it runs any more (told to a worker by its task type)."""

    key: Attempt
    outcome: Outcome


class AttemptRefused(msgspec.Struct, gc=False):
    """This worker has no means to start the attempt at the moment (no memory, no descriptors, no disk)."""

    key: Attempt
    reason: str


class Drain(msgspec.Struct, gc=False):
    """Take nothing new; finish what runs."""


class Tick(msgspec.Struct, gc=False):
    """Nothing happened but time: take a turn."""


class Stop(msgspec.Struct, gc=False):
    """Kill what runs (worker) within `grace` seconds."""

    grace: float = 10.0


Event: TypeAlias = (
    LinkUp
    | LinkDown
    | PeerDead
    | Received
    | Members
    | SessionChanged
    | Claimed
    | RunsLost
    | RunsEnded
    | AttemptStarted
    | AttemptEnded
    | AttemptRefused
    | Drain
    | Stop
    | Tick
)
