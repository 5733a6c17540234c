"""Membership by leases on a roster: the state machine that database and ZooKeeper registries share.

Theory of operation. One task takes turns. A turn is one conversation with the roster: it renews our lease when
that is due (every third of it) and reads the members; in between, the roster wakes the task when something may
have changed, and `View.look_in` says when to look without being woken. Wishes (`join`, `leave`) are only noted;
the next turn makes the roster agree with them.

    no contact yet --> CONNECTED <--> SUSPENDED         a turn failed | a renewal succeeded
                          ^  \\           |
                          |   v           v
                          +---- LOST <----+             our lease ran out, or the roster has no entry of ours

The lease is counted on our own monotonic clock from *before* the renewal was sent, so it never ends later here
than it does for others. Every turn compares that clock with the lease before it talks to anybody: a process that
was paused for longer than its lease finds LOST first, whatever the roster says afterwards.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TypeVar

from dsfast.errors import DsfastError, Unavailable, UsageError
from dsfast.fatal import report_fatal
from dsfast.model import Member
from dsfast.registry.base import Session, SessionWatcher, Watcher
from dsfast.registry.roster import Reader, Roster, View, encode

START_SECONDS_MAX = 10.0  # how long `start` tries: an ensemble or database that starts at the same time makes it
LEAVE_SECONDS_MAX = 2.0  # how long a shutdown waits to say goodbye; the end of the lease says it otherwise
CONNECT_SECONDS_MIN = 5.0  # what a turn that holds no lease may take: connecting and logging in over a slow network
RENEWALS_PER_LEASE = 3  # two may fail before the lease is in danger
RETRIES_PER_LEASE = 10  # pace of turns out of contact, so that a short lease is not lost for want of trying
RETRY_SECONDS_MAX = 1.0  # and with a long one: what is back is found at once; jitter spreads a thousand who look

T = TypeVar("T")
log = logging.getLogger("dsfast.registry")


class RosterRegistry:
    """A registry on a roster; `session_seconds` is the lease that is asked for."""

    def __init__(self, roster: Roster, session_seconds: float, rng: random.Random | None = None) -> None:
        self._roster = roster
        self._seconds = session_seconds
        self._rng = rng or random.Random()
        self._reader = Reader()
        self._wanted: Member | None = None  # what others should see
        self._listed: Member | None = None  # what the roster may have of us; set before it is asked to
        self._held: Member | None = None  # what the roster has confirmed
        self._session: Session | None = None  # what was last reported; None before the first contact
        self._members: tuple[Member, ...] | None = None
        self._trouble: DsfastError = Unavailable("the registry did not answer")
        self._lease_end = math.inf  # by monotonic(): from here on others may not see us
        self._renew_at = 0.0
        self._turn_at = 0.0
        self._silent = False
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def listed_until(self) -> float:
        """The end of our lease; see `Registry.listed_until`."""
        return -math.inf if self._held is None or self._session is Session.LOST else self._lease_end

    async def start(self, on_members: Watcher, on_session: SessionWatcher) -> None:
        """Connect and report; see `Registry.start`. Raises Unavailable after START_SECONDS_MAX."""
        self._loop = asyncio.get_running_loop()
        self._on_members, self._on_session = on_members, on_session
        self._first: asyncio.Future[None] = self._loop.create_future()
        self._roster.attach(self._wake.set)
        self._task = asyncio.create_task(self._run(), name="registry")
        self._task.add_done_callback(self._on_end)
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                await self._first
        except TimeoutError:
            await self._end()
            raise Unavailable(f"{self._trouble} (tried for {START_SECONDS_MAX:g} seconds)") from self._trouble
        except BaseException:
            await self._end()
            raise

    async def join(self, member: Member) -> None:
        """Make this member visible; see `Registry.join`."""
        encode(member)
        await self._settle(member)

    async def leave(self) -> None:
        """Disappear at once; see `Registry.leave`."""
        if self._wanted is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS_MAX):
                await self._settle(None)

    async def stop(self) -> None:
        """Leave and disconnect; see `Registry.stop`."""
        self._silent = True
        if self._alive:
            await self.leave()
        await self._end()

    @property
    def _alive(self) -> bool:
        return self._task is not None and not self._task.done()

    async def _settle(self, wanted: Member | None) -> None:
        assert self._alive, "the registry was not started, or its task died"
        self._wanted = wanted
        self._settled.clear()
        self._wake.set()
        await self._settled.wait()
        if self._task is None:
            raise Unavailable("the registry was stopped before that was done")
        assert self._alive, "the registry's task died"

    async def _end(self) -> None:
        self._silent = True
        task, self._task = self._task, None
        self._settled.set()
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            await self._roster.close()

    def _on_end(self, task: asyncio.Task[None]) -> None:
        """The task only ends by `stop` or by a bug of ours: then nobody renews, and the daemon must not live on."""
        if task.cancelled() or (bug := task.exception()) is None:
            return
        self._say_session(Session.LOST)
        self._settled.set()
        if not self._first.done():
            self._first.set_exception(bug)
        else:
            report_fatal("the registry's task died", bug)

    async def _run(self) -> None:
        while True:
            await self._turn()
            await self._pause()

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._turn_at - monotonic())):
                await self._wake.wait()
        self._wake.clear()

    async def _turn(self) -> None:
        """One conversation with the roster, and what follows from it."""
        wanted, sent = self._wanted, monotonic()
        if sent >= self._lease_end:
            self._say_session(Session.LOST)
        renewing = sent >= self._renew_at or wanted is not self._held
        try:
            async with asyncio.timeout(self._patience(sent)):
                view = await self._converse(wanted, renewing)
        except TimeoutError:
            self._out_of_contact(Unavailable("the registry did not answer in time"))
        except (Unavailable, UsageError) as error:
            self._out_of_contact(error)
        else:
            self._in_contact(wanted, view, sent, renewing)

    def _patience(self, now: float) -> float:
        """Seconds a turn may take: it must fail while there is still some lease left to tell SUSPENDED from LOST."""
        if self._session in (None, Session.LOST):
            return max(self._seconds, CONNECT_SECONDS_MIN)
        return max(0.0, min(self._seconds / RENEWALS_PER_LEASE, self._lease_end - now))

    async def _converse(self, wanted: Member | None, renewing: bool) -> View:
        if self._listed is not None and (wanted is None or wanted.id != self._listed.id):
            await self._roster.remove(self._listed)
            self._listed = self._held = None
        if wanted is not None and renewing:
            self._listed = wanted
            return await self._roster.renew(wanted)
        return await self._roster.look(wanted)

    def _in_contact(self, wanted: Member | None, view: View, sent: float, renewed: bool) -> None:
        if renewed:
            lease = self._roster.lease_seconds
            self._lease_end, self._renew_at = sent + lease, sent + lease / RENEWALS_PER_LEASE
        gone = wanted is not None and wanted is self._held and not view.kept
        over = monotonic() >= self._lease_end  # this process was paused since the renewal was sent
        if gone or over:
            log.warning("registry_lost reason=%r", "the lease ran out" if over else "our entry is gone")
            self._say_session(Session.LOST)
        if over or (gone and not renewed):
            self._renew_at = self._turn_at = 0.0
            return
        self._held = wanted
        self._say_session(Session.CONNECTED)
        self._say_members(view)
        self._turn_at = min(self._renew_at, monotonic() + view.look_in)
        self._confirm(wanted)

    def _confirm(self, wanted: Member | None) -> None:
        if wanted is self._wanted:
            self._settled.set()
        if not self._first.done():
            self._first.set_result(None)

    def _out_of_contact(self, error: Unavailable | UsageError) -> None:
        self._trouble = error
        if self._session is None and isinstance(error, UsageError) and not self._first.done():
            self._first.set_exception(error)
        now = monotonic()
        retry_at = now + self._rng.uniform(0.5, 1.5) * min(self._seconds / RETRIES_PER_LEASE, RETRY_SECONDS_MAX)
        if now >= self._lease_end:
            self._say_session(Session.LOST)
        elif self._session is Session.CONNECTED:
            log.warning("registry_out_of_contact reason=%r", str(error))
            self._say_session(Session.SUSPENDED)
        self._renew_at = 0.0
        self._turn_at = retry_at if now >= self._lease_end else min(retry_at, self._lease_end)

    def _say_session(self, session: Session) -> None:
        if session is not self._session:
            self._session = session
            self._loop.call_soon(self._report, self._on_session, session)

    def _say_members(self, view: View) -> None:
        members = self._reader.read(view.bodies)
        if members != self._members:
            self._members = members
            self._loop.call_soon(self._report, self._on_members, members)

    def _report(self, callback: Callable[[T], None], value: T) -> None:
        if not self._silent:
            callback(value)
