"""What every request must pass before a handler sees it.

In order: the Host header (a page on the web may point its own name at 127.0.0.1), the declared size, the bearer
token, where it comes from, and the type of its body. No byte of a body is read before the token is known, and
no more than `BODY_BYTES_MAX` afterwards. Tokens are compared by their SHA-256 in constant time.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Iterable
from hashlib import sha256

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dsfast.api.faults import Refusal, fault

BODY_BYTES_MAX = 64 << 20  # a workflow of a million small tasks; links carry no larger frame either
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
BODY_TYPES = frozenset({"application/json", "application/yaml"})
_SAFE_METHODS = frozenset({"GET", "HEAD"})
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Guard:
    """ASGI middleware around everything. `hosts` are the names that a Host header may have; None allows all."""

    def __init__(self, app: ASGIApp, *, tokens: Iterable[str], hosts: Collection[str] | None) -> None:
        self._app = app
        self._digests = [sha256(token.encode()).digest() for token in tokens]
        self._hosts = hosts
        assert self._digests, "an api without a token would be open to everyone"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        try:
            self._check(scope)
        except Refusal as refusal:
            await fault(refusal.status, refusal.code, str(refusal))(scope, receive, send_guarded)
            return
        await self._app(scope, _limited(receive), send_guarded)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope["headers"])
        self._check_host(headers)
        _check_size(headers)
        if scope["path"] in OPEN_PATHS:
            return
        self._check_token(headers)
        _check_origin(headers)
        if scope["method"] not in _SAFE_METHODS:
            _check_type(headers)

    def _check_host(self, headers: Headers) -> None:
        host = headers.only("host")
        if self._hosts is not None and _without_port(host) not in self._hosts:
            allowed = ", ".join(sorted(self._hosts))
            raise Refusal(421, "wrong_host", f"this address answers to {allowed}, not to {host[:200]!r}")

    def _check_token(self, headers: Headers) -> None:
        given = headers.only("authorization")
        scheme, _, token = given.partition(" ")
        digest = sha256(token.encode()).digest()
        known = [hmac.compare_digest(digest, each) for each in self._digests]
        if scheme != "Bearer" or not any(known):
            raise Refusal(401, "unauthorized", "send the token: `Authorization: Bearer <content of the token file>`")


class Headers:
    """A request's headers, looked at strictly: a header that matters may not be there twice."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._raw = list(raw)

    def only(self, name: str) -> str:
        """The one value of this header, or nothing. Raises Refusal when there are two."""
        values = [value for key, value in self._raw if key == name.encode()]
        if len(values) > 1:
            status, code = (401, "unauthorized") if name == "authorization" else (400, "usage")
            raise Refusal(status, code, f"the header {name} is there {len(values)} times")
        return values[0].decode("latin-1") if values else ""


def _check_size(headers: Headers) -> None:
    length = headers.only("content-length")
    if length and (not length.isdigit() or len(length) > 19 or int(length) > BODY_BYTES_MAX):
        raise Refusal(413, "too_large", f"a body has at most {BODY_BYTES_MAX:,} bytes")


def _check_origin(headers: Headers) -> None:
    origin = headers.only("origin")
    foreign = origin and origin.partition("://")[2] != headers.only("host")
    if foreign or headers.only("sec-fetch-site") in ("cross-site", "same-site"):
        raise Refusal(403, "cross_origin", "requests from pages of other sites are not served")


def _check_type(headers: Headers) -> None:
    media_type = headers.only("content-type").partition(";")[0].strip().lower()
    if media_type not in BODY_TYPES:
        raise Refusal(415, "content_type", f"the body must be one of {', '.join(sorted(BODY_TYPES))}")


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()


def _limited(receive: Receive) -> Receive:
    """Reading that ends with a refusal once the body is longer than it may be, whatever was declared."""
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > BODY_BYTES_MAX:
            raise Refusal(413, "too_large", f"a body has at most {BODY_BYTES_MAX:,} bytes")
        return message

    return limited
