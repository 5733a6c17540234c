"""The first tables: definitions, runs, attempts."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from dsfast.store.migrations.steps import create_index, create_table

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# What MySQL needs instead of a plain TEXT or BLOB: keys with a longest length, values longer than 64 KiB.
DIGEST = sa.Text().with_variant(mysql.VARCHAR(64), "mysql", "mariadb")
NAME = sa.Text().with_variant(mysql.VARCHAR(200), "mysql", "mariadb")
MEMBER = sa.Text().with_variant(mysql.VARCHAR(255), "mysql", "mariadb")
TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
BYTES = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


def upgrade() -> None:
    """Create the tables and their indexes."""
    _create_definitions()
    _create_runs()
    _create_attempts()


def _create_definitions() -> None:
    create_table(
        "definitions",
        sa.Column("digest", DIGEST, primary_key=True),
        sa.Column("name", NAME, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("body", BYTES, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    create_index("definitions_by_name", "definitions", ["name", "version"], unique=True)


def _create_runs() -> None:
    create_table(
        "runs",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=False),
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
    _create_partial_index("runs_by_key", ["idempotency_key"], "idempotency_key IS NOT NULL", unique=True)
    _create_partial_index("runs_by_outcome", ["outcome", "id"], "outcome IS NOT NULL")
    _create_partial_index("runs_by_owner", ["owner"], "owner IS NOT NULL")
    all_of_them = sa.text("workflow IS NOT NULL")
    create_index("runs_by_workflow", "runs", ["workflow", "id"], postgresql_where=all_of_them)


def _create_partial_index(name: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    create_index(name, "runs", columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


def _create_attempts() -> None:
    create_table(
        "attempts",
        sa.Column("run_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
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
        postgresql_with={"fillfactor": 70},
    )
