"""Handlers about runs: submit, list, look, wait, cancel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Any
from zlib import crc32

import msgspec
from starlette.responses import Response

from dsfast.api.call import Call, reply
from dsfast.api.shapes import (
    IDEMPOTENCY_KEY_LENGTH_MAX,
    INLINE_TASKS_MAX,
    CancelOrder,
    Nothing,
    RunQuery,
    RunsQuery,
    Submission,
    TasksQuery,
    YamlQuery,
)
from dsfast.errors import Problem, Unavailable, UsageError
from dsfast.formats.yaml_workflow import load_workflow, parse_body
from dsfast.model import Priority, RunState, Workflow, canonical
from dsfast.rows import RunRow
from dsfast.runtime.api import Gateway
from dsfast.views import (
    RUN_WORDS,
    Cancelled,
    RunPage,
    RunView,
    TaskHistory,
    TaskPage,
    TaskView,
    attempt_view,
    count_latest,
    count_tasks,
    run_view,
    task_views,
)
from dsfast.wire.commands import Submit, Submitted

NEWS_SECONDS_MIN = 0.05  # between two looks whether a task has moved: those of a short run are reported promptly
NEWS_SECONDS_MAX = 0.5  # a person does not notice; the database hardly does
END_SECONDS_MAX = 5.0  # between two looks whether a run has ended: its master says when, this is for when it cannot
READ_AT_ONCE_BYTES = 16 << 10  # of a workflow as an object: read on the loop in less than a millisecond
TASKS_AT_ONCE_MAX = 2000  # views made on the loop, some 10 ms; more are made in a thread

_STATES = {word: state for state, word in RUN_WORDS.items()}


async def submit(call: Call[YamlQuery]) -> Response:
    """Start a run. Answered once it is durable: 201, or 200 if the idempotency key had started one before."""
    order = await _submission(call)
    key = call.header("idempotency-key")
    if key is not None and not 0 < len(key) <= IDEMPOTENCY_KEY_LENGTH_MAX:
        raise UsageError(Problem(f"has 1 to {IDEMPOTENCY_KEY_LENGTH_MAX} characters", field="Idempotency-Key"))
    workflow = await _read_workflow(bytes(order.workflow), order.source)
    command = Submit(
        workflow=canonical(workflow),
        params=msgspec.json.encode(order.params),
        idempotency_key=key,
        priority=Priority[order.priority.upper()] if order.priority else None,
    )
    answer = await call.gateway.submit(command)
    if answer.created_at:
        run = _accepted(answer, workflow, command)
        view = run_view(run, now=time.time(), counts=count_latest(run, {}))
    else:
        view = await _plain_view(call.gateway, await call.gateway.run(answer.run_id))
    return reply(view, 200 if answer.repeated else 201, location=f"/api/v1/runs/{view.id}")


def _accepted(answer: Submitted, workflow: Workflow, order: Submit) -> RunRow:
    """A run as its master has just written it: reading it back would take longer than starting it."""
    return RunRow(
        id=answer.run_id,
        workflow=workflow.name,
        digest="",
        state=RunState.SUBMITTED,
        owner=None,
        epoch=0,
        priority=workflow.priority if order.priority is None else order.priority,
        params=order.params,
        created_at=answer.created_at,
        tasks=len(workflow.tasks),
    )


async def _submission(call: Call[YamlQuery]) -> Submission:
    if call.media_type == "application/json":
        return await call.json(Submission)
    query = call.query
    try:
        workflow = msgspec.Raw(msgspec.json.encode((await call.body()).decode()))
        params = msgspec.json.decode(query.params, type=dict[str, Any])
    except (UnicodeDecodeError, msgspec.DecodeError) as error:
        raise UsageError(Problem(f"the body is not UTF-8, or `params` is not a JSON object: {error}")) from None
    return Submission(workflow, params, query.priority, query.source)


async def _read_workflow(body: bytes, source: str | None) -> Workflow:
    """As `read_workflow`; what may take a while is read in a thread."""
    if len(body) <= READ_AT_ONCE_BYTES and body.startswith(b"{"):
        return read_workflow(body, source)
    return await asyncio.to_thread(read_workflow, body, source)


def read_workflow(body: bytes, source: str | None) -> Workflow:
    """The workflow in a request: an object, or the text of a YAML file. Raises UsageError."""
    if body.startswith(b'"'):
        return load_workflow(msgspec.json.decode(body, type=str), source)
    if not body.startswith(b"{"):
        raise UsageError(Problem("must be an object, or the text of a YAML file", field="workflow"))
    return parse_body(body, source)


async def list_runs(call: Call[RunsQuery]) -> Response:
    """Runs, newest first, a page at a time."""
    query, store = call.query, call.gateway.store
    before = await call.gateway.resolve(query.before) if query.before else None
    states = [_STATES[word] for word in query.state]
    rows = await store.runs(states=states, workflow=query.workflow, before=before, limit=query.limit)
    latest = await store.counts([row.id for row in rows])
    now = time.time()
    views = [run_view(row, now=now, counts=count_latest(row, latest.get(row.id, {}))) for row in rows]
    return reply(RunPage(views, views[-1].id if len(rows) == query.limit else None))


async def show_run(call: Call[RunQuery]) -> Response:
    """A run, with what every task of it does or waits for. The id may be `last` or a unique beginning of one."""
    run = await call.gateway.run(await call.gateway.resolve(call.path("run")))
    seen = call.header("if-none-match")
    run, latest, version = await _await_news(call.gateway, run, call.query.wait, seen)
    if version == seen:
        return Response(status_code=304, headers={"etag": version})
    if call.query.tasks and run.tasks <= INLINE_TASKS_MAX:
        return reply(await _full_view(call.gateway, run), etag=version)
    note = f"{run.tasks} tasks are too many to list here; page through /tasks" if call.query.tasks else ""
    return reply(run_view(run, now=time.time(), counts=count_latest(run, latest), note=note), etag=version)


async def _await_news(
    gateway: Gateway, run: RunRow, seconds: float, seen: str | None
) -> tuple[RunRow, Mapping[int, int], str]:
    """The run once it has ended, or is not what was seen, or time is up; its counts and its version."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    pause, untold = END_SECONDS_MAX if seen is None else NEWS_SECONDS_MIN, 0.0
    while True:
        latest = (await gateway.store.counts([run.id])).get(run.id, {})
        version = _version(run, latest)
        changed, left = seen is not None and version != seen, deadline - loop.time()
        if run.state.final or changed or left <= 0:
            return run, latest, version
        try:
            await gateway.ended(run, min(pause, left))
        except Unavailable:  # look at once: it may have ended before its master was asked
            await asyncio.sleep(min(untold, left))
            untold = min(untold + NEWS_SECONDS_MIN, NEWS_SECONDS_MAX)
        pause = pause if seen is None else min(pause * 1.5, NEWS_SECONDS_MAX)
        run = await gateway.run(run.id)


