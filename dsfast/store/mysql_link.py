"""Connections to a MySQL or MariaDB server, and its errors as sentences.

PyMySQL in a thread of its own, not one of the drivers for asyncio: it is the one that others are made from and the
one that is kept up, nothing can be cancelled in the middle of a transaction, and decoding a large claim in Python
does not stop the event loop. What it costs is in docs/storage.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import pymysql
from pymysql.err import MySQLError

from dsfast.errors import DsfastError, Unavailable, UsageError
from dsfast.store import server
from dsfast.store.server import Conflict, explained, pause_seconds
from dsfast.store.thread import DedicatedThread

PORT = 3306
OPTIONS = ("ssl_ca", "ssl_cert", "ssl_key", "unix_socket")
IDLE_SECONDS_MAX = 7 * 86_400  # a quiet master keeps its connection; servers usually close idle ones after 8 hours
SQL_MODE = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION"  # what does not fit is an error, never cut off in silence

_CONFLICTS = frozenset({1062, 1205, 1213})  # a workflow's next version is taken, lock wait timeout, deadlock

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Address:
    """What a URL says. `place` is the server and database without user and password, for people."""

    place: str
    arguments: Mapping[str, Any] = field(repr=False)  # of pymysql.connect, the password among them


class Link:
    """One connection and its thread, used by one call at a time; made by the first call, and again after a loss."""

    def __init__(self, address: Address, name: str) -> None:
        self._address = address
        self._name = name
        self._thread: DedicatedThread | None = None
        self._connection: Any = None

    async def use(self, work: Callable[[Any], T]) -> T:
        """What `work` returns, given a cursor in a transaction; tried again when that lost a conflict.

        Raises Unavailable when the server cannot be reached or refuses; what `work` did is unknown then.
        """
        if self._thread is None:
            self._thread = DedicatedThread(self._name)
        return await self._thread.call(self._use, work)

    async def close(self) -> None:
        """Disconnect after the call that is under way."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            await thread.call(self._drop)
            thread.stop()

    def _use(self, work: Callable[[Any], T]) -> T:
        with errors_explained(self._address.place):
            for failures in range(1, server.TRIES_MAX):
                try:
                    return self._try(work)
                except (Conflict, MySQLError) as error:
                    if not _lost_conflict(error):
                        raise
                time.sleep(pause_seconds(failures))
            return self._try(work)

    def _try(self, work: Callable[[Any], T]) -> T:
        if self._connection is None:
            self._connection = connect(self._address)
        try:
            with self._connection.cursor() as cursor:
                found = work(cursor)
            self._connection.commit()
            return found
        except BaseException as error:
            self._undo(_lost_conflict(error))
            raise

    def _undo(self, conflict: bool) -> None:
        """A conflict leaves a connection that works; after anything else it may be in the middle of an answer."""
        if conflict:
            with suppress(MySQLError, OSError):
                self._connection.rollback()  # a lock wait that timed out has undone its own statement only
                return
        self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(MySQLError, OSError):  # the server has gone: there is nobody to say goodbye to
                connection.close()


def connect(address: Address, **options: Any) -> Any:
    """A new connection. Raises what PyMySQL raises; see `errors_explained`."""
    connection = pymysql.connect(
        **address.arguments,
        charset="utf8mb4",
        sql_mode=SQL_MODE,
        connect_timeout=server.CONNECT_SECONDS_MAX,
        read_timeout=server.COMMAND_SECONDS_MAX,
        write_timeout=server.COMMAND_SECONDS_MAX,
        **options,
    )
    with connection.cursor() as cursor:
        # Under REPEATABLE READ a transaction that waited for a claim would go on seeing what was before it.
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {server.LOCK_WAIT_SECONDS}")
        cursor.execute(f"SET SESSION wait_timeout = {IDLE_SECONDS_MAX}")
    return connection


def connect_for_people(address: Address) -> Any:
    """A connection that only reads, and on which the server gives up on what takes too long."""
    connection = connect(address, autocommit=True)
    limit = "max_statement_time={}" if is_mariadb(connection) else "max_execution_time={}000"
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION " + limit.format(server.PEOPLE_SECONDS_MAX))
        cursor.execute("SET SESSION TRANSACTION READ ONLY")
    return connection


