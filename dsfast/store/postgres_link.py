"""Connections to a PostgreSQL server, and its errors as sentences."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg

from dsfast.errors import DsfastError, Unavailable, UsageError
from dsfast.store import server
from dsfast.store.server import explained, pause_seconds

_CONFLICTS = frozenset({"40001", "40P01", "55P03"})  # serialization failure, deadlock, lock timeout
_VERSION_INDEX = "definitions_by_name"  # two masters store the next version of one workflow at once

T = TypeVar("T")


class Link:
    """One connection, used by one call at a time; made by the first call, and again by the next after a loss."""

    def __init__(self, url: str, settings: Mapping[str, str]) -> None:
        self.place = place_of(url)
        self._url = url
        self._settings = dict(settings)
        self._turn = asyncio.Lock()
        self._connection: Any = None

    async def use(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """What `work` returns, given the connection; tried again when its transaction lost a conflict.

        Raises Unavailable when the server cannot be reached or refuses; what `work` did is unknown then.
        """
        async with self._turn:
            with errors_explained(self.place):
                for failures in range(1, server.TRIES_MAX):
                    try:
                        return await self._try(work)
                    except asyncpg.PostgresError as error:
                        if not _lost_conflict(error):
                            raise
                    await asyncio.sleep(pause_seconds(failures))
                return await self._try(work)

    async def close(self) -> None:
        """Disconnect after the call that is under way."""
        async with self._turn:
            connection, self._connection = self._connection, None
            if connection is not None:
                try:
                    await connection.close(timeout=server.CONNECT_SECONDS_MAX)
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    connection.terminate()  # the server has gone: there is nobody to say goodbye to

    async def _try(self, work: Callable[[Any], Awaitable[T]]) -> T:
        if self._connection is None:
            self._connection = await connect(self._url, self._settings)
        try:
            return await work(self._connection)
        except (OSError, asyncpg.InterfaceError, asyncio.CancelledError):
            self._drop()  # in the middle of an answer, or silent: nothing it says later could be trusted
            raise
        finally:
            if self._connection is not None and self._connection.is_closed():
                self._connection = None

    def _drop(self) -> None:
        self._connection.terminate()
        self._connection = None


async def connect(url: str, settings: Mapping[str, str]) -> Any:
    """A new connection. Raises what asyncpg raises; see `errors_explained`."""
    return await asyncpg.connect(
        url,
        timeout=server.CONNECT_SECONDS_MAX,
        command_timeout=server.COMMAND_SECONDS_MAX,
        server_settings={"application_name": "dsfast", "lock_timeout": f"{server.LOCK_WAIT_SECONDS}s", **settings},
    )


def place_of(url: str) -> str:
    """The server and database of a URL, without user and password, for people."""
    parts = urlsplit(url)
    if "@" in parts.path + parts.query or not parts.path.strip("/"):
        raise UsageError(
            "the PostgreSQL URL cannot be understood: write postgresql://user:password@host:5432/database, "
            "with special characters of the password percent-encoded"
        )
    return f"PostgreSQL at {parts.netloc.rpartition('@')[2] or 'the local socket'}{parts.path}"


def errors_explained(place: str) -> AbstractContextManager[None]:
    """Turns the errors of the driver and of the network into ours; what else is raised is a bug and stays."""
    return explained(lambda error: _explain(error, place))


def _explain(error: BaseException, place: str) -> DsfastError | None:
    if isinstance(error, TimeoutError):
        return Unavailable(f"{place} does not answer")
    if isinstance(error, OSError):
        return Unavailable(f"{place} cannot be reached: {error.strerror or error}")
    if isinstance(error, asyncpg.exceptions.ClientConfigurationError):
        return UsageError(f"{place}: the URL cannot be used: {error}")
    if isinstance(error, asyncpg.InterfaceError):
        return Unavailable(f"{place}: the connection was lost ({error})")
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        sentence = _SENTENCES.get(state) or _SENTENCES.get(state[:2])
        return Unavailable(f"{place}: {sentence} ({error})") if sentence else None
    return None


def _lost_conflict(error: Any) -> bool:
    return error.sqlstate in _CONFLICTS or getattr(error, "constraint_name", None) == _VERSION_INDEX


_SENTENCES = {
    "08": "the connection was lost",
    "23": "other masters keep storing versions of the same workflow; try again",
    "25006": "the server is read-only, perhaps a standby; point dsfast at the primary",
    "28": "the server refuses this user; check user and password in the store's URL",
    "3D000": "there is no such database; create it with `createdb`, then run `dsfast db upgrade`",
    "40": "other transactions keep getting in the way",
    "42501": "this user may not use the tables; grant it the rights, or make it their owner",
    "42P01": "the tables are gone; create them with `dsfast db upgrade`",
    "53100": "the server's disk is full; make room and dsfast goes on",
    "53300": "the server has no connection left; raise max_connections or stop other programs",
    "53": "the server is short of resources",
    "55P03": "another transaction keeps rows of a run locked; end it (see pg_stat_activity)",
    "57014": "the server gave up on the query, which took too long",
    "57": "the server is shutting down or starting up",
    "58": "the server reports an error of its disk; see its log",
    "XX": "the server reports damaged data; see its log",
}
