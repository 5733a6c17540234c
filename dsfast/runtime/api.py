"""What stands between HTTP and the cluster: reads from the store, asks masters and workers over links.

Theory of operation. The gateway follows the registry without being a member, and keeps a link to every live
master and worker. What is durable is read from the store; only what a master alone knows (why a task waits) or a
worker alone has (a log) is asked for, with a short patience, and a run can be looked at while nobody answers.
Control goes to the run's owner; while a run changes hands it is offered again until somebody owns it. A submit
always carries an idempotency key, the client's or one made here, so offering it to a second master after the
first fell silent never starts a run twice.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

import msgspec

from dsfast.config import Config
from dsfast.engine.events import Event
from dsfast.errors import NotFound, ProtocolError, Unavailable, UsageError
from dsfast.ids import ALPHABET, TEXT_LENGTH, run_number, run_text
from dsfast.log import log_event
from dsfast.model import Member, Workflow, parse_canonical
from dsfast.registry import open_registry
from dsfast.registry.base import Session
from dsfast.rows import AttemptRow, RunRow
from dsfast.runtime.keys import load_keys
from dsfast.runtime.limits import LinkLimits
from dsfast.runtime.points import links_type
from dsfast.runtime.tls import tls_of
from dsfast.store import open_store
from dsfast.store.base import Store
from dsfast.wire import commands as cmd

LINK_SECONDS = 2.0  # to link to a member that is alive: a handshake takes milliseconds
SUBMIT_SECONDS = 30.0  # a master that takes a workflow of a million tasks while its database is busy
CANCEL_SECONDS = 15.0  # a run changes hands within the heartbeat timeout and a claim
EXPLAIN_SECONDS = 2.0  # an explanation that takes longer is left out
EXPLAIN_TASKS_MAX = 10_000  # as many as one answer lists
LOG_SECONDS = 10.0  # a disk that is slower is a failure to report
AGAIN_SECONDS = 0.2  # between two offers to a run's owner
WATCH_SECONDS = 3_600.0  # until a master is asked once more to say when a run ends: should it have forgotten
DEFINITION_BYTES_MAX = 16 << 20  # cached definitions, as JSON; decoded they take some ten times that
PREFIX_LENGTH_MIN = 4  # a shorter beginning of an id would name a year

logger = logging.getLogger("dsfast.api")


@dataclass(frozen=True, slots=True)
class Definition:
    """A workflow, and where each of its tasks is."""

    workflow: Workflow
    positions: dict[str, int]
    size: int


class Gateway:
    """The cluster as the api sees it; `async with Gateway(config) as gateway`."""

    def __init__(self, config: Config) -> None:
        self.store: Store = open_store(config.store.url, exclusive=False)
        self._registry = open_registry(
            config.registry.url, cluster=config.cluster.name, session_seconds=config.registry.session_seconds
        )
        boot = secrets.token_hex(4)
        self._links = links_type()(
            Member(role="api", name=f"api-{boot}", boot=boot, started_at=time.time()),
            keys=load_keys(config.cluster.key_file, create=False),
            cluster=config.cluster.name,
            accept=frozenset(),
            on_event=_unasked,
            rng=random.Random(secrets.randbits(64)),
            limits=LinkLimits(
                heartbeat_seconds=config.cluster.heartbeat_seconds,
                heartbeat_timeout_seconds=config.cluster.heartbeat_timeout_seconds,
            ),
            tls=tls_of(config.cluster),
        )
        self._members: dict[str, Member] = {}
        self._definitions: OrderedDict[str, Definition] = OrderedDict()
        self._watches: dict[int, asyncio.Task[None]] = {}  # by run: one for all who wait for its end

    async def __aenter__(self) -> Self:
        await self.store.open()
        await self._registry.start(self._on_members, self._on_session)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for watch in self._watches.values():
            watch.cancel()
        await self._registry.stop()
        await self._links.close()
        await self.store.close()

    # -- who is there --------------------------------------------------------------------------------------

    def live(self, role: str) -> list[Member]:
        """Live members of a role, by id."""
        return [member for member in self._members.values() if member.role == role]

    def load(self, member: Member) -> int | None:
        """Attempts that a worker runs, or unfinished runs of a master, as of its last heartbeat."""
        return self._links.load_of(member.id)

    async def missing(self) -> list[str]:
        """What keeps this gateway from serving, as sentences; empty when it is ready."""
        missing = [] if self.live("master") else ["no master is alive"]
        try:
            await self.store.runs(limit=1)
        except Unavailable as error:
            missing.append(str(error))
        return missing

    def _on_members(self, members: tuple[Member, ...]) -> None:
        gone = self._members.keys() - {member.id for member in members}
        self._members = {member.id: member for member in members}
        for member_id in gone:
            self._links.undial(member_id)
        for member in members:
            if member.role in ("master", "worker"):
                self._links.dial(member)

    def _on_session(self, session: Session) -> None:
        log_event(logger, "registry_session", state=session.value)

    # -- reading -------------------------------------------------------------------------------------------

    async def run(self, run_id: int) -> RunRow:
        """A run. Raises NotFound."""
        row = await self.store.run(run_id)
        if row is None:
            raise NotFound(f"there is no run {run_text(run_id)}")
        return row

    async def resolve(self, text: str) -> int:
        """The run that somebody means by an id, a unique beginning of one, or `last`. Raises NotFound, UsageError."""
        if text == "last":
            return _first(await self.store.runs(limit=1), "there are no runs").id
        if len(text) >= TEXT_LENGTH:
            return _number(text)
        least = _number(text.ljust(TEXT_LENGTH, ALPHABET[0]))
        if len(text) < PREFIX_LENGTH_MIN:
            raise UsageError(
                f"{text!r} is too short for a run: write at least {PREFIX_LENGTH_MIN} characters of its id"
            )
        most = _number(text.ljust(TEXT_LENGTH, ALPHABET[-1]))
        found = [row for row in await self.store.runs(before=most + 1, limit=2) if row.id >= least]
        if len(found) > 1:
            raise UsageError(f"{text!r} is the beginning of several runs, the newest being {run_text(found[0].id)}")
        return _first(found, f"no run begins with {text!r}").id

    async def workflow(self, digest: str) -> Workflow:
        """A definition, decoded."""
        return (await self._definition(digest)).workflow

    async def position(self, run: RunRow, task: str) -> int:
        """Where a task is in its workflow. Raises NotFound."""
        positions = (await self._definition(run.digest)).positions
        if task not in positions:
            raise NotFound(f"workflow {run.workflow!r} has no task {task!r}")
        return positions[task]

    async def _definition(self, digest: str) -> Definition:
        known = self._definitions.pop(digest, None) or await self._read_definition(digest)
        self._definitions[digest] = known
        while (
            len(self._definitions) > 1 and sum(each.size for each in self._definitions.values()) > DEFINITION_BYTES_MAX
        ):
            self._definitions.popitem(last=False)
        return known

    async def _read_definition(self, digest: str) -> Definition:
        body = await self.store.definition(digest)
        if body is None:
            raise NotFound(f"the definition {digest[:12]} is no longer in the database")
        workflow = await asyncio.to_thread(parse_canonical, body)
        return Definition(workflow, {task.name: place for place, task in enumerate(workflow.tasks)}, len(body))

    # -- asking masters --------------------------------------------------------------------------------------

    async def submit(self, command: cmd.Submit) -> cmd.Submitted:
        """Hand a workflow to the least loaded master, or to the next if that fails. Raises UsageError, Unavailable."""
        ours = command.idempotency_key is None
        if ours:
            command = msgspec.structs.replace(command, idempotency_key=f"api-{secrets.token_hex(16)}")
        answer = await self._offer(command)
        if not isinstance(answer, cmd.Submitted):
            raise ProtocolError(f"a submit was answered with {type(answer).__name__}")
        return msgspec.structs.replace(answer, repeated=False) if ours else answer

    async def submit_batch(self, command: cmd.SubmitBatch) -> tuple[cmd.Verdict, ...]:
        """The same for many runs at once, all by one master; a verdict for each. Raises UsageError, Unavailable."""
        batch = secrets.token_hex(16)
        keyed = tuple(
            order if order.idempotency_key else msgspec.structs.replace(order, idempotency_key=f"api-{batch}-{place}")
            for place, order in enumerate(command.runs)
        )
        answer = await self._offer(cmd.SubmitBatch(command.workflows, keyed))
        if not isinstance(answer, cmd.SubmittedBatch) or len(answer.verdicts) != len(keyed):
            raise ProtocolError(f"a batch of {len(keyed)} was answered with {type(answer).__name__}")
        return tuple(
            verdict if order.idempotency_key else msgspec.structs.replace(verdict, repeated=False)
            for order, verdict in zip(command.runs, answer.verdicts, strict=True)
        )

    async def _offer(self, command: cmd.Submit | cmd.SubmitBatch) -> cmd.Command:
        """The answer of the least loaded master that gives one; every run of the command has a key."""
        trouble = "no master is alive; start one with: dsfast master"
        for master in sorted(self.live("master"), key=lambda each: self.load(each) or 0):
            try:
                return await self._ask(master, command, SUBMIT_SECONDS)
            except Unavailable as error:
                trouble = f"no master took the workflow; the last one said: {error}"
        raise Unavailable(trouble)

    async def cancel(self, run_id: int, reason: str) -> bool:
        """Stop a run; False if it had ended. Returns once the intent is durable. Raises NotFound, Unavailable."""
        deadline = time.monotonic() + CANCEL_SECONDS
        while True:
            run = await self.run(run_id)
            if run.state.final:
                return False
            try:
                answer = await self._ask(self._owner(run), cmd.Cancel(run_id, reason), LINK_SECONDS)
                return isinstance(answer, cmd.Done) and answer.changed
            except Unavailable as error:
                if time.monotonic() > deadline:
                    raise
                log_event(logger, "cancel_waits", level=logging.DEBUG, run=run_text(run_id), error=str(error))
            await asyncio.sleep(AGAIN_SECONDS)

    async def explain(self, run: RunRow) -> tuple[dict[int, tuple[str, str]] | None, str]:
        """What the run's master says of each task, and a note if it could not be asked."""
        if run.state.final:
            return None, ""
        try:
            answer = await self._ask(self._owner(run), cmd.Explain(run.id, EXPLAIN_TASKS_MAX), EXPLAIN_SECONDS)
        except Unavailable as error:
            return None, f"its master could not be asked what tasks wait for: {error}"
        if not isinstance(answer, cmd.Explained):
            raise ProtocolError(f"an explanation was answered with {type(answer).__name__}")
        return {task: (word, reason) for task, word, reason in answer.tasks}, ""

    async def bury(self, worker: str) -> int:
        """Have every master replace what is bound to this worker; how many attempts. Raises UsageError, Unavailable."""
        if any(member.name == worker for member in self.live("worker")):
            raise UsageError(f"worker {worker} is alive; stop it first")
        attempts = 0
        for master in self.live("master"):
            answer = await self._ask(master, cmd.Bury(worker), SUBMIT_SECONDS)
            attempts += answer.attempts if isinstance(answer, cmd.Buried) else 0
        return attempts

    async def ended(self, run: RunRow, seconds: float) -> bool:
        """Wait until the run's master says that it has ended; False after so many seconds.

        Raises Unavailable when it cannot be asked: it is gone, or the run has ended already. All of this is a hint,
        and the truth is in the database.
        """
        watch = self._watches.get(run.id)
        if watch is None:
            watch = self._watches[run.id] = asyncio.ensure_future(self._watch(run))
            watch.add_done_callback(partial(self._watched, run.id))
        done, _ = await asyncio.wait({watch}, timeout=seconds)
        for told in done:
            told.result()
        return bool(done)

    async def _watch(self, run: RunRow) -> None:
        answer = await self._ask(self._owner(run), cmd.Watch(run.id), WATCH_SECONDS)
        if not isinstance(answer, cmd.Ended):
            raise ProtocolError(f"a watch was answered with {type(answer).__name__}")

    def _watched(self, run_id: int, watch: asyncio.Task[None]) -> None:
        del self._watches[run_id]
        if not watch.cancelled():
            watch.exception()  # whoever still waits is told of it; perhaps nobody does

    def _owner(self, run: RunRow) -> Member:
        owner = self._members.get(run.owner or "")
        if owner is None:
            raise Unavailable(f"the master of run {run_text(run.id)} is gone, and no other has taken it over yet")
        return owner

    # -- asking workers --------------------------------------------------------------------------------------

    async def read_log(self, attempt: AttemptRow, offset: int, limit: int) -> cmd.LogChunk:
        """Bytes of an attempt's log, from the worker that has it. Raises NotFound, Unavailable."""
        worker = _home(attempt.worker or "", self.live("worker"))
        read = cmd.LogRead(attempt.run_id, attempt.task, attempt.attempt, offset, limit)
        answer = await self._ask(worker, read, LOG_SECONDS)
        if not isinstance(answer, cmd.LogChunk):
            raise ProtocolError(f"{worker.id} answered a read of a log with {type(answer).__name__}")
        return answer

    async def _ask(self, member: Member, command: cmd.Command, seconds: float) -> cmd.Command:
        """The answer of a member. Raises what a `Failed` answer stands for."""
        peer_id = await self._links.connect(member, LINK_SECONDS)
        answer = await self._links.request(peer_id, command, seconds)
        if not isinstance(answer, cmd.Failed):
            return answer
        if answer.code == "usage":
            raise UsageError(answer.message)
        if answer.code == "not_found":
            raise NotFound(answer.message)
        raise Unavailable(answer.message)


def _home(worker_id: str, workers: Iterable[Member]) -> Member:
    """The live worker on whose disk the log of an attempt is: this life of it, or a later one of the same name."""
    name = worker_id.rpartition("@")[0]
    same = [worker for worker in workers if worker.name == name]
    if not same:
        raise Unavailable(f"worker {name} is not alive, and the log is on its disk")
    return next((worker for worker in same if worker.id == worker_id), same[0])


def _first(rows: list[RunRow], otherwise: str) -> RunRow:
    if not rows:
        raise NotFound(otherwise)
    return rows[0]


def _number(text: str) -> int:
    try:
        return run_number(text)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _unasked(event: Event) -> None:
    """Links report what they do; the registry says who is there, and nobody sends us anything unasked."""