def is_mariadb(connection: Any) -> bool:
    """Whether the server is MariaDB; else it is MySQL, which spells some settings and collations differently."""
    return "MariaDB" in connection.get_server_info()


@contextmanager
def cursor_of(address: Address) -> Iterator[Any]:
    """A cursor on a connection for a few questions."""
    with errors_explained(address.place), closing(connect(address)) as connection, connection.cursor() as cursor:
        yield cursor


def parse(url: str) -> Address:
    """What a `mysql://` URL says. Raises UsageError, without repeating a password."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    database = parts.path.strip("/")
    try:
        port = parts.port or PORT
    except ValueError:
        port = 0
    if not port or not database or "@" in parts.path + parts.query or not options.keys() <= set(OPTIONS):
        raise UsageError(
            "the MySQL URL cannot be understood: write mysql://user:password@host:3306/database, with special "
            f"characters of the password percent-encoded; after a ? it takes {', '.join(OPTIONS)}"
        )
    return Address(
        f"MySQL at {parts.netloc.rpartition('@')[2] or 'the local socket'}/{database}",
        {
            "host": parts.hostname or "localhost",
            "port": port,
            "user": unquote(parts.username or "") or None,
            "password": unquote(parts.password or ""),
            "database": unquote(database),
            "ssl_verify_identity": "ssl_ca" in options,
            **options,
        },
    )


def errors_explained(place: str) -> AbstractContextManager[None]:
    """Turns the errors of the driver and of the network into ours; what else is raised is a bug and stays."""
    return explained(lambda error: _explain(error, place))


def _explain(error: BaseException, place: str) -> DsfastError | None:
    if isinstance(error, MySQLError):
        code = _code(error)
        sentence = _SENTENCES.get(code)
        return Unavailable(f"{place}: {sentence} ({code}: {error.args[-1]})") if sentence else None
    if isinstance(error, OSError):
        return Unavailable(f"{place} cannot be reached: {error.strerror or error}")
    if isinstance(error, RuntimeError) and "cryptography" in str(error):
        return UsageError(f"{place}: this server's way to log in needs one more package: pip install 'dsfast[mysql]'")
    return None


def _code(error: MySQLError) -> int:
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0


def _lost_conflict(error: BaseException) -> bool:
    return isinstance(error, Conflict) or (isinstance(error, MySQLError) and _code(error) in _CONFLICTS)


def _table(*lines: tuple[tuple[int, ...], str]) -> dict[int, str]:
    return {code: sentence for codes, sentence in lines for code in codes}


_SENTENCES = _table(
    ((0, 2006, 2013, 2014, 2055, 4031, 1158, 1159, 1160, 1161, 1927), "the connection was lost"),
    ((2002, 2003, 2005), "the server cannot be reached"),
    ((1040, 1203, 1226), "the server has no connection left; raise max_connections or stop other programs"),
    ((1044, 1045, 1130, 1251, 1275, 1698), "the server refuses this user; check user and password in the store's URL"),
    ((1142, 1143, 1227), "this user may not use the tables; grant it the rights"),
    ((1049,), "there is no such database; create it with `CREATE DATABASE`, then run `dsfast db upgrade`"),
    ((1146,), "the tables are gone; create them with `dsfast db upgrade`"),
    ((1021, 1114, 3019), "the server's disk is full; make room and dsfast goes on"),
    ((1026, 1030, 1180, 1598), "the server reports an error of its disk; see its log, and whether the disk is full"),
    ((1290, 1792, 1836), "the server is read-only, perhaps a replica; point dsfast at the primary"),
    ((1062,), "other masters keep storing versions of the same workflow; try again"),
    ((1205,), "another transaction keeps rows of a run locked; end it (see information_schema.innodb_trx)"),
    ((1213,), "other transactions keep getting in the way"),
    ((1317, 1969, 3024), "the server gave up on the query, which took too long or was killed"),
    ((1053, 1077, 1079), "the server is shutting down or starting up"),
    ((1037, 1038, 1041, 1135), "the server is short of resources"),
    ((1153,), "a workflow is larger than what the server takes at once; raise max_allowed_packet"),
    ((1665,), "the server's binlog_format=STATEMENT cannot record these transactions; set binlog_format = ROW"),
    ((1034, 1194, 1712), "the server reports damaged data; see its log"),
)
