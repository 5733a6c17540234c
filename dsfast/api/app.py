"""The application: the table of operations as Starlette routes, behind the guard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from dsfast.api.call import Call, read_query
from dsfast.api.faults import Refusal, answer_fault
from dsfast.api.guard import Guard
from dsfast.api.openapi import document
from dsfast.api.operations import API, OPERATIONS, Operation
from dsfast.errors import DsfastError
from dsfast.runtime.api import Gateway

Endpoint = Callable[[Request], Awaitable[Response]]


def build_app(gateway: Gateway, *, tokens: Iterable[str], hosts: Collection[str] | None) -> ASGIApp:
    """The ASGI application; `hosts` are the names it answers to, None for any."""
    routes = [Route(each.path, _endpoint(each, gateway), methods=[each.method]) for each in OPERATIONS]
    routes.append(Route(f"{API}/openapi.json", _openapi(), methods=["GET"]))
    handled: tuple[type[Exception], ...] = (DsfastError, Refusal, HTTPException)
    app = Starlette(routes=routes, exception_handlers=dict.fromkeys(handled, answer_fault))
    app.router.redirect_slashes = False
    return Guard(app, tokens=tokens, hosts=hosts)


def _endpoint(operation: Operation, gateway: Gateway) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        call = Call(request, gateway, read_query(request, operation.query))
        try:
            return await operation.handler(call)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is answered, and logged if it is ours
            return await answer_fault(request, error)

    return endpoint


def _openapi() -> Endpoint:
    body = msgspec.json.encode(document())

    async def openapi(request: Request) -> Response:
        return Response(body, media_type="application/json")

    return openapi
