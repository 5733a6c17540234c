"""What a stranger may send before a request is complete is bounded in size and time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from dsfast.api.protocol import HEAD_BYTES_MAX, BoundedHttp
from dsfast.api.server import Server

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Hasty(BoundedHttp):
    head_seconds = 0.05


async def answer(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def connected(protocol: type[BoundedHttp]) -> AsyncIterator[Streams]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(uvicorn.Config(answer, http=protocol, lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    try:
        async with asyncio.timeout(20):
            yield reader, writer
    finally:
        writer.close()
        server.should_exit = True
        await serving


async def request(streams: Streams, head: bytes, body: bytes = b"") -> bytes:
    reader, writer = streams
    writer.write(head + b"\r\n\r\n" + body)
    line = await reader.readline()
    while (await reader.readline()).strip():
        pass
    await reader.readexactly(2)
    return line.split()[1]


async def test_ordinary_requests_follow_each_other_on_one_connection() -> None:
    async with connected(Hasty) as streams:
        for _ in range(3):
            assert await request(streams, b"GET / HTTP/1.1\r\nHost: x") == b"200"


async def test_a_large_body_is_not_taken_for_headers() -> None:
    body = bytes(HEAD_BYTES_MAX * 3)
    async with connected(BoundedHttp) as streams:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d" % len(body)
        assert await request(streams, head, body) == b"200"
        assert await request(streams, b"GET / HTTP/1.1\r\nHost: x") == b"200"


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nX-Long: ", b"GET / HTTP/1.1\r\nA: 1"])
async def test_endless_headers_end_the_connection(start: bytes) -> None:
    async with connected(BoundedHttp) as (reader, writer):
        writer.write(start)
        more = b"\r\nA: 1" * 100 if start.endswith(b"A: 1") else b"x" * 600
        for _ in range(HEAD_BYTES_MAX * 2 // len(more)):
            writer.write(more)
        with contextlib.suppress(ConnectionResetError):  # it was closed with bytes unread
            assert not (await reader.read()).startswith(b"HTTP/1.1 200")
        assert reader.at_eof() or reader.exception()


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nHost:"])
async def test_a_head_that_does_not_come_ends_the_connection(start: bytes) -> None:
    async with connected(Hasty) as (reader, writer):
        writer.write(start)
        assert await reader.read() == b""
