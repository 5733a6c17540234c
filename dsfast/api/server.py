"""The api role: the gateway, the application and the HTTP server in one process."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn

from dsfast.api.app import build_app
from dsfast.api.protocol import BoundedHttp
from dsfast.config import Config, is_loopback
from dsfast.errors import Problem, UsageError
from dsfast.log import log_event, setup_logging
from dsfast.runtime.api import Gateway
from dsfast.runtime.notify import notify_ready

TOKEN_PREFIX = "dsf_"  # noqa: S105 - lets secret scanners recognise a token
TOKEN_BYTES = 32
TOKENS_MAX = 8  # lines of the token file: a rotation needs two
CONCURRENCY_MAX = 1000  # requests at a time, waiting ones included; more are answered 503
BACKLOG = 512
TICK_SECONDS = 1.0  # between looks at the clock, for the Date header
CLOSE_SECONDS = 3  # for requests under way when told to stop; those that wait for news are cut off

logger = logging.getLogger("dsfast.api")


async def serve_api(config: Config, sock: socket.socket) -> None:
    """Serve HTTP on this bound socket until SIGINT or SIGTERM. Raises UsageError, Unavailable when it cannot start."""
    setup_logging(config.log, "api")
    tokens = load_tokens(config.api.token_file, create=not config.explicit("api.token_file"))
    async with Gateway(config) as gateway:
        app = build_app(gateway, tokens=tokens, hosts=allowed_hosts(config.api.host))
        server = Server(
            uvicorn.Config(
                app,
                http=BoundedHttp,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=CONCURRENCY_MAX,
                backlog=BACKLOG,
                timeout_graceful_shutdown=CLOSE_SECONDS,
            )
        )
        host, port = sock.getsockname()[:2]
        log_event(logger, "api_listening", address=f"{host}:{port}")
        notify_ready()
        server.stop_on_signals()
        await server.serve(sockets=[sock])
    log_event(logger, "api_stopped")


class Server(uvicorn.Server):
    """uvicorn's server, except that a signal ends it and not the process, and that it sleeps while nothing happens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told_to_stop = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop_on_signals(self) -> None:
        """End on SIGINT or SIGTERM: after the requests under way, at a second one at once."""
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._stop)

    def _stop(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        self._told_to_stop.set()

    async def main_loop(self) -> None:
        """uvicorn's own looks ten times a second whether it has been told to stop, which nobody needs to wait for."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told_to_stop.wait(), TICK_SECONDS)


def allowed_hosts(host: str) -> frozenset[str] | None:
    """Host headers that are answered: on loopback only its names, so that no page can rebind its own name to it."""
    if not is_loopback(host):
        return None
    return frozenset({"localhost", "127.0.0.1", "[::1]", host if ":" not in host else f"[{host}]"})


def load_tokens(file: Path, *, create: bool) -> tuple[str, ...]:
    """The tokens in a file, one a line; made first if it may be and is not there. Raises UsageError."""
    try:
        if create and not file.exists():
            _make_token(file)
        mode = file.stat().st_mode
        lines = file.read_text().split()
    except OSError as error:
        raise UsageError(Problem(f"cannot be used: {error.strerror}", file=str(file), field="api.token_file")) from None
    if mode & 0o007:
        raise UsageError(Problem("other users can read or write it", file=str(file), hint=f"chmod 600 {file}"))
    if not 0 < len(lines) <= TOKENS_MAX or min(map(len, lines)) < TOKEN_BYTES:
        text = f"holds 1 to {TOKENS_MAX} tokens, one a line, of at least {TOKEN_BYTES} characters each"
        raise UsageError(Problem(text, file=str(file), field="api.token_file"))
    return tuple(lines)


def _make_token(file: Path) -> None:
    """A new token; if another process makes one at the same moment, the first stays."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w") as stream:
        stream.write(f"{TOKEN_PREFIX}{secrets.token_urlsafe(TOKEN_BYTES)}\n")
