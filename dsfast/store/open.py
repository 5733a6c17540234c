"""The one place that knows which URL is which store; a database's driver is imported only when it is used."""

from __future__ import annotations

from importlib.util import find_spec

from dsfast.errors import UsageError
from dsfast.store.base import Store

EXAMPLES = (
    "sqlite:////absolute/path.db, postgresql://user:password@host/database or mysql://user:password@host/database"
)
_KINDS = {kind: kind for kind in ("sqlite", "postgresql", "mysql")} | {"postgres": "postgresql", "mariadb": "mysql"}


def open_store(url: str, *, create: bool = False, exclusive: bool = True, shared: bool = False) -> Store:
    """The store behind a URL such as those of `EXAMPLES`, not yet opened.

    `create` makes the tables where there are none. `exclusive` is for masters: no other may have the same SQLite
    file. `shared` is for `dsfast run`, several of which may write to one SQLite file while no master does. Without
    either, as for the api role, the store can only be read. Raises UsageError for any other URL, and when the driver
    is not installed.
    """
    url = plain_url(url)
    if url.startswith("sqlite:"):
        from dsfast.store.sqlite import SqliteStore

        return SqliteStore(url, create=create, exclusive=exclusive and not shared, shared=shared)
    if url.startswith("mysql:"):
        require_mysql_driver()
        from dsfast.store.mysql import MysqlStore

        return MysqlStore(url, create=create, exclusive=exclusive or shared)
    from dsfast.store.postgres import PostgresStore

    return PostgresStore(url, create=create, exclusive=exclusive or shared)


def plain_url(url: str) -> str:
    """The URL with its scheme spelled our way: `postgres:`, `mariadb:` and `postgresql+asyncpg:` are known too.

    Raises UsageError for a database that dsfast cannot use.
    """
    scheme, _, rest = url.partition(":")
    kind = _KINDS.get(scheme.partition("+")[0])
    if kind is None:
        raise UsageError(f"no store is known for {scheme!r}: write {EXAMPLES}")
    return f"{kind}:{rest}"


def require_mysql_driver() -> None:
    """Raise UsageError when the driver is missing, which not every installation needs."""
    if find_spec("pymysql") is None:
        raise UsageError("the store on MySQL or MariaDB needs a driver: pip install 'dsfast[mysql]'")
