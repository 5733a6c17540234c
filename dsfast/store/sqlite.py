"""The embedded store: one SQLite file, one master.

A master holds `<file>.lock` and writes through one connection in a thread of its own, so that an fsync never
stops the event loop. Readers (people's questions, and the api role, which opens the file without the lock) use
other connections: under WAL they see the last commit and never wait for the writer, nor it for them.
`synchronous=FULL` makes every commit an fsync of the log: durable on return, also through a power cut.

URLs are `sqlite:///absolute/path.db`; a fourth slash changes nothing.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

from dsfast.errors import DsfastError, Unavailable, UsageError
from dsfast.rows import Batch, Committed, OwnedRun
from dsfast.store import sqlite_statements as statements
from dsfast.store.filelock import FileLock
from dsfast.store.reads import Reads
from dsfast.store.revision import check_revision
from dsfast.store.thread import DedicatedThread
from dsfast.store.writes import copy_batch

if TYPE_CHECKING:
    from sqlalchemy import Engine, Executable

LOCK_WAIT_SECONDS = 5.0  # for another program's write lock (a shell, a backup): longer than either should hold it
WAL_PAGES_MAX = 4_000  # 16 MB between checkpoints, each of which delays one commit by some milliseconds

T = TypeVar("T")


class SqliteStore(Reads):
    """`Store` in one file. `exclusive` is a master, the only writer; `shared` is one of several `dsfast run`s.

    Without either the store only answers questions.
    """

    def __init__(self, url: str, *, create: bool = False, exclusive: bool = True, shared: bool = False) -> None:
        assert exclusive or shared or not create, "a reader does not create databases"
        self._path = database_path(url)
        self._create = create
        self._lock = FileLock(self._path, shared=shared) if exclusive or shared else None
        self._writer: DedicatedThread | None = None
        self._connection: sqlite3.Connection | None = None
        self._reader: DedicatedThread | None = None  # started by the first question
        self._engine: Engine | None = None

    async def open(self) -> None:
        """Open the file. Raises UsageError (absent, other schema, held by another master) or Unavailable."""
        if self._lock is None:
            await self._read(self._check_readable)
            return
        self._writer = DedicatedThread("dsfast-store-writer")
        try:
            self._connection = await self._writer.call(self._guarded, self._open_writer)
        except DsfastError:
            await self.close()
            raise

    async def close(self) -> None:
        """Finish what was begun and let the file go."""
        if self._reader is not None:
            await self._reader.call(self._close_reader)
            self._reader.stop()
            self._reader = None
        if self._writer is not None:
            await self._writer.call(self._close_writer)
            self._writer.stop()
            self._writer = None

    async def commit(self, batch: Batch) -> Committed:
        """Make a turn durable in one transaction, as `Store.commit` says."""
        return await self._write(statements.apply, copy_batch(batch))

    async def claim(self, owner: str, alive: Collection[str], share: Callable[[int], bool]) -> list[OwnedRun]:
        """Take over the runs of the dead that are this master's share, as `Store.claim` says."""
        left = await self._write(statements.unfinished, frozenset(alive))
        chosen = [found for found in left if share(found[0])]
        return await self._write(statements.take, owner, chosen) if chosen else []

    async def _write(self, statement: Callable[..., T], *arguments: object) -> T:
        assert self._writer, "this store was not opened for writing"
        return await self._writer.call(self._guarded, statement, self._connection, *arguments)

    async def _read(self, function: Callable[..., T], *arguments: object) -> T:
        if self._reader is None:
            self._reader = DedicatedThread("dsfast-store-reader")
        return await self._reader.call(self._guarded, function, *arguments)

    async def _fetch(self, statement: Executable) -> Sequence[Any]:
        return await self._read(self._fetch_now, statement)

    def _guarded(self, function: Callable[..., T], *arguments: object) -> T:
        """Call, and turn the errors of SQLite and of the file system into ours."""
        try:
            return function(*arguments)
        except (sqlite3.DatabaseError, OSError) as error:
            raise explain(error, self._path) from error

    def _open_writer(self) -> sqlite3.Connection:
        assert self._lock is not None
        if self._create:
            create_file(self._path)
        check_exists(self._path)
        self._lock.acquire()
        connection = connect(self._path, "rw")
        try:
            revision = statements.read_revision(connection)
            if revision is None and self._create and not statements.has_tables(connection):
                statements.create_tables(connection)
            else:
                check_revision(revision, str(self._path))
        except BaseException:
            connection.close()
            raise
        return connection

    def _close_writer(self) -> None:
        assert self._lock is not None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._lock.release()

    def _check_readable(self) -> None:
        check_exists(self._path)
        connection = connect(self._path, "ro")
        try:
            check_revision(statements.read_revision(connection), str(self._path))
        finally:
            connection.close()

    def _fetch_now(self, statement: Executable) -> Sequence[Any]:
        from sqlalchemy.exc import DBAPIError

        if self._engine is None:
            self._engine = people_engine(self._path)
        try:
            with self._engine.connect() as connection:
                return connection.execute(statement).all()
        except DBAPIError as error:
            raise error.orig or error from None

    def _close_reader(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None


def database_path(url: str) -> Path:
    """The file behind a `sqlite:` URL, symbolic links resolved. Raises UsageError for anything but an absolute path."""
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.netloc or not path.startswith("/") or path.endswith(":memory:"):
        raise UsageError(f"{url!r} is no SQLite database: write sqlite:///absolute/path/to/file.db")
    return Path("/" + path.lstrip("/")).resolve()


def create_file(path: Path) -> None:
    """Make an empty file that only its owner can read (parameters may hold secrets), unless it exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


def check_exists(path: Path) -> None:
    """Raise UsageError when there is no such file."""
    if not path.exists():
        raise UsageError(f"there is no database {path}; create it with `dsfast db upgrade`")


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection to an existing file; `mode` is "rw" (durable: WAL, every commit synced) or "ro"."""
    uri = f"file:{quote(str(path))}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=LOCK_WAIT_SECONDS)
    try:
        if mode == "rw":
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES_MAX}")
    except BaseException:
        connection.close()
        raise
    return connection


