"""The tables, as SQLAlchemy Core: what migrations end at and what people's queries are written with.

Column names are the field names of `dsfast.rows`, so a row and its struct never need a translation table.
An index on a column that changes costs a factor of two to three on every write, so nothing indexes `state`:
unfinished runs are found by `runs_by_owner` (few rows), ended ones by `outcome`, a generated column that is
NULL until the run ends and changes once. There are no foreign keys: whole rows are written in one transaction
by one writer per run, and the checks would be paid on every one of them.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateIndex, CreateTable, DDLElement

from dsfast.store.revision import REVISION_TABLE

# MySQL's keys have a longest length, and its plain TEXT and BLOB end at 64 KiB.
DIGEST = sa.Text().with_variant(mysql.VARCHAR(64), "mysql", "mariadb")  # SHA-256 in hex
NAME = sa.Text().with_variant(mysql.VARCHAR(200), "mysql", "mariadb")  # model.NAME_LENGTH_MAX; keys are as long
MEMBER = sa.Text().with_variant(mysql.VARCHAR(255), "mysql", "mariadb")  # a name of 100, @, a boot id
TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
BYTES = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
INTEGER64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite's rowid alias is spelled INTEGER

metadata = sa.MetaData()

definitions = sa.Table(
    "definitions",
    metadata,
    sa.Column("digest", DIGEST, primary_key=True),
    sa.Column("name", NAME, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),  # counts up per name, from 1
    sa.Column("body", BYTES, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Index("definitions_by_name", "name", "version", unique=True),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", INTEGER64, primary_key=True, autoincrement=False),
    sa.Column("workflow", NAME, nullable=False),
    sa.Column("digest", DIGEST, nullable=False),
    sa.Column("state", sa.SmallInteger, nullable=False),
    sa.Column("owner", MEMBER),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("priority", sa.SmallInteger, nullable=False),
    sa.Column("params", BYTES, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("idempotency_key", NAME),
    sa.Column("started_at", sa.Double),
    sa.Column("ended_at", sa.Double),
    sa.Column("reason", TEXT, nullable=False),
    sa.Column("tasks", sa.Integer, nullable=False),
    sa.Column("outcome", sa.SmallInteger, sa.Computed("CASE WHEN owner IS NULL THEN state END", persisted=True)),
)

# On PostgreSQL `runs_by_workflow` is partial, though every row is in it, so that only who asks for a workflow is
# offered it: while a planner believes the table to be empty, it finds any index that has `id` as good as the key's.
_any_workflow = runs.c.workflow.is_not(None)
_unfinished = runs.c.owner.is_not(None)
_keyed = runs.c.idempotency_key.is_not(None)
_ended = runs.c.outcome.is_not(None)
sa.Index("runs_by_owner", runs.c.owner, sqlite_where=_unfinished, postgresql_where=_unfinished)
sa.Index("runs_by_key", runs.c.idempotency_key, unique=True, sqlite_where=_keyed, postgresql_where=_keyed)
sa.Index("runs_by_outcome", runs.c.outcome, runs.c.id, sqlite_where=_ended, postgresql_where=_ended)
sa.Index("runs_by_workflow", runs.c.workflow, runs.c.id, postgresql_where=_any_workflow)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("run_id", INTEGER64, nullable=False),
    sa.Column("task", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("state", sa.SmallInteger, nullable=False),
    sa.Column("worker", MEMBER),
    sa.Column("dispatched_at", sa.Double),
    sa.Column("started_at", sa.Double),
    sa.Column("ended_at", sa.Double),
    sa.Column("exit_code", sa.BigInteger),
    sa.Column("reason", TEXT, nullable=False),
    sa.Column("outputs", BYTES),
    sa.PrimaryKeyConstraint("run_id", "task", "attempt"),
    sqlite_with_rowid=False,
    postgresql_with={"fillfactor": 70},  # an attempt is written twice: the second version fits beside the first
)

crashes = sa.Table(
    "crashes",
    metadata,
    sa.Column("run_id", INTEGER64, primary_key=True, autoincrement=False),  # or, negative, the mark of a command
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("reason", TEXT, nullable=False),  # of the last one
)

revision = sa.Table(
    REVISION_TABLE,
    metadata,
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name=f"{REVISION_TABLE}_pkc"),
)


def create_statements(dialect: sa.Dialect) -> list[str]:
    """The DDL that makes an empty database of this dialect, table by table, each followed by its indexes."""
    statements: list[DDLElement] = []
    for table in metadata.sorted_tables:
        statements.append(CreateTable(table))
        statements += [CreateIndex(index) for index in sorted(table.indexes, key=lambda index: str(index.name))]
    return [" ".join(str(statement.compile(dialect=dialect)).split()) for statement in statements]
