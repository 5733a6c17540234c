"""The session's PostgreSQL: started on first use, ended with the session."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from dsfast.chaos import postgres
from dsfast.chaos.postgres import PASSWORD

# In the server's log: the database, and a statement that is not the frame of a transaction.
STATEMENT = re.compile(rb"^(\w+)\|LOG:  (?:statement|execute [^:]*): *(?!BEGIN|COMMIT|ROLLBACK)", re.MULTILINE)

__all__ = ["PASSWORD", "PostgresServer", "postgres_server", "postgres_url"]


class PostgresServer(postgres.PostgresServer):
    """A server that tests look into."""

    @contextmanager
    def statements(self, *urls: str) -> Iterator[Callable[[], list[int]]]:
        """While inside, count the statements in these databases, without those that frame transactions."""
        log = self._home / "log"
        begin = log.stat().st_size
        self._log_statements("all", "%d|")

        def count_each() -> list[int]:
            with log.open("rb") as lines:
                lines.seek(begin)
                seen = Counter(match[1] for match in STATEMENT.finditer(lines.read()))
            return [seen[url.rpartition("/")[2].encode()] for url in urls]

        try:
            yield count_each
        finally:
            self._log_statements("none", "")

    def _log_statements(self, which: str, prefix: str) -> None:
        for name, value in (("log_statement", which), ("log_line_prefix", prefix)):
            self.sql(f"ALTER SYSTEM SET {name} = '{value}'")
        self.sql("SELECT pg_reload_conf()")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The session's PostgreSQL. A test that stops it starts it again."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """A fresh database with our tables."""
    return postgres_server.new_migrated_database()
