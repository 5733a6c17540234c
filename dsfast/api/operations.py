"""Every route, declared once: what is served and what openapi.json says come from this table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.responses import Response

from dsfast.api import batch, cluster, logs, runs
from dsfast.api.shapes import (
    BatchSubmission,
    CancelOrder,
    LogQuery,
    Nothing,
    RunQuery,
    RunsQuery,
    Submission,
    TasksQuery,
    YamlQuery,
)
from dsfast.views import Batch, Cancelled, Lost, MemberPage, RunPage, RunView, TaskHistory, TaskPage

API = "/api/v1"


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path. `answers` maps status to the type of the body, None for one that is not JSON."""

    method: str
    path: str
    handler: Callable[[Any], Awaitable[Response]]
    answers: dict[int, type[msgspec.Struct] | None]
    query: type[msgspec.Struct] = Nothing
    body: type[msgspec.Struct] | None = None
    headers: tuple[str, ...] = ()
    yaml: bool = False  # the body may be YAML, too
    open: bool = False  # needs no token


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "POST", f"{API}/runs", runs.submit, {201: RunView, 200: RunView},
        query=YamlQuery, body=Submission, headers=("Idempotency-Key",), yaml=True,
    ),
    Operation("POST", f"{API}/runs/batch", batch.submit_batch, {200: Batch}, body=BatchSubmission),
    Operation("GET", f"{API}/runs", runs.list_runs, {200: RunPage}, query=RunsQuery),
    Operation(
        "GET", f"{API}/runs/{{run}}", runs.show_run, {200: RunView, 304: None},
        query=RunQuery, headers=("If-None-Match",),
    ),
    Operation("POST", f"{API}/runs/{{run}}/cancel", runs.cancel, {200: Cancelled}, body=CancelOrder),
    Operation("GET", f"{API}/runs/{{run}}/tasks", runs.list_tasks, {200: TaskPage}, query=TasksQuery),
    Operation("GET", f"{API}/runs/{{run}}/tasks/{{task}}", runs.show_task, {200: TaskHistory}),
    Operation("GET", f"{API}/runs/{{run}}/tasks/{{task}}/log", logs.read_log, {200: None}, query=LogQuery),
    Operation("GET", f"{API}/workers", cluster.list_workers, {200: MemberPage}),
    Operation("POST", f"{API}/workers/{{worker}}/lost", cluster.declare_lost, {200: Lost}),
    Operation("GET", f"{API}/masters", cluster.list_masters, {200: MemberPage}),
    Operation("GET", "/healthz", cluster.healthz, {200: cluster.Health}, open=True),
    Operation("GET", "/readyz", cluster.readyz, {200: cluster.Readiness, 503: cluster.Readiness}, open=True),
)  # fmt: skip
