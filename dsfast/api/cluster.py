"""Handlers about the cluster: who is alive, and whether this api can do its work."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from dsfast import __version__
from dsfast.api.call import Call, reply
from dsfast.api.shapes import Nothing
from dsfast.views import Lost, MemberPage, member_view


class Health(msgspec.Struct, frozen=True):
    """This process answers."""

    status: str
    version: str


class Readiness(msgspec.Struct, frozen=True):
    """Whether requests can be served; `missing` says in sentences what is not there."""

    ready: bool
    missing: list[str]


async def list_workers(call: Call[Nothing]) -> Response:
    """Workers that are alive."""
    return _members(call, "worker")


async def list_masters(call: Call[Nothing]) -> Response:
    """Masters that are alive."""
    return _members(call, "master")


async def declare_lost(call: Call[Nothing]) -> Response:
    """A worker that nobody can see is gone for good: start elsewhere what it ran."""
    return reply(Lost(await call.gateway.bury(call.path("worker"))))


def _members(call: Call[Nothing], role: str) -> Response:
    gateway = call.gateway
    return reply(MemberPage([member_view(member, gateway.load(member)) for member in gateway.live(role)]))


async def healthz(call: Call[Nothing]) -> Response:
    """Whether this process lives. Needs no token."""
    return reply(Health("ok", __version__))


async def readyz(call: Call[Nothing]) -> Response:
    """Whether this api can serve: the database answers and a master is alive. Needs no token."""
    missing = await call.gateway.missing()
    return reply(Readiness(not missing, missing), 503 if missing else 200)
