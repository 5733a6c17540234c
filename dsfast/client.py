"""A small synchronous client of the HTTP API, on the standard library's http.client.

    with Client("http://127.0.0.1:7482", token) as client:
        run = client.submit_yaml(text)
        print(client.wait(run.id).state)

One connection is kept and made anew when the server has closed it. Requests that can be repeated without harm are
repeated once if the connection fails: all but batches that bring no idempotency keys. A submit without one is given
one for this. Answers are the shapes of `dsfast.views`.
"""

from __future__ import annotations

import http.client
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from dsfast.errors import DsfastError, NotFound, Problem, ProtocolError, Unavailable, UsageError
from dsfast.model import Workflow
from dsfast.views import (
    Batch,
    Cancelled,
    Entry,
    ErrorView,
    Lost,
    MemberPage,
    MemberView,
    RunPage,
    RunView,
    TaskHistory,
    TaskPage,
    TaskView,
)

API = "/api/v1"
TIMEOUT_SECONDS = 60.0  # for one answer: longer than any server-side patience but waiting, which adds its own
WAIT_SECONDS = 30.0  # of one long poll; the server allows up to 60
FOLLOW_TIMEOUT_SECONDS = 3600.0  # a followed log may be silent for as long as this
CHUNK_BYTES = 64 << 10
TASKS_PER_PAGE = 10_000  # the most that one answer holds

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class LogPart:
    """Bytes of an attempt's log: where they are, and whether the attempt still writes."""

    attempt: int
    offset: int
    data: bytes
    size: int
    ended: bool


class RunOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """One run of a batch; without a workflow it is of the one that the batch has."""

    workflow: Any = None  # as `Client.submit_batch` takes it
    params: Mapping[str, Any] = {}
    priority: str | None = None
    idempotency_key: str | None = None
    source: str | None = None


