"""Where the failpoints of a turn lie: the parts of a daemon that was started with orders for them.

A turn meets the world in three places, and all points are there: what comes in (`PointedInbox`), what becomes
durable (`PointedMaster`), and what leaves (`PointedLinks`). Nothing of a turn leaves before its commit, so the moment
at which a frame is queued is "after the commit, before anything is sent"; a flush hands frames to the kernel by the
end of the loop's iteration, so the moment after it comes one iteration later.
"""

from __future__ import annotations

import asyncio

from dsfast.engine import events as ev
from dsfast.failpoint import armed, reach
from dsfast.fatal import report_fatal
from dsfast.model import AttemptState
from dsfast.rows import Batch, Committed
from dsfast.runtime.inbox import Inbox
from dsfast.runtime.links import Links
from dsfast.runtime.master import Master
from dsfast.wire import commands as cmd

RECEIVED: dict[type, str] = {cmd.Execute: "W1", cmd.ResultAck: "W10"}
QUEUED: dict[type, str] = {
    cmd.Submitted: "M2",
    cmd.SubmittedBatch: "M2",
    cmd.Execute: "M4",
    cmd.ResultAck: "M8",
    cmd.Kill: "M14",
    cmd.Started: "W5",
    cmd.Result: "W8",
}
SENT: dict[type, str] = {
    cmd.Execute: "M5",
    cmd.ResultAck: "M9",
    cmd.Started: "W6",
    cmd.Result: "W9",
    cmd.Draining: "W12",
}
WRITTEN = {AttemptState.DISPATCHED: "M3", AttemptState.RUNNING: "M6"}
ON_ITS_WAY = 3  # iterations of the loop until a statement has been handed to the kernel


class PointedInbox(Inbox):
    """What comes in."""

    def put(self, event: ev.Event) -> None:
        if isinstance(event, ev.AttemptEnded):
            reach("W7")
        elif isinstance(event, ev.Received):
            reach(RECEIVED.get(type(event.command), ""))
        super().put(event)


class PointedMaster(Master):
    """What becomes durable."""

    async def _commit(self, batch: Batch) -> Committed:
        for row in batch.attempts.values():
            reach(WRITTEN.get(row.state, "M7" if row.state.final else ""))
        if not (batch.new_runs and armed("M1")):
            return await super()._commit(batch)
        commit = asyncio.ensure_future(super()._commit(batch))
        for _ in range(ON_ITS_WAY):
            await asyncio.sleep(0)
        reach("M1")
        return await commit


class PointedLinks(Links):
    """What leaves."""

    _sent: tuple[type, ...] = ()
    _withheld: tuple[tuple[str, cmd.Command, int], ...] = ()

    def send(self, peer_id: str, command: cmd.Command, request_id: int = 0) -> bool:
        kind = type(command)
        reach(QUEUED.get(kind, ""))
        if kind is cmd.Execute and cmd.ResultAck in self._sent and armed("M9"):
            self._withheld += ((peer_id, command, request_id),)  # between two of a turn's frames lies the point
            return True
        self._sent += (kind,)
        return super().send(peer_id, command, request_id)

    def flush(self) -> None:
        super().flush()
        sent, self._sent = self._sent, ()
        _reach_when_sent(*(SENT[kind] for kind in sent if kind in SENT))
        if self._withheld:
            asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, self._release)

    def _release(self) -> None:
        withheld, self._withheld = self._withheld, ()
        for each in withheld:
            self.send(*each)
        self.flush()

    async def request(self, peer_id: str, command: cmd.Command, timeout: float) -> cmd.Command:  # noqa: ASYNC109
        submit = isinstance(command, cmd.Submit | cmd.SubmitBatch)
        if submit:
            _reach_when_sent("A1")
        answer = await super().request(peer_id, command, timeout)
        if submit:
            reach("A2")
        return answer


def _reach_when_sent(*points: str) -> None:
    """Reach these once the kernel has what was flushed."""
    loop = asyncio.get_running_loop()
    for point in filter(armed, points):
        loop.call_soon(loop.call_soon, _reach_later, point)


def _reach_later(point: str) -> None:
    try:
        reach(point)
    except RuntimeError as bug:
        report_fatal("a failpoint", bug)


def links_type() -> type[Links]:
    """Links for this daemon."""
    return PointedLinks if armed() else Links


def inbox_type() -> type[Inbox]:
    """An inbox for this daemon."""
    return PointedInbox if armed() else Inbox


def master_type() -> type[Master]:
    """A master for this daemon."""
    return PointedMaster if armed() else Master