def people_engine(path: Path) -> Engine:
    """SQLAlchemy over one read-only connection, used from one thread."""
    import sqlalchemy as sa

    return sa.create_engine(
        "sqlite://", creator=lambda: connect(path, "ro"), poolclass=sa.StaticPool, isolation_level="AUTOCOMMIT"
    )


def explain(error: sqlite3.DatabaseError | OSError, path: Path) -> DsfastError | BaseException:
    """The error of ours that says what is wrong with the file and what to do; other errors are bugs and stay."""
    if isinstance(error, OSError):
        return Unavailable(f"{error.filename or path} cannot be used as a database: {error.strerror}")
    name = getattr(error, "sqlite_errorname", "")
    for prefix, sentence in _SENTENCES.items():
        if name.startswith(prefix):
            return Unavailable(f"{path}: {sentence}")
    return error


_SENTENCES = {
    "SQLITE_BUSY": f"another program has kept the database locked for {LOCK_WAIT_SECONDS:.0f} s; end its transaction",
    "SQLITE_FULL": "the disk is full; nothing was written, make room and dsfast goes on",
    "SQLITE_READONLY": "the file or its directory is read-only for this user; dsfast needs to write both",
    "SQLITE_PERM": "this user may not use the file",
    "SQLITE_CANTOPEN": "the file cannot be opened; check that this user may read and write it and its directory",
    "SQLITE_IOERR": "the disk reported an error; see the kernel's log",
    "SQLITE_CORRUPT": "the file is damaged; restore a backup",
    "SQLITE_NOTADB": "the file is not a SQLite database",
    "SQLITE_NOMEM": "out of memory",
}
