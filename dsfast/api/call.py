"""One request as a handler sees it: checked path, query and body, and the gateway to the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from dsfast.errors import Problem, UsageError
from dsfast.runtime.api import Gateway

Q = TypeVar("Q", bound=msgspec.Struct)
S = TypeVar("S", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Call(Generic[Q]):
    """A request with its query already read."""

    request: Request
    gateway: Gateway
    query: Q

    def path(self, name: str) -> str:
        """A part of the path."""
        part: str = self.request.path_params[name]
        return part

    def header(self, name: str) -> str | None:
        """A header, or None."""
        return self.request.headers.get(name)

    @property
    def media_type(self) -> str:
        """The type of the body."""
        return (self.header("content-type") or "").partition(";")[0].strip().lower()

    async def body(self) -> bytes:
        """All of the body. Raises Refusal when it is too long."""
        return await self.request.body()

    async def json(self, type_: type[S]) -> S:
        """The body as this type. Raises UsageError."""
        try:
            return msgspec.json.decode(await self.body() or b"{}", type=type_)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UsageError(Problem(str(error), field="body")) from None


def read_query(request: Request, type_: type[Q]) -> Q:
    """The query string as this type. Raises UsageError, naming the parameter."""
    lists = _list_fields(type_)
    values: dict[str, Any] = {}
    for name in request.query_params:
        given = request.query_params.getlist(name)
        if len(given) > 1 and name not in lists:
            raise UsageError(Problem(f"is there {len(given)} times", field=name))
        values[name] = given if name in lists else given[0]
    try:
        return msgspec.convert(values, type_, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(Problem(str(error), field="query")) from None


@cache
def _list_fields(type_: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(field.encode_name for field in msgspec.structs.fields(type_) if field.default_factory is list)


def reply(view: Any, status: int = 200, **headers: str) -> Response:
    """An answer as JSON."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(msgspec.json.encode(view), status, named, media_type="application/json")
