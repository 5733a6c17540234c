"""The one place that knows which URL is which store; a database's driver is imported only when it is used."""

from __future__ import annotations

from dsfast.errors import UsageError
from dsfast.store.base import Store


def open_store(url: str, *, create: bool = False, exclusive: bool = True, shared: bool = False) -> Store:
    """The store behind `sqlite:////absolute/path.db` or `postgresql://user:password@host/database`, not yet opened.

    `create` makes the tables where there are none. `exclusive` is for masters: no other may have the same SQLite
    file. `shared` is for `dsfast run`, several of which may write to one SQLite file while no master does. Without
    either, as for the api role, the store can only be read. Raises UsageError for any other URL.
    """
    url = plain_url(url)
    if url.startswith("sqlite:"):
        from dsfast.store.sqlite import SqliteStore

        return SqliteStore(url, create=create, exclusive=exclusive and not shared, shared=shared)
    from dsfast.store.postgres import PostgresStore

    return PostgresStore(url, create=create, exclusive=exclusive or shared)


def plain_url(url: str) -> str:
    """The URL with its scheme spelled our way: `postgres:` and SQLAlchemy's `postgresql+asyncpg:` are known too.

    Raises UsageError for a database that dsfast cannot use.
    """
    scheme, _, rest = url.partition(":")
    kind = {"postgres": "postgresql"}.get(scheme, scheme).partition("+")[0]
    if kind not in ("sqlite", "postgresql"):
        raise UsageError(
            f"no store is known for {scheme!r}: "
            "write sqlite:////absolute/path.db or postgresql://user:password@host/database"
        )
    return f"{kind}:{rest}"
