"""PostgreSQL's errors as sentences: what people can act on, without a password; bugs stay bugs."""

from __future__ import annotations

import asyncpg
import pytest

from dsfast.errors import DsfastError, Unavailable, UsageError
from dsfast.store.postgres_link import errors_explained, place_of

PLACE = "PostgreSQL at db:5432/runs"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (asyncpg.DiskFullError("could not extend file"), "the server's disk is full"),
        (asyncpg.TooManyConnectionsError("sorry"), "raise max_connections"),
        (asyncpg.OutOfMemoryError("no"), "short of resources"),
        (asyncpg.ReadOnlySQLTransactionError("no"), "point dsfast at the primary"),
        (asyncpg.CannotConnectNowError("the database system is starting up"), "shutting down or starting up"),
        (asyncpg.QueryCanceledError("statement timeout"), "took too long"),
        (asyncpg.InvalidPasswordError("no"), "check user and password"),
        (asyncpg.InvalidCatalogNameError("no"), "createdb"),
        (asyncpg.InsufficientPrivilegeError("permission denied for table runs"), "grant it the rights"),
        (asyncpg.UndefinedTableError("no"), "dsfast db upgrade"),
        (asyncpg.LockNotAvailableError("no"), "pg_stat_activity"),
        (asyncpg.DeadlockDetectedError("no"), "keep getting in the way"),
        (asyncpg.PostgresIOError("no"), "see its log"),
        (asyncpg.ConnectionDoesNotExistError("closed in the middle"), "the connection was lost"),
        (asyncpg.InterfaceError("connection is closed"), "the connection was lost"),
        (ConnectionRefusedError(111, "Connection refused"), "cannot be reached: Connection refused"),
        (TimeoutError(), "does not answer"),
    ],
)
def test_what_the_surroundings_do_is_unavailable_with_a_sentence(error: Exception, sentence: str) -> None:
    with pytest.raises(Unavailable, match=sentence) as caught, errors_explained(PLACE):
        raise error
    assert str(caught.value).startswith(PLACE)


@pytest.mark.parametrize("error", [asyncpg.UndefinedColumnError("no"), ValueError("no"), AssertionError("no")])
def test_bugs_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, errors_explained(PLACE):
        raise error
    assert not isinstance(caught.value, DsfastError)


def test_what_is_already_a_sentence_is_left_alone() -> None:
    with pytest.raises(UsageError, match=r"^as it was$"), errors_explained(PLACE):
        raise UsageError("as it was")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://me:secret@db.example:5432/runs", "PostgreSQL at db.example:5432/runs"),
        ("postgresql://db/runs", "PostgreSQL at db/runs"),
        ("postgresql://me:secret@a:1,b:2/runs?target_session_attrs=primary", "PostgreSQL at a:1,b:2/runs"),
        ("postgresql:///runs?host=/run/postgresql", "PostgreSQL at the local socket/runs"),
    ],
)
def test_places_are_named_without_user_and_password(url: str, place: str) -> None:
    assert place_of(url) == place


@pytest.mark.parametrize(
    "url", ["postgresql://me:sec/ret@db/runs", "postgresql://me:sec?ret@db/runs", "postgresql://db"]
)
def test_urls_that_would_be_misread_are_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(UsageError, match="percent-encoded") as caught:
        place_of(url)
    assert "sec" not in str(caught.value)
