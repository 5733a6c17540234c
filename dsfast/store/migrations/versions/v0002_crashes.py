"""How often masters have ended over a run."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from dsfast.store.migrations.steps import create_table

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; nothing of the first ones changes, so the release before works on."""
    create_table(
        "crashes",
        sa.Column(
            "run_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=False
        ),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb"), nullable=False),
    )