def _version(run: RunRow, latest: Mapping[int, int]) -> str:
    """Changes whenever the run's state or the number of tasks in any state does."""
    return f'W/"{run.state.value}-{crc32(repr(sorted(latest.items())).encode()):08x}"'


async def _plain_view(gateway: Gateway, run: RunRow) -> RunView:
    latest = (await gateway.store.counts([run.id])).get(run.id, {})
    return run_view(run, now=time.time(), counts=count_latest(run, latest))


async def _full_view(gateway: Gateway, run: RunRow) -> RunView:
    tasks, note = await _tasks(gateway, run)
    return run_view(run, now=time.time(), counts=count_tasks(tasks), tasks=tasks, note=note)


async def _tasks(gateway: Gateway, run: RunRow) -> tuple[list[TaskView], str]:
    """All tasks of a run, and a note if its master could not be asked about them."""
    workflow = await gateway.workflow(run.digest)
    attempts = await gateway.store.attempts(run.id)
    explained, note = await gateway.explain(run)
    build = partial(task_views, run, workflow, attempts, now=time.time(), explained=explained)
    return await asyncio.to_thread(build) if run.tasks > TASKS_AT_ONCE_MAX else build(), note


async def list_tasks(call: Call[TasksQuery]) -> Response:
    """Tasks of a run in the workflow's order, a page at a time."""
    run = await call.gateway.run(await call.gateway.resolve(call.path("run")))
    tasks, _ = await _tasks(call.gateway, run)
    end = call.query.after + call.query.limit
    return reply(TaskPage(tasks[call.query.after : end], end if end < len(tasks) else None))


async def show_task(call: Call[Nothing]) -> Response:
    """A task and every try of it."""
    run = await call.gateway.run(await call.gateway.resolve(call.path("run")))
    position = await call.gateway.position(run, call.path("task"))
    tasks, _ = await _tasks(call.gateway, run)
    rows = await call.gateway.store.attempts(run.id, task=position)
    now = time.time()
    return reply(TaskHistory(tasks[position], [attempt_view(row, now) for row in rows]))


async def cancel(call: Call[Nothing]) -> Response:
    """Stop a run. Answered once the intent is durable; its tasks are being ended then."""
    order = await call.json(CancelOrder)
    run_id = await call.gateway.resolve(call.path("run"))
    changed = await call.gateway.cancel(run_id, order.reason)
    return reply(Cancelled(changed, await _plain_view(call.gateway, await call.gateway.run(run_id))))
