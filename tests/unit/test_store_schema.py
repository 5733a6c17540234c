"""One schema in four spellings: SQLAlchemy tables, migrations, SQLite's DDL constant, and the fields of rows."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql, sqlite

from dsfast.errors import UsageError
from dsfast.rows import AttemptRow, RunRow
from dsfast.store import ddl, migrations, open_store, schema
from dsfast.store.postgres_statements import _TYPES
from dsfast.store.revision import HEAD, REVISIONS, check_revision
from tests.servers.postgres import PostgresServer

POSTGRES: sa.Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]

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
