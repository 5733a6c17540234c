"""A worker's process: its engine between links, registry and the attempts it runs.

Theory of operation. `serve` is the only task that touches the engine. A turn's kills and starts are done first; then
its results are written down, so that they outlive this process; then its sends leave. An attempt that ends while it is
being started (a noop) is taken in before that, so a burst of short tasks costs one write to the journal and one to a
socket, and not two each. Logs are read by id, straight from the files. Told to stop, the worker drains: it
takes nothing new, lets running attempts end for `drain_seconds`, then ends them as lost with it; it leaves once every
result is acknowledged, or no master has been there to take it for FAREWELL_SECONDS.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time

from dsfast.engine import events as ev
from dsfast.engine.effects import Kept, WorkerEffects
from dsfast.engine.held import Phase
from dsfast.engine.worker import WorkerEngine
from dsfast.errors import NotFound, Unavailable
from dsfast.log import log_event
from dsfast.model import Member
from dsfast.registry.base import Registry, Session
from dsfast.runtime.executor import Executor
from dsfast.runtime.inbox import Inbox
from dsfast.runtime.journal import Journal
from dsfast.runtime.links import Links
from dsfast.runtime.standstill import RENEW_SECONDS, Standstill
from dsfast.wire import commands as cmd

# A turn goes on for attempts that ended while they were started, and so does not wait for the socket; but not for ever:
# masters work on the first results while the next tasks run. Less costs more writes, more makes both sides take turns.
RESULTS_MAX = 64
FAREWELL_SECONDS = 5.0  # for unacknowledged results once nothing runs: a master's commit, with margin


class Worker:
    """One worker, wired."""

    def __init__(
        self,
        engine: WorkerEngine,
        executor: Executor,
        registry: Registry,
        links: Links,
        inbox: Inbox,
        log: logging.Logger,
        journal: Journal | None = None,
        standstill: Standstill | None = None,
    ) -> None:
        self.engine = engine
        self.executor = executor
        self.registry = registry
        self.links = links
        self.inbox = inbox
        self.log = log
        self.journal = journal
        self.standstill = standstill
        self._stop_asked = 0
        self._stop_at: float | None = None
        self._idle = False
        self._session = Session.SUSPENDED  # as the registry said last
        self._lease_end = -math.inf  # monotonic: of the last lease we knew of

    async def serve(self) -> None:
        """Take turns until told to stop and done; ends with the error if the engine fails."""
        wake_at: float | None = None
        self._move()
        while not self._idle:
            events = await self.inbox.batch(_sooner(wake_at, self._stop_at))
            wake_at = self._turn(events)
        if self.standstill is not None:
            self.standstill.end()

    def _move(self) -> None:
        """Show our guardians that we do, now and ever again."""
        if self.standstill is not None and not self._idle:
            self.standstill.renew(self.engine.patience())
            self._lease_end = max(self._lease_end, self.registry.listed_until)
            asyncio.get_running_loop().call_later(RENEW_SECONDS, self._move)

    def _turn(self, events: list[ev.Event]) -> float | None:
        if self.standstill is not None and self.standstill.stood_still():
            events = self._distrust(events)
        kept: list[Kept] = []
        forgotten: list[cmd.Attempt] = []
        while True:
            now = time.monotonic()  # the loop's clock, but not rounded to milliseconds
            self._hurry(now, events)
            fx = self.engine.step(events, now)
            kept += fx.kept
            forgotten += fx.forgotten
            self._perform(fx)
            if len(kept) >= RESULTS_MAX:
                break
            events = self.inbox.take()
            if not events:
                break
        if self.journal is not None:
            self.journal.write(kept, forgotten)
        self.links.flush()
        self._idle = self._idle or fx.idle  # it may have waited for long enough
        return fx.wake_at

    def _distrust(self, events: list[ev.Event]) -> list[ev.Event]:
        """We stood still beyond our lease: what masters said before is out of date, and no link means anything.

        The registry says that our lease is over, and then that we are back, but after what waits in our sockets; or it
        says nothing, because it has not noticed. It is told last: while it believes in a link to each master, the
        engine takes the loss of its lease lightly.
        """
        log_event(self.log, "worker_stood_still", level=logging.WARNING)
        self.links.drop("this worker stood still")
        rest = [event for event in (*events, *self.inbox.take()) if not isinstance(event, ev.Received)]
        return [*rest, self._told(Session.LOST), self._told(self._session)]

    def _perform(self, fx: WorkerEffects) -> None:
        if self.standstill is not None and (fx.starts or fx.patient):
            self.standstill.renew(0.0 if fx.starts else self.engine.patience())
        for order in fx.kills:
            self.executor.kill(order.key, order.grace, order.reason)
        for execute in fx.starts:
            self.executor.start(execute)
        for peer, request_id, command in fx.sends:
            self.links.send(peer, command, request_id)
        for peer, request_id, read in fx.log_reads:
            self.links.send(peer, self._read_log(read), request_id)

    # -- logs ----------------------------------------------------------------------------------------------

    def _read_log(self, c: cmd.LogRead) -> cmd.Command:
        key = (c.run_id, c.task, c.attempt)
        held = self.engine.held.get(key)
        ended = held is None or held.phase is Phase.ENDED  # asked before reading: nothing is written after this
        try:
            offset, data, size = self.executor.logs.read(key, c.offset, c.limit)
        except NotFound as error:
            return cmd.Failed("not_found", str(error))
        except Unavailable as error:
            return cmd.Failed("unavailable", str(error))
        return cmd.LogChunk(offset, data, size, ended)

    # -- members and stopping --------------------------------------------------------------------------------

    def on_members(self, members: tuple[Member, ...]) -> None:
        """Masters dial workers, so there is nobody to dial; but a master without a link to us matters to the engine."""
        self.inbox.put(ev.Members(members))

    def on_session(self, session: Session) -> None:
        log_event(self.log, "registry_session", state=session.value)
        self._session = session
        self._lease_end = max(self._lease_end, self.registry.listed_until)
        self.inbox.put(self._told(session))

    def _told(self, session: Session) -> ev.SessionChanged:
        """We may hear of the end of our lease long after it, having stood still; what we were granted began then."""
        known = session is Session.LOST and self._lease_end > -math.inf and self.standstill is not None
        return ev.SessionChanged(session.value, self._lease_end if known else None)

    async def start(self) -> None:
        """Join the cluster, so that masters dial."""
        await self.registry.start(self.on_members, self.on_session)
        await self.registry.join(self.engine.me)

    def stop(self, drain_seconds: float) -> None:
        """Drain; a second call ends at once what still runs."""
        self._stop_asked += 1
        if self._stop_asked == 1:
            log_event(self.log, "worker_draining", running=self.engine.busy)
            self.inbox.put(ev.Drain())
            self._stop_at = time.monotonic() + drain_seconds
        else:
            self._stop_at = time.monotonic()
            self.inbox.put(ev.Tick())

    def _hurry(self, now: float, events: list[ev.Event]) -> None:
        """Once the time to drain is over, stop what runs; once nothing runs, wait for acknowledgements no longer."""
        if self._stop_at is None or now < self._stop_at:
            return
        if self.engine.busy or not self.engine.stopping:
            events.append(ev.Stop(STOP_GRACE_SECONDS))
            self._stop_at = now + STOP_GRACE_SECONDS + FAREWELL_SECONDS
        else:
            log_event(self.log, "results_left", level=logging.WARNING, count=len(self.engine.held))
            self._idle = True
            self._stop_at = None

    async def close(self) -> None:
        """Leave, so that masters see it at once, and let go of everything."""
        await self.registry.stop()
        await self.links.close()
        self.executor.close()
        if self.journal is not None:
            self.journal.close()


STOP_GRACE_SECONDS = 5.0  # between SIGTERM and SIGKILL for attempts that end with their worker


def _sooner(first: float | None, second: float | None) -> float | None:
    return min(first, second) if first is not None and second is not None else first if second is None else second
