"""The handler that hands out what tasks wrote: bytes by offset, or a stream until the attempt has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.responses import Response, StreamingResponse

from dsfast.api.call import Call
from dsfast.api.shapes import LOG_BYTES_MAX, LogQuery
from dsfast.errors import NotFound
from dsfast.rows import AttemptRow
from dsfast.runtime.api import Gateway
from dsfast.wire.commands import LogChunk

FOLLOW_SECONDS_MIN = 0.05  # a lively log is passed on as it is written
FOLLOW_SECONDS_MAX = 1.0  # a quiet one costs a question a second
_TYPE = "text/plain; charset=utf-8"


async def read_log(call: Call[LogQuery]) -> Response:
    """Bytes of an attempt's log. Where they are and whether more will come is in the X-Log headers."""
    gateway, query = call.gateway, call.query
    run = await gateway.run(await gateway.resolve(call.path("run")))
    position = await gateway.position(run, call.path("task"))
    attempt = _chosen(await gateway.store.attempts(run.id, task=position), query.attempt, call.path("task"))
    chunk = await gateway.read_log(attempt, query.offset, query.limit)
    headers = {
        "x-log-attempt": str(attempt.attempt),
        "x-log-offset": str(chunk.offset),
        "x-log-next": str(chunk.offset + len(chunk.data)),
        "x-log-size": str(chunk.size),
        "x-log-ended": str(chunk.ended).lower(),
    }
    if query.follow:
        return StreamingResponse(_follow(gateway, attempt, chunk), headers=headers, media_type=_TYPE)
    return Response(chunk.data, headers=headers, media_type=_TYPE)


def _chosen(attempts: list[AttemptRow], number: int | None, task: str) -> AttemptRow:
    tried = [row for row in attempts if row.worker is not None]
    if not tried:
        raise NotFound(f"task {task!r} has not been started, so it has no log")
    found = tried[-1] if number is None else next((row for row in tried if row.attempt == number), None)
    if found is None:
        raise NotFound(
            f"task {task!r} has no attempt {number}; there are {', '.join(str(row.attempt) for row in tried)}"
        )
    return found


async def _follow(gateway: Gateway, attempt: AttemptRow, chunk: LogChunk) -> AsyncIterator[bytes]:
    """What is there, then what is added, until the attempt no longer writes."""
    pause = FOLLOW_SECONDS_MIN
    while True:
        if chunk.data:
            yield chunk.data
            pause = FOLLOW_SECONDS_MIN
        elif chunk.ended:
            return
        else:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, FOLLOW_SECONDS_MAX)
        chunk = await gateway.read_log(attempt, chunk.offset + len(chunk.data), LOG_BYTES_MAX)
