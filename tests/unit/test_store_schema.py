"""One schema in four spellings: SQLAlchemy tables, migrations, SQLite's DDL constant, and the fields of rows."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import mysql, postgresql, sqlite

from dsfast.errors import UsageError
from dsfast.rows import AttemptRow, RunRow
from dsfast.store import ddl, migrations, open_store, schema
from dsfast.store.migrations.steps import COLLATIONS
from dsfast.store.postgres_statements import _TYPES
from dsfast.store.revision import HEAD, REVISIONS, check_revision
from tests.servers.mysql import MySqlServer
from tests.servers.postgres import PostgresServer

POSTGRES: sa.Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]

# Without Alembic's own table, which has the server's collation.
MYSQL_SCHEMA = """
    SELECT table_name, column_name, column_type, is_nullable, collation_name, generation_expression
    FROM information_schema.columns WHERE table_schema = database() AND table_name <> 'dsfast_revision'
    UNION ALL SELECT table_name, index_name, column_name, non_unique, seq_in_index, ''
    FROM information_schema.statistics WHERE table_schema = database()
    UNION ALL SELECT table_name, '', engine, table_collation, '', '' FROM information_schema.tables
    WHERE table_schema = database() AND table_name <> 'dsfast_revision' ORDER BY 1, 2, 3"""

# Everything the server knows about our tables, by name.
POSTGRES_SCHEMA = """
    SELECT table_name, column_name, data_type, is_nullable, generation_expression
    FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL SELECT tablename, indexname, indexdef, '', '' FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL SELECT relname, '', reloptions::text, '', '' FROM pg_class WHERE reloptions IS NOT NULL
    ORDER BY 1, 2"""


def sqlite_schema(path: Path) -> dict[str, str]:
    """The DDL of a file by name of table or index, spelled evenly."""
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    return {name: spelled_evenly(sql) for name, sql in found}


def spelled_evenly(sql: str) -> str:
    return " ".join(sql.replace("(", " ( ").replace(")", " ) ").replace(",", " , ").split())


def test_columns_are_the_fields_of_rows() -> None:
    assert tuple(schema.runs.c.keys()) == (*RunRow.__struct_fields__, "outcome")  # the generated one
    assert tuple(schema.attempts.c.keys()) == AttemptRow.__struct_fields__


def test_the_ddl_constant_is_what_the_tables_compile_to() -> None:
    expected = ";\n".join(schema.create_statements(sqlite.dialect()))
    assert spelled_evenly(ddl.SQLITE) == spelled_evenly(expected + ";"), f"ddl.SQLITE should be:\n{expected};"


def test_parameters_have_the_types_of_their_columns() -> None:
    aliases = {"DOUBLE PRECISION": "float8", "INTEGER": "int"}
    for table in (schema.definitions, schema.runs, schema.attempts):
        for column in table.c:
            if column.name in _TYPES:
                compiled = column.type.compile(dialect=POSTGRES)
                assert _TYPES[column.name] == aliases.get(compiled, compiled.lower()), column


def test_revisions_are_the_chain_of_migrations() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    scripts = ScriptDirectory.from_config(config)
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == REVISIONS
    assert scripts.get_heads() == [HEAD]


async def test_a_migrated_file_equals_a_created_one(tmp_path: Path) -> None:
    created, migrated = tmp_path / "created.db", tmp_path / "migrated.db"
    store = open_store(f"sqlite:///{created}", create=True)
    await store.open()
    await store.close()
    url = f"sqlite:///{migrated}"
    migrations.upgrade(url)
    assert sqlite_schema(migrated) == sqlite_schema(created)
    assert migrations.current(url) == migrations.current(f"sqlite:///{created}") == HEAD


async def test_a_migrated_server_equals_the_tables(postgres_server: PostgresServer) -> None:
    migrated, created = postgres_server.new_migrated_database(), postgres_server.new_database()
    for statement in schema.create_statements(POSTGRES):
        postgres_server.sql(statement, created)
    assert postgres_server.sql(POSTGRES_SCHEMA, migrated) == postgres_server.sql(POSTGRES_SCHEMA, created)
    assert await asyncio.to_thread(migrations.current, migrated) == HEAD
    assert await asyncio.to_thread(migrations.current, postgres_server.new_database()) is None


def created_mysql(server: MySqlServer) -> str:
    """A database that `schema.py` made."""
    url = server.new_database()
    server.sql(f"ALTER DATABASE {url.rpartition('/')[2]} CHARACTER SET utf8mb4 COLLATE {COLLATIONS['mariadb']}")
    for statement in schema.create_statements(mysql.dialect()):  # type: ignore[no-untyped-call]
        server.sql(statement, url)
    return url


def test_a_migrated_mysql_equals_the_tables(mysql_server: MySqlServer) -> None:
    migrated, created = mysql_server.new_migrated_database(), created_mysql(mysql_server)
    assert mysql_server.sql(MYSQL_SCHEMA, migrated) == mysql_server.sql(MYSQL_SCHEMA, created)
    assert migrations.current(migrated) == HEAD
    assert migrations.current(mysql_server.new_database()) is None


@pytest.mark.parametrize("done", range(1, 8))
def test_an_upgrade_of_mysql_that_was_interrupted_after_any_step_is_finished_by_the_next(
    mysql_server: MySqlServer, done: int
) -> None:
    """MySQL commits each step by itself; here are the first of them, as an upgrade that was killed leaves them."""
    whole, url = mysql_server.new_migrated_database(), mysql_server.new_database()
    for step in range(done):
        table, index = STEPS[step]
        if index is None:
            mysql_server.sql(f"CREATE TABLE {table} LIKE {whole.rpartition('/')[2]}.{table}", url)
            for _, later in [each for each in STEPS if each[0] == table and each[1]]:
                mysql_server.sql(f"DROP INDEX {later} ON {table}", url)
        else:
            mysql_server.sql(f"CREATE {index_words(index)}", url)
    migrations.upgrade(url)
    assert mysql_server.sql(MYSQL_SCHEMA, url) == mysql_server.sql(MYSQL_SCHEMA, whole)
    assert migrations.current(url) == HEAD


STEPS = [
    ("dsfast_revision", None),
    ("definitions", None),
    ("definitions", "definitions_by_name"),
    ("runs", None),
    ("runs", "runs_by_key"),
    ("runs", "runs_by_outcome"),
    ("runs", "runs_by_owner"),
    ("runs", "runs_by_workflow"),
]


def index_words(name: str) -> str:
    """What follows CREATE to make an index of the tables on MySQL."""
    index = next(index for table in schema.metadata.sorted_tables for index in table.indexes if index.name == name)
    return str(sa.schema.CreateIndex(index).compile(dialect=mysql.dialect())).strip().removeprefix("CREATE ")  # type: ignore[no-untyped-call]


def test_a_mysql_table_of_somebody_else_is_not_taken_for_ours(mysql_server: MySqlServer) -> None:
    url = mysql_server.new_database()
    mysql_server.sql("CREATE TABLE runs (somebody_elses INTEGER)", url)
    with pytest.raises(sa.exc.OperationalError, match="already exists"):
        migrations.upgrade(url)


def test_upgrading_twice_changes_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    migrations.upgrade(url)
    before = sqlite_schema(tmp_path / "runs.db")
    migrations.upgrade(url)
    assert sqlite_schema(tmp_path / "runs.db") == before


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "runs.db")
    connection.execute("CREATE TABLE attempts (somebody_elses INTEGER)")
    connection.close()
    with pytest.raises(sa.exc.OperationalError, match="already exists"):
        migrations.upgrade(f"sqlite:///{tmp_path}/runs.db")
    assert sqlite_schema(tmp_path / "runs.db").keys() == {"attempts"}


async def test_upgrading_under_a_master_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    store = open_store(url, create=True)
    await store.open()
    with pytest.raises(UsageError, match="in use by pid"):
        migrations.upgrade(url)
    await store.close()


def test_upgrading_newer_tables_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    migrations.upgrade(url)
    connection = sqlite3.connect(tmp_path / "runs.db")
    connection.execute("UPDATE dsfast_revision SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(UsageError, match="newer dsfast"):
        migrations.upgrade(url)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [(None, "no dsfast tables yet; create them"), ("0000", "made by a newer dsfast")],
)
def test_a_schema_that_does_not_fit_is_a_sentence(found: str | None, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        check_revision(found, "the database")
    assert "dsfast db upgrade" in str(caught.value)


def test_an_older_schema_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsfast.store.revision.REVISIONS", ("0001", "0002"))
    monkeypatch.setattr("dsfast.store.revision.HEAD", "0002")
    with pytest.raises(UsageError, match="has schema 0001, this dsfast needs 0002; run `dsfast db upgrade`"):
        check_revision("0001", "the database")
