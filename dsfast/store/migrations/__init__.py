"""Bringing a database to the schema this code needs, with Alembic. One transaction: all steps or none.

MySQL commits every change of a table by itself. What was interrupted there is finished by upgrading again: each step
looks first whether it has been done (`steps.py`).

To change the schema: change `schema.py`, write the next numbered file in `versions/`, add its number to
`revision.REVISIONS` and print `ddl.py` anew; tests compare all of them.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext

from dsfast.store.open import plain_url, require_mysql_driver
from dsfast.store.revision import HEAD, REVISION_TABLE, REVISIONS, check_revision

__all__ = ["HEAD", "current", "upgrade"]

_ADVISORY_LOCK = 0x6473666173740001  # "dsfast", 1: two upgrades of one PostgreSQL database take turns


def upgrade(url: str) -> None:
    """Create or migrate the tables behind `url`. Blocks; call it in a thread from coroutines.

    Raises UsageError (no such kind of database, newer tables, a master has the file) or Unavailable.
    """
    url = plain_url(url)
    if url.startswith("sqlite:"):
        _upgrade_sqlite(url)
    elif url.startswith("mysql:"):
        _upgrade_mysql(url)
    else:
        asyncio.run(_upgrade_postgres(url))


def current(url: str) -> str | None:
    """The revision of the database behind `url`, or None when it has no tables of ours. Blocks, like `upgrade`."""
    url = plain_url(url)
    if url.startswith("sqlite:"):
        from dsfast.store.sqlite import database_path, errors_explained, read_revision

        with errors_explained(path := database_path(url)):
            return read_revision(path)
    if url.startswith("mysql:"):
        require_mysql_driver()
        from dsfast.store.mysql import server_revision as mysql_revision

        return mysql_revision(url)
    from dsfast.store.postgres import server_revision

    return asyncio.run(server_revision(url))


def _upgrade_sqlite(url: str) -> None:
    from dsfast.store.sqlite import upgrade_engine

    with upgrade_engine(url) as engine, engine.begin() as connection:
        _run(connection)


async def _upgrade_postgres(url: str) -> None:
    from dsfast.store.postgres import engine
    from dsfast.store.postgres_link import errors_explained, place_of

    migrating = engine(url, {}, poolclass=sa.NullPool)
    with errors_explained(place_of(url)):
        async with migrating.begin() as connection:
            await connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            await connection.run_sync(_run)


def _upgrade_mysql(url: str) -> None:
    require_mysql_driver()
    from dsfast.store.mysql import upgrading
    from dsfast.store.mysql_link import errors_explained, parse

    with errors_explained(parse(url).place), upgrading(url) as connection:
        _run(connection)


def _run(connection: sa.Connection) -> None:
    found = MigrationContext.configure(connection, opts={"version_table": REVISION_TABLE}).get_current_revision()
    if found is not None and found not in REVISIONS:
        check_revision(found, "the database")
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
