"""What went wrong, as an answer: a stable code, a sentence, every problem; never a traceback or a query."""

from __future__ import annotations

import logging
import secrets

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dsfast.errors import NotFound, Problem, ProtocolError, Unavailable, UsageError
from dsfast.log import log_event
from dsfast.views import ErrorView, Fault, ProblemView

logger = logging.getLogger("dsfast.api")

RETRY_SECONDS = 1  # what a client waits before it asks again for something that is out of reach
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


class Refusal(Exception):
    """A request that is not served, for a reason that HTTP has a status for."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def described(code: str, message: str, problems: tuple[Problem, ...] = ()) -> Fault:
    """What went wrong, as it is told."""
    return Fault(code, message, [ProblemView(p.message, p.file, p.line, p.field, p.hint) for p in problems])


def fault(status: int, code: str, message: str, problems: tuple[Problem, ...] = ()) -> Response:
    """An answer that is not a success."""
    body = msgspec.json.encode(ErrorView(described(code, message, problems)))
    headers = {"retry-after": str(RETRY_SECONDS)} if status == 503 else {}
    if status in (401, 413, 415, 421):  # the body, if any, is not read: what follows it on this connection is lost
        headers["connection"] = "close"
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(body, status, headers, media_type="application/json")


async def answer_fault(request: Request, error: Exception) -> Response:
    """The answer to a request whose handler raised."""
    if isinstance(error, Refusal):
        return fault(error.status, error.code, str(error))
    if isinstance(error, NotFound):
        return fault(404, "not_found", str(error), error.problems)
    if isinstance(error, UsageError):
        return fault(400, "usage", str(error), error.problems)
    if isinstance(error, Unavailable):
        return fault(503, "unavailable", str(error))
    if isinstance(error, ProtocolError):
        return fault(502, "protocol", f"a daemon of the cluster gave an answer that makes no sense: {error}")
    if isinstance(error, HTTPException):
        text = f"{request.method} {request.url.path}: {error.detail.lower()}"
        return fault(error.status_code, _CODES.get(error.status_code, "http"), text)
    return _internal(request, error)


def _internal(request: Request, error: Exception) -> Response:
    reference = secrets.token_hex(4)
    log_event(
        logger, "request_failed", level=logging.ERROR, exc=error,
        reference=reference, method=request.method, path=request.url.path,
    )  # fmt: skip
    return fault(500, "internal", f"an internal error; the log of the api has it under reference={reference}")
