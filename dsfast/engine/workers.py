"""A worker as a master sees it: who it is, whether a link to it is up, its credit, and what is bound to it."""

from __future__ import annotations

from dsfast.engine.run import Live
from dsfast.model import Member
from dsfast.wire.commands import Attempt


class Worker:
    """One life of a worker. `live` are the attempts bound to it, linked or not."""

    __slots__ = (
        "absent_since", "adopting", "answered", "asked", "dead", "draining", "hungry", "id", "limit", "linked", "live",
        "member",
    )  # fmt: skip

    def __init__(self, member: Member) -> None:
        self.id = member.id
        self.member = member
        self.linked = False
        self.absent_since: float | None = None  # monotonic: neither linked nor listed since then
        self.dead = False  # for sure; what its next life may say of it is still waited for
        self.asked = self.answered = 0  # serial of the last Adopt that was sent, and of the last one answered
        self.draining = False
        self.hungry = False  # whether it was last told that tasks wait for its credit
        self.limit = 0  # what it has granted; 0 while it has no link or drains
        self.live: dict[Attempt, Live] = {}
        self.adopting: dict[Attempt, int] = {}  # what was bound to it when it was asked what it holds -> which time

    @property
    def free(self) -> int:
        """How many more attempts may be sent to it now."""
        return self.limit - len(self.live)

    @property
    def has_slot(self) -> bool:
        """Whether one more would start at once, as far as we know: other masters may use its slots, too."""
        return len(self.live) < self.limit and len(self.live) < self.member.slots
