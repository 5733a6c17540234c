"""A master's process: its engine between links, store and registry.

Theory of operation. `serve` is the only task that touches the engine. The order of its lines is the durability
contract: step, commit, send. A commit that the database cannot take is repeated with the same rows until it can
(rows are whole, so repeating is harmless), until the process is told to stop, or until it turns out that this master
alone cannot reach the database (outage.py); meanwhile nothing is decided and nothing leaves, and heartbeats go on
below. A database that has forgotten a run of ours is an older copy: the master stands still then, and says so. Claims
and look-ups read the store beside the loop and come back as events. An assertion that fails in the engine ends the
process: its runs are continued by another master, or by the next life of this one, from what is durable.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from typing import NoReturn

from dsfast.engine import events as ev
from dsfast.engine.effects import Claim, MasterEffects
from dsfast.engine.master import MasterEngine
from dsfast.engine.turns import DOUBT_SECONDS, amend
from dsfast.errors import Unavailable
from dsfast.ids import run_text
from dsfast.log import log_event
from dsfast.model import Member
from dsfast.registry.base import Registry, Session
from dsfast.rows import Batch, Committed, OwnedRun
from dsfast.runtime.backoff import Backoff
from dsfast.runtime.inbox import Inbox
from dsfast.runtime.links import Links
from dsfast.runtime.outage import Outage, reached
from dsfast.runtime.quarantine import Quarantine, mark_of
from dsfast.store.base import Store
from dsfast.wire import commands as cmd
from dsfast.wire.commands import Command

LINKED = frozenset({"master", "worker"})
CRASHES_MAX = 3  # masters that may end over one run or command; once may be chance, three times is the run
BLAME_SECONDS = 5.0  # to write that down; a failover that waits longer for it costs more than the note is worth
STORY_LENGTH_MAX = 500  # characters of an error that are kept; the whole of it is in the log
COMMIT_RETRY_SECONDS = 0.05  # first wait after a commit failed; doubles
COMMIT_RETRY_SECONDS_MAX = 2.0  # so that dispatch resumes within two seconds of the database's return
LOST_CHECKED_MAX = 20  # an older copy lacks the newest; a master that was paused may have lost ten thousand

FORGOTTEN = (
    "the database has forgotten what it had confirmed: it was restored from an older copy, is a lagging replica, or "
    "runs were deleted from it. This master dispatches nothing more. Bring the newer database back and restart the "
    "master; restarted without that, it goes on with what the database has"
)


class Master:
    """One master, wired. `turns` counts those that are done, for who watches from here; one `alone` claims no runs."""

    def __init__(
        self,
        engine: MasterEngine,
        store: Store,
        registry: Registry,
        links: Links,
        inbox: Inbox,
        log: logging.Logger,
        *,
        alone: bool = False,
    ) -> None:
        self.engine = engine
        self.store = store
        self.registry = registry
        self.links = links
        self.inbox = inbox
        self.log = log
        self.on_durable: Callable[[Batch], None] | None = None  # told what every turn has written
        self.turns = 0
        self._watchers: list[asyncio.Future[None]] = []
        self.local: Callable[[int, Command], None] | None = None  # answers to who asked from this process
        self._alone = alone
        self._me = engine.core.me
        self._stopping = False
        self._beside: set[asyncio.Task[None]] = set()
        self._claiming: asyncio.Task[None] | None = None
        self._next_claim: Claim | None = None
        self._quarantine = Quarantine(log)
        self._outage = Outage(store, links, log)

    async def serve(self) -> None:
        """Take turns until `stop`; ends with the error if the engine or a claim fails."""
        wake_at: float | None = None
        while not self._stopping:
            events = await self.inbox.batch(wake_at)
            if self._quarantine:
                events = self._quarantine.admit(events, self._send)
            try:
                fx = self.engine.step(events, time.monotonic(), time.time())
            except Exception as error:
                await self._blame(error)
                raise
            await self._perform(fx)
            wake_at = fx.wake_at
            self._raise_failure()

    async def _blame(self, error: Exception) -> None:
        """A bug of ours ends this master. Say over what, so that it does not end all others in turn for ever."""
        what, story = self.engine.concerning, f"{type(error).__name__}: {error}"[:STORY_LENGTH_MAX]
        run_id, command = (mark_of(what), type(what.command).__name__) if isinstance(what, ev.Received) else (what, "")
        run = run_text(run_id) if run_id > 0 else ""
        log_event(self.log, "engine_failed", level=logging.CRITICAL, run=run, command=command, error=story)
        if run_id:
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(BLAME_SECONDS):
                    await self.store.blame(run_id, story)

    async def _perform(self, fx: MasterEffects) -> None:
        if fx.batch:
            await self._make_durable(fx)
        for peer, request_id, command in fx.sends:
            self._send(peer, request_id, command)
        self.links.flush()
        if fx.claim is not None and not self._alone:
            self._request_claim(fx.claim)
        if fx.lookups:
            self._spawn(self._look_up(fx.lookups))
        if fx.probes:
            self._spawn(self._answer_probes(fx.probes))
        self.turns += 1
        for watcher in self._watchers:
            watcher.set_result(None)
        self._watchers.clear()

    def _send(self, peer: str, request_id: int, command: Command) -> None:
        if not self.links.send(peer, command, request_id) and self.local is not None and request_id:
            self.local(request_id, command)

    async def _make_durable(self, fx: MasterEffects) -> None:
        began = time.monotonic()
        committed = await self._commit(fx.batch)
        if time.monotonic() - began > DOUBT_SECONDS:
            committed = await self._commit(fx.batch)
        if committed.lost and (forgotten := await self._forgotten(fx.batch, committed.lost)):
            await self._stand_still(forgotten)
        gone = amend(fx, committed)
        if gone:
            self.inbox.put_first(ev.RunsLost(gone))  # what it decides of such a run from now on is void
        if committed.lost:
            log_event(self.log, "runs_lost", level=logging.WARNING, runs=",".join(map(run_text, committed.lost)))
        if fx.batch.new_runs or fx.ended:
            self._log_runs(fx, gone)
        if self.on_durable is not None:
            self.on_durable(fx.batch)

    async def turn_after(self, turn: int) -> None:
        """Return once a turn later than this one is done; what it wrote is durable then."""
        while self.turns <= turn:
            watcher = asyncio.get_running_loop().create_future()
            self._watchers.append(watcher)
            try:
                await watcher
            finally:
                if watcher in self._watchers:
                    self._watchers.remove(watcher)

    async def _commit(self, batch: Batch) -> Committed:
        backoff, began = Backoff(COMMIT_RETRY_SECONDS, COMMIT_RETRY_SECONDS_MAX), time.monotonic()
        while True:
            try:
                return await self.store.commit(batch)
            except Unavailable as error:
                log_event(self.log, "store_unavailable", level=logging.ERROR, error=str(error))
                if self._stopping:
                    raise
                self._outage.failed(began)
                await backoff.wait()

    async def _forgotten(self, batch: Batch, lost: Collection[int]) -> list[int]:
        """Of the newest runs lost those that nobody took: they are gone, or under an epoch that was left behind."""
        backoff = Backoff(COMMIT_RETRY_SECONDS, COMMIT_RETRY_SECONDS_MAX)
        while True:
            try:
                rows = {run_id: await self.store.run(run_id) for run_id in sorted(lost)[-LOST_CHECKED_MAX:]}
            except Unavailable as error:
                log_event(self.log, "store_unavailable", level=logging.ERROR, error=str(error))
                if self._stopping:
                    raise
                await backoff.wait()
            else:
                return [run_id for run_id, row in rows.items() if row is None or row.epoch < batch.epochs[run_id]]

    async def _stand_still(self, forgotten: Collection[int]) -> NoReturn:
        """The database is an older one: whatever we do next could be done twice. Keep our place, and do nothing."""
        error, runs = Unavailable(FORGOTTEN), ",".join(map(run_text, forgotten))
        log_event(self.log, "store_went_back", level=logging.CRITICAL, runs=runs, error=str(error))
        while not self._stopping:
            for event in await self.inbox.batch(None):  # what workers say they say again to the run's next master
                if isinstance(event, ev.Received) and event.request_id:
                    self.links.send(event.peer_id, cmd.Failed("unavailable", FORGOTTEN), event.request_id)
            self.links.flush()
        raise error

    def _log_runs(self, fx: MasterEffects, gone: Collection[int]) -> None:
        for row in (row for row in fx.batch.new_runs if row.id not in gone):
            log_event(self.log, "run_accepted", run=run_text(row.id), workflow=row.workflow, tasks=row.tasks)
        for run_id in fx.ended:
            row = fx.batch.runs[run_id]
            seconds = round((row.ended_at or 0.0) - row.created_at, 3)
            log_event(self.log, "run_ended", run=run_text(run_id), state=row.state.name.lower(), seconds=seconds)

    # -- beside the loop ----------------------------------------------------------------------------------

    def _request_claim(self, claim: Claim) -> None:
        """Claim after the claim under way, if there is one: never cut one short, what it took would be forgotten."""
        self._next_claim = claim
        if self._claiming is None or self._claiming.done():
            self._claiming = self._spawn(self._claim())

    async def _claim(self) -> None:
        while (claim := self._next_claim) is not None:
            self._next_claim = None
            runs, crashed = await self._take_over(claim), await self._crashed()
            self._quarantine.learn(crashed)
            if runs:
                log_event(self.log, "runs_claimed", count=len(runs))
                self.inbox.put(ev.Claimed(runs, crashed))

    async def _crashed(self) -> dict[int, str]:
        backoff = Backoff(COMMIT_RETRY_SECONDS, COMMIT_RETRY_SECONDS_MAX)
        while True:
            try:
                return await self.store.crashed(CRASHES_MAX)
            except Unavailable as error:
                log_event(self.log, "claim_delayed", level=logging.ERROR, error=str(error))
            await backoff.wait()

    async def _take_over(self, claim: Claim) -> list[OwnedRun]:
        backoff = Backoff(COMMIT_RETRY_SECONDS, COMMIT_RETRY_SECONDS_MAX)
        alive, mine = claim.alive, self.engine.core.runs

        def wanted(run_id: int) -> bool:
            """Not what a master owns that has come since: the next claim, which knows of it, has its turn then."""
            outdated = self._next_claim is not None and self._me.id in alive
            return not outdated and run_id not in mine and claim.share(run_id)

        while True:
            try:
                return await self.store.claim(self._me.id, alive, wanted)
            except Unavailable as error:
                log_event(self.log, "claim_delayed", level=logging.ERROR, error=str(error))
            alive -= {self._me.id}  # the failed try may have taken runs without our learning of it
            await backoff.wait()

    async def _look_up(self, strays: list[ev.Stray]) -> None:
        ended: dict[int, int] = {}
        for run_id in {key[0] for _, key in strays}:
            try:
                row = await self.store.run(run_id)
            except Unavailable:
                continue  # the worker says again what it holds on its next link
            if row is None or row.state.final:
                ended[run_id] = 0 if row is None else row.epoch
        self.inbox.put(ev.RunsEnded(strays, ended))

    async def _answer_probes(self, probes: list[tuple[str, int]]) -> None:
        yes = await reached(self.store)
        answer = cmd.Reached() if yes else cmd.Failed("unavailable", "the store does not answer this master either")
        for peer, request_id in probes:
            self.links.send(peer, answer, request_id)
        self.links.flush()

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._beside.add(task)
        task.add_done_callback(lambda _: self.inbox.put(ev.Tick()))
        return task

    def _raise_failure(self) -> None:
        if not self._beside:
            return
        for task in [task for task in self._beside if task.done()]:
            self._beside.remove(task)
            if not task.cancelled():
                task.result()

    # -- members -------------------------------------------------------------------------------------------

    def on_members(self, members: tuple[Member, ...]) -> None:
        """Keep a link to every worker, and to every other master: its closed port is how we learn of its death.

        Who is known to be dead is listed until the end of its lease, and is not dialled again whenever others come.
        """
        dead = self.engine.core.dead
        for member in members:
            if member.role in LINKED and member.id != self._me.id and member.id not in dead:
                self.links.dial(member)
        self.inbox.put(ev.Members(members))

    def on_session(self, session: Session) -> None:
        log_event(self.log, "registry_session", state=session.value)
        self.inbox.put(ev.SessionChanged(session.value))

    async def start(self) -> None:
        """Join the cluster and learn who is in it. Raises Unavailable if the store does not say what ends masters."""
        self._quarantine.learn(await self.store.crashed(CRASHES_MAX))
        await self.registry.start(self.on_members, self.on_session)
        await self.registry.join(self._me)

    def stop(self) -> None:
        """Let `serve` end after the turn under way."""
        self._stopping = True
        self.inbox.put(ev.Tick())

    async def close(self) -> None:
        """Leave, so that others take over at once, and let go of everything."""
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, self._outage.close(), return_exceptions=True)
        await self.registry.stop()
        await self.links.close()
        await self.store.close()
