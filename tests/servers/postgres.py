"""The session's PostgreSQL: started on first use, ended with the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dsfast.chaos.postgres import PASSWORD, PostgresServer

__all__ = ["PASSWORD", "PostgresServer", "postgres_server", "postgres_url"]


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
