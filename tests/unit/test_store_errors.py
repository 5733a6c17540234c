"""Errors of database servers as sentences: what people can act on, without a password; bugs stay bugs."""

from __future__ import annotations

import asyncpg
import pymysql
import pytest
import sqlalchemy as sa

from dsfast.errors import DsfastError, Unavailable, UsageError
from dsfast.store import mysql_link
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


# --- MySQL ----------------------------------------------------------------------------------------------------------


MYSQL = "MySQL at db:3306/runs"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (pymysql.err.OperationalError(1114, "The table 'attempts' is full"), "the server's disk is full"),
        (pymysql.err.OperationalError(1040, "Too many connections"), "raise max_connections"),
        (pymysql.err.OperationalError(1290, "running with the --read-only option"), "point dsfast at the primary"),
        (pymysql.err.OperationalError(1045, "Access denied"), "check user and password"),
        (pymysql.err.OperationalError(1049, "Unknown database"), "CREATE DATABASE"),
        (pymysql.err.OperationalError(1142, "command denied"), "grant it the rights"),
        (pymysql.err.ProgrammingError(1146, "doesn't exist"), "dsfast db upgrade"),
        (pymysql.err.OperationalError(1205, "Lock wait timeout"), "innodb_trx"),
        (pymysql.err.OperationalError(1213, "Deadlock"), "keep getting in the way"),
        (pymysql.err.OperationalError(1969, "max_statement_time exceeded"), "took too long"),
        (pymysql.err.OperationalError(1153, "packet bigger"), "raise max_allowed_packet"),
        (pymysql.err.OperationalError(1053, "Server shutdown in progress"), "shutting down"),
        (pymysql.err.OperationalError(2006, "gone away"), "the connection was lost"),
        (pymysql.err.InterfaceError(0, ""), "the connection was lost"),
        (ConnectionRefusedError(111, "Connection refused"), "cannot be reached: Connection refused"),
    ],
)
def test_what_mysql_does_is_unavailable_with_a_sentence(error: Exception, sentence: str) -> None:
    with pytest.raises(Unavailable, match=sentence) as caught, mysql_link.errors_explained(MYSQL):
        raise error
    assert str(caught.value).startswith(MYSQL)


def test_an_error_that_sqlalchemy_has_wrapped_is_found_inside() -> None:
    lost = pymysql.err.OperationalError(2013, "lost")
    with pytest.raises(Unavailable, match="the connection was lost"), mysql_link.errors_explained(MYSQL):
        raise sa.exc.OperationalError("SELECT", {}, lost) from lost


@pytest.mark.parametrize(
    "error",
    [pymysql.err.OperationalError(1054, "Unknown column"), pymysql.err.DataError(1406, "too long"), ValueError("no")],
)
def test_bugs_on_mysql_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, mysql_link.errors_explained(MYSQL):
        raise error
    assert not isinstance(caught.value, DsfastError)


def test_a_mysql_url_says_where_and_how() -> None:
    address = mysql_link.parse("mysql://me:se%40cret@db.example:3307/runs?ssl_ca=/etc/ca.pem")
    assert address.place == "MySQL at db.example:3307/runs"
    assert address.arguments == {
        "host": "db.example",
        "port": 3307,
        "user": "me",
        "password": "se@cret",
        "database": "runs",
        "ssl_ca": "/etc/ca.pem",
        "ssl_verify_identity": True,
    }
    assert "cret" not in repr(address)
    assert mysql_link.parse("mysql:///runs?unix_socket=/run/s").place == "MySQL at the local socket/runs"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://me:sec/ret@db/runs",
        "mysql://me:sec?ret@db/runs",
        "mysql://db",
        "mysql://me:secret@db:port/runs",
        "mysql://me:secret@db/runs?local_infile=1",
    ],
)
def test_mysql_urls_that_would_be_misread_are_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(UsageError, match="percent-encoded") as caught:
        mysql_link.parse(url)
    assert "sec" not in str(caught.value)
