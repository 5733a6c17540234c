"""The embedded store: one SQLite file, one master.

A master holds `<file>.lock`. It commits on the event loop itself as long as that holds the loop for no longer than a
turn does: on a good disk a commit takes as long as two hand-overs between threads, and a task's successor waits for
both. A commit that took longer sends those of the next seconds to a thread of the writer's own; so do a lock that
somebody else has and a claim that is under way there. Readers (people's questions, and the api role, which opens the
file without the lock) use other connections: under WAL they see the last commit and never wait for the writer, nor it
for them. `synchronous=FULL` makes every commit an fsync of the log: durable on return, also through a power cut.

URLs are SQLAlchemy's: `sqlite:////absolute/path.db`, and `sqlite:///path.db` relative to the working directory.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, unquote

from dsfast.errors import Unavailable, UsageError
from dsfast.rows import Batch, Committed, OwnedRun
from dsfast.store import sqlite_statements as statements
from dsfast.store.filelock import FileLock
from dsfast.store.reads import Reads
from dsfast.store.revision import check_revision
from dsfast.store.thread import DedicatedThread
from dsfast.store.writes import Writes, copy_batch, storable

if TYPE_CHECKING:
    from sqlalchemy import Engine, Executable

LOCK_WAIT_SECONDS = 5.0  # for another program's write lock (a shell, a backup): longer than either should hold it
LOCK_LOOK_SECONDS = 0.005  # between looks at a lock that SQLite itself does not wait for
LOOP_HELD_SECONDS_MAX = 0.05  # a commit on the loop may take this long: about what a full turn may take to compute
OFF_LOOP_SECONDS = 10.0  # after one that took longer; a disk that stalls now and then costs one heartbeat, not many
WAL_PAGES_MAX = 4_000  # 16 MB between checkpoints, each of which delays one commit by some milliseconds
WAL_BYTES = 32 + WAL_PAGES_MAX * (24 + 4096)  # where the log begins anew; it has a header, and so has each page
SHORT_WAL_BYTES = 2 << 20  # of `dsfast run`: some 500 turns, for 3 ms at its start; all of it takes 40
WAL_ROOM = 10  # times the log's length must be free on the disk before it is reserved

T = TypeVar("T")

# Of every value that is no number or text the driver asks whether somebody adapts it, which costs ten times the binding
# unless it is answered: None and bytes stay what they are.
sqlite3.register_adapter(type(None), {}.get)  # type: ignore[arg-type] # for None it is None, found in C
sqlite3.register_adapter(bytes, bytes)


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
        self._connection: sqlite3.Connection | None = None  # used in the writer's thread only
        self._on_loop: sqlite3.Connection | None = None  # used on the event loop only; waits for nobody's lock
        self._on_loop_from = 0.0  # monotonic: until then commits go through the thread
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
            self._on_loop = self._guarded(connect, self._path, "rw")
            self._on_loop.execute("PRAGMA busy_timeout = 0")
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Finish what was begun and let the file go."""
        if self._reader is not None:
            await self._reader.call(self._close_reader)
            self._reader.stop()
            self._reader = None
        if self._on_loop is not None:
            self._on_loop.close()
            self._on_loop = None
        if self._writer is not None:
            await self._writer.call(self._close_writer)
            self._writer.stop()
            self._writer = None

    async def commit(self, batch: Batch) -> Committed:
        """Make a turn durable in one transaction, as `Store.commit` says."""
        writes = copy_batch(batch)
        if time.monotonic() >= self._on_loop_from and (committed := self._commit_on_loop(writes)) is not None:
            return committed
        return await self._write(statements.apply, writes)

    def _commit_on_loop(self, writes: Writes) -> Committed | None:
        """Commit without leaving the loop; None, and nothing is written, if somebody else has the file's lock."""
        assert self._on_loop, "this store was not opened for writing"
        begin = time.monotonic()
        try:
            return self._guarded(statements.apply, self._on_loop, writes)
        except Locked:
            return None
        finally:
            end = time.monotonic()
            if end - begin > LOOP_HELD_SECONDS_MAX:
                self._on_loop_from = end + OFF_LOOP_SECONDS

    async def claim(self, owner: str, alive: Collection[str], share: Callable[[int], bool]) -> list[OwnedRun]:
        """Take over the runs of the dead that are this master's share, as `Store.claim` says."""
        left = await self._write(statements.unfinished, frozenset(alive))
        chosen = [found for found in left if share(found[0])]
        return await self._write(statements.take, owner, chosen) if chosen else []

    async def blame(self, run_id: int, reason: str) -> None:
        """Note that a master has ended over this run."""
        await self._write(statements.blame, run_id, storable(reason))

    async def crashed(self, least: int) -> dict[int, str]:
        """Runs over which at least so many masters have ended, with what the last one said."""
        return await self._write(statements.crashed, least)

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
        try:
            return function(*arguments)
        except Exception as error:
            ours = explained(error, self._path)
            if ours is error:
                raise
            raise ours from error

    def _open_writer(self) -> sqlite3.Connection:
        assert self._lock is not None
        if self._create:
            create_file(self._path)
        check_exists(self._path)
        self._lock.acquire()
        connection = connect(self._path, "rw")
        try:
            if self._create and statements.read_revision(connection) is None:
                statements.create_tables(connection)
            check_revision(statements.read_revision(connection), str(self._path))
            reserve_log(self._path, connection, SHORT_WAL_BYTES if self._lock.shared else WAL_BYTES)
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
        check_revision(read_revision(self._path), str(self._path))

    def _fetch_now(self, statement: Executable) -> Sequence[Any]:
        if self._engine is None:
            self._engine = people_engine(self._path)
        with self._engine.connect() as connection:
            return connection.execute(statement).all()

    def _close_reader(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None


def database_path(url: str) -> Path:
    """The file behind a `sqlite:///` URL, absolute, with symbolic links resolved. Raises UsageError."""
    path = unquote(url.removeprefix("sqlite:///"))
    if not url.startswith("sqlite:///") or path in ("", "/", ":memory:") or "?" in url:
        raise UsageError(
            f"{url!r} is no SQLite database: write sqlite:///relative/path.db or sqlite:////absolute/path.db, "
            "with ? and % in names percent-encoded"
        )
    return Path(path).resolve()


def create_file(path: Path) -> None:
    """Make an empty file that only its owner can read (parameters may hold secrets), unless it exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


def read_revision(path: Path) -> str | None:
    """The schema of the database in this file."""
    check_exists(path)
    connection = connect(path, "ro")
    try:
        return statements.read_revision(connection)
    finally:
        connection.close()


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
            use_log(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES_MAX}")
    except BaseException:
        connection.close()
        raise
    return connection


def use_log(connection: sqlite3.Connection) -> None:
    """Switch a new file to the write-ahead log. SQLite waits for nobody who does the same at this moment: we do."""
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
        time.sleep(LOCK_LOOK_SECONDS)


def reserve_log(path: Path, connection: sqlite3.Connection, size: int) -> None:
    """Give the log this length, if the disk has plenty of room for it.

    To sync a write within a file costs half of one that makes it longer: the file's length is synced too. What lies
    behind the last commit is never read as one, since frames carry a salt and a checksum. Under the write lock nobody
    else appends meanwhile. The log goes when the last connection is closed.
    """
    with statements.transaction(connection), open(f"{path}-wal", "r+b") as log:
        missing = size - log.seek(0, os.SEEK_END)
        room = os.statvfs(log.fileno())
        if 0 < missing * WAL_ROOM < room.f_bavail * room.f_frsize:
            log.write(bytes(missing))
            log.flush()
            os.fsync(log.fileno())


def people_engine(path: Path) -> Engine:
    """SQLAlchemy over one read-only connection, used from one thread."""
    import sqlalchemy as sa

    return sa.create_engine(
        "sqlite://", creator=lambda: connect(path, "ro"), poolclass=sa.StaticPool, isolation_level="AUTOCOMMIT"
    )


@contextmanager
def upgrade_engine(url: str) -> Iterator[Engine]:
    """SQLAlchemy over the one connection that may change the schema; makes the file when there is none.

    The driver would commit before every DDL statement; a BEGIN of our own keeps a migration in one transaction.
    """
    import sqlalchemy as sa

    path = database_path(url)
    lock = FileLock(path)
    with errors_explained(path):
        create_file(path)
        lock.acquire()
        engine = sa.create_engine("sqlite://", creator=lambda: connect(path, "rw"), poolclass=sa.StaticPool)
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        try:
            yield engine
        finally:
            engine.dispose()
            lock.release()


class Locked(Unavailable):
    """Another connection has the write lock."""


@contextmanager
def errors_explained(path: Path) -> Iterator[None]:
    """Turns the errors of SQLite and of the file system into ours; what else is raised is a bug and stays."""
    try:
        yield
    except Exception as error:
        ours = explained(error, path)
        if ours is error:
            raise
        raise ours from error


def explained(error: Exception, path: Path) -> Exception:
    """The error as ours, with a sentence; itself if it is a bug, or ours already."""
    if isinstance(error, OSError):
        return Unavailable(f"{error.filename or path} cannot be used as a database: {error.strerror}")
    reported = getattr(error, "orig", error)  # SQLAlchemy wraps what the driver raises
    name = getattr(reported, "sqlite_errorname", "")
    sentence = next((text for prefix, text in _SENTENCES.items() if name.startswith(prefix)), None)
    if sentence is None:
        return error
    kind = Locked if name.startswith("SQLITE_BUSY") else Unavailable
    return kind(f"{path}: {sentence}")


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