class Client:
    """A connection to an api, for one thread. Raises UsageError, NotFound, Unavailable, ProtocolError."""

    def __init__(self, url: str, token: str, *, timeout: float = TIMEOUT_SECONDS) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(Problem(f"{url!r} is not the URL of an api", hint="it looks like http://127.0.0.1:7482"))
        self.url = url
        self._timeout = timeout
        self._base = parts.path.rstrip("/") + API
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    # -- runs ----------------------------------------------------------------------------------------------

    def submit_yaml(
        self,
        text: str,
        params: Mapping[str, Any] | None = None,
        *,
        priority: str | None = None,
        idempotency_key: str | None = None,
        source: str | None = None,
    ) -> RunView:
        """Start a run of the workflow in this YAML text; `source` is the file name for messages."""
        order = {"workflow": text, "params": params or {}, "priority": priority, "source": source}
        return self._submit(order, idempotency_key)

    def submit(
        self,
        workflow: Workflow | Mapping[str, Any] | msgspec.Raw,
        params: Mapping[str, Any] | None = None,
        *,
        priority: str | None = None,
        idempotency_key: str | None = None,
    ) -> RunView:
        """Start a run of this workflow, given as an object or as its canonical JSON."""
        return self._submit({"workflow": workflow, "params": params or {}, "priority": priority}, idempotency_key)

    def submit_batch(
        self,
        orders: Sequence[RunOrder],
        workflow: Workflow | Mapping[str, Any] | msgspec.Raw | str | None = None,
        *,
        source: str | None = None,
    ) -> list[Entry]:
        """Start up to 1,000 runs with one request; what became of each, in their order.

        `workflow` is that of all orders that bring none of their own, as an object or as YAML text. A bad order does
        not keep the others from being started.
        """
        body = {"workflow": workflow, "source": source, "runs": orders}
        keyed = all(order.idempotency_key for order in orders)
        return self._post("/runs/batch", body, Batch, {}, repeatable=keyed).runs

    def _submit(self, order: Mapping[str, Any], key: str | None) -> RunView:
        headers = {"Idempotency-Key": key or f"client-{secrets.token_hex(16)}"}
        return self._post("/runs", order, RunView, headers, repeatable=True)

    def runs(
        self,
        *,
        states: Sequence[str] = (),
        workflow: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> RunPage:
        """A page of runs, newest first."""
        query = [("state", state) for state in states] + [("limit", str(limit))]
        query += [("workflow", workflow)] if workflow else []
        query += [("before", before)] if before else []
        return self._get("/runs", RunPage, query)

    def run(self, run: str, *, tasks: bool = True) -> RunView:
        """A run by id, unique beginning of an id, or `last`."""
        return self._get(f"/runs/{quote(run, safe='')}", RunView, [("tasks", str(tasks).lower())])

    def tasks(self, run: str) -> Iterator[TaskView]:
        """All tasks of a run, however many."""
        after: int | None = 0
        while after is not None:
            query = [("after", str(after)), ("limit", str(TASKS_PER_PAGE))]
            page = self._get(f"/runs/{quote(run, safe='')}/tasks", TaskPage, query)
            yield from page.tasks
            after = page.next

    def task(self, run: str, task: str) -> TaskHistory:
        """A task and every try of it."""
        return self._get(f"/runs/{quote(run, safe='')}/tasks/{quote(task, safe='')}", TaskHistory)

    def wait(self, run: str, timeout: float | None = None) -> RunView | None:
        """The run once it has ended; None if it has not within `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = WAIT_SECONDS if deadline is None else max(0.0, min(WAIT_SECONDS, deadline - time.monotonic()))
            query = [("tasks", "false"), ("wait", f"{left:.3f}")]
            view = self._get(f"/runs/{quote(run, safe='')}", RunView, query)
            if view.ended_at is not None:
                return view
            if deadline is not None and time.monotonic() >= deadline:
                return None

    def changes(self, run: str) -> Iterator[RunView]:
        """The run now, and again whenever it has changed, until it has ended."""
        seen: str | None = None
        while True:
            headers = {"If-None-Match": seen} if seen else {}
            query = [("wait", str(WAIT_SECONDS))] if seen else []
            with self._exchange("GET", f"/runs/{quote(run, safe='')}", query, headers=headers) as answer:
                if answer.status == 304:
                    answer.read()
                    continue
                seen = answer.headers.get("ETag")
                view = _decoded(answer.read(), RunView)
            yield view
            if view.ended_at is not None:
                return

    def cancel(self, run: str, reason: str = "") -> Cancelled:
        """Stop a run."""
        return self._post(f"/runs/{quote(run, safe='')}/cancel", {"reason": reason}, Cancelled, {}, repeatable=True)

    # -- logs ----------------------------------------------------------------------------------------------

    def log(
        self, run: str, task: str, *, attempt: int | None = None, offset: int = 0, limit: int = CHUNK_BYTES
    ) -> LogPart:
        """Bytes of an attempt's log; a negative offset counts from the end."""
        query = [("offset", str(offset)), ("limit", str(limit))]
        with self._exchange("GET", _log_path(run, task), query + _attempt(attempt)) as answer:
            return _part(answer, answer.read())

    def follow_log(self, run: str, task: str, *, attempt: int | None = None, offset: int = 0) -> Iterator[bytes]:
        """What the log has from `offset` on, and what is added, until the attempt has ended."""
        query = [("offset", str(offset)), ("follow", "true"), *_attempt(attempt)]
        with self._exchange("GET", _log_path(run, task), query, timeout=FOLLOW_TIMEOUT_SECONDS) as answer:
            while data := answer.read1(CHUNK_BYTES):
                yield data

    # -- the cluster ---------------------------------------------------------------------------------------

    def workers(self) -> list[MemberView]:
        """Live workers."""
        return self._get("/workers", MemberPage).members

    def declare_lost(self, worker: str) -> Lost:
        """Vouch that no life of a worker nobody can see runs any more; what it ran starts elsewhere."""
        return self._post(f"/workers/{quote(worker, safe='')}/lost", {}, Lost, {}, repeatable=True)

    def masters(self) -> list[MemberView]:
        """Live masters."""
        return self._get("/masters", MemberPage).members

    # -- one request ---------------------------------------------------------------------------------------

    def _get(self, path: str, type_: type[T], query: Sequence[tuple[str, str]] = ()) -> T:
        with self._exchange("GET", path, query) as answer:
            return _decoded(answer.read(), type_)

    def _post(self, path: str, body: object, type_: type[T], headers: Mapping[str, str], *, repeatable: bool) -> T:
        with self._exchange("POST", path, headers=headers, body=body, repeatable=repeatable) as answer:
            return _decoded(answer.read(), type_)

    @contextmanager
    def _exchange(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        *,
        headers: Mapping[str, str] | None = None,
        body: object = None,
        repeatable: bool = True,
        timeout: float | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request and hand out its answer, if it is a success; the connection is reset if it is not read."""
        target = self._base + path + (f"?{urlencode(query)}" if query else "")
        sent = {**self._headers, **(headers or {})}
        data = None if body is None else msgspec.json.encode(body)
        if data is not None:
            sent["Content-Type"] = "application/json"
        answer = self._send(method, target, data, sent, timeout or self._timeout, tries=2 if repeatable else 1)
        try:
            if answer.status >= 400:
                raise _error(answer.status, answer.read())
            yield answer
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None
        finally:
            if not answer.isclosed():
                self._connection.close()

    def _send(
        self, method: str, target: str, data: bytes | None, headers: Mapping[str, str], timeout: float, *, tries: int
    ) -> http.client.HTTPResponse:
        connection = self._connection
        if tries == 1:
            connection.close()  # the server may have closed an idle one, and this must not be sent twice
        connection.timeout = timeout
        fresh = connection.sock is None
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        try:
            connection.request(method, target, data, dict(headers))
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            stale = not fresh and isinstance(error, (ConnectionError, http.client.RemoteDisconnected))
            if tries > 1 and stale:
                return self._send(method, target, data, headers, timeout, tries=tries - 1)
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> Unavailable:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Unavailable(f"no answer from {self.url}: {reason}; start one with `dsfast up`, or name it with --api")


def _log_path(run: str, task: str) -> str:
    return f"/runs/{quote(run, safe='')}/tasks/{quote(task, safe='')}/log"


def _attempt(attempt: int | None) -> list[tuple[str, str]]:
    return [] if attempt is None else [("attempt", str(attempt))]


def _part(answer: http.client.HTTPResponse, data: bytes) -> LogPart:
    head = answer.headers
    try:
        attempt, offset, size = (int(head[f"X-Log-{name}"]) for name in ("Attempt", "Offset", "Size"))
    except (TypeError, ValueError):
        raise ProtocolError("the answer is not a part of a log; is this the URL of a dsfast api?") from None
    return LogPart(attempt, offset, data, size, head["X-Log-Ended"] == "true")


def _decoded(body: bytes, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=type_)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"the answer makes no sense ({error}); is this the URL of a dsfast api?") from None


def _error(status: int, body: bytes) -> DsfastError:
    """What an answer that is not a success stands for."""
    try:
        fault = msgspec.json.decode(body, type=ErrorView).error
    except msgspec.DecodeError:
        return ProtocolError(f"the answer is HTTP {status} without an explanation; is this the URL of a dsfast api?")
    problems = [Problem(p.message, p.file, p.line, p.field, p.hint) for p in fault.problems]
    if status == 404:
        return NotFound(problems or fault.message)
    if status in (502, 503, 504):
        return Unavailable(fault.message)
    if status < 500:
        return UsageError(problems or fault.message)
    return DsfastError(fault.message)
