"""Many runs in one request: read one by one, started in one turn of a master, each with an answer of its own."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec
from starlette.responses import Response

from dsfast.api.call import Call, reply
from dsfast.api.faults import described
from dsfast.api.runs import read_workflow
from dsfast.api.shapes import BatchOrder, BatchSubmission, GivenLater, LooseBatch, Nothing
from dsfast.errors import Problem, UsageError
from dsfast.ids import run_text
from dsfast.model import Priority, canonical
from dsfast.views import Batch, Entry
from dsfast.wire.commands import Order, SubmitBatch, Verdict

NONE = b"null"
T = TypeVar("T", bound=msgspec.Struct)
Body = tuple[bytes, str | None]  # a workflow as it was sent, and the file name for messages


async def submit_batch(call: Call[Nothing]) -> Response:
    """Start many runs at once. Answered once all that could be started are durable: an id or an error for each."""
    if call.header("idempotency-key") is not None:
        hint = "give each run an `idempotency_key`"
        raise UsageError(Problem("a batch has no key of its own", field="Idempotency-Key", hint=hint))
    reading = await asyncio.to_thread(_read, await call.body())
    command = reading.command()
    verdicts = iter(await call.gateway.submit_batch(command) if command.runs else ())
    return reply(Batch([found if isinstance(found, Entry) else _entry(next(verdicts)) for found in reading.found]))


def _read(body: bytes) -> Reading:
    """What a body asks for. Raises UsageError if it is malformed as a whole."""
    try:
        batch = msgspec.json.decode(body, type=BatchSubmission)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _read_loosely(_decoded(body, LooseBatch, "body"))
    reading = Reading((_given(batch.workflow), batch.source))
    for order in batch.runs:
        reading.add(order)
    return reading


def _read_loosely(batch: LooseBatch) -> Reading:
    reading = Reading((_given(batch.workflow), batch.source))
    for place, order in enumerate(batch.runs):
        reading.add(_order(bytes(order), place))
    return reading


def _given(workflow: GivenLater) -> bytes:
    return NONE if isinstance(workflow, msgspec.UnsetType) else bytes(workflow)


def _order(body: bytes, place: int) -> BatchOrder | UsageError:
    try:
        return _decoded(body, BatchOrder, f"runs[{place}]")
    except UsageError as error:
        return error


def _decoded(body: bytes, type_: type[T], field: str) -> T:
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(Problem(str(error), field=field)) from None


class Reading:
    """What has been read of a batch; every workflow is read once, however many runs have it."""

    def __init__(self, shared: Body) -> None:
        self.found: list[Order | Entry] = []
        self._shared = shared
        self._known: dict[Body, int | UsageError] = {}
        self._workflows: list[bytes] = []

    def add(self, order: BatchOrder | UsageError) -> None:
        """Take in one more run, or what is wrong with it."""
        try:
            if isinstance(order, UsageError):
                raise order
            self.found.append(self._placed(order))
        except UsageError as error:
            self.found.append(Entry(None, False, described("usage", str(error), error.problems)))

    def command(self) -> SubmitBatch:
        """Those that can be started."""
        return SubmitBatch(tuple(self._workflows), tuple(each for each in self.found if isinstance(each, Order)))

    def _placed(self, order: BatchOrder) -> Order:
        own = _given(order.workflow)
        place = self._place(self._shared if own == NONE else (own, order.source))
        priority = Priority[order.priority.upper()] if order.priority else None
        return Order(place, msgspec.json.encode(order.params), order.idempotency_key, priority)

    def _place(self, body: Body) -> int:
        if body not in self._known:
            self._known[body] = self._new_place(body)
        place = self._known[body]
        if isinstance(place, UsageError):
            raise place
        return place

    def _new_place(self, body: Body) -> int | UsageError:
        try:
            self._workflows.append(canonical(read_workflow(*body)))
        except UsageError as error:
            return error
        return len(self._workflows) - 1


def _entry(verdict: Verdict) -> Entry:
    if verdict.refused:
        return Entry(None, False, described("usage", verdict.refused))
    return Entry(run_text(verdict.run_id), verdict.repeated, None)
