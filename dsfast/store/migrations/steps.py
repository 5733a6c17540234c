"""The steps that migrations are made of, as each database needs them.

On MySQL, which commits every step by itself, a step that an interrupted upgrade has done already is passed over; and
the tables get a collation that compares texts byte by byte, trailing blanks included, as the other databases do.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

COLLATIONS = {"mariadb": "utf8mb4_nopad_bin", "mysql": "utf8mb4_0900_bin"}


def create_table(name: str, *columns: sa.schema.SchemaItem, **options: Any) -> None:
    """`op.create_table`."""
    bind = op.get_bind()
    collation = COLLATIONS.get(bind.dialect.name)
    if collation is None:
        op.create_table(name, *columns, **options)
    elif not _is_there(bind, name, {column.name for column in columns if isinstance(column, sa.Column)}):
        kind: dict[str, Any] = {"engine": "InnoDB", "charset": "utf8mb4", "collate": collation}
        named = {f"{bind.dialect.name}_{option}": value for option, value in kind.items()}
        op.create_table(name, *columns, **options, **named)


def create_index(name: str, table: str, columns: list[str], **options: Any) -> None:
    """`op.create_index`."""
    bind = op.get_bind()
    if bind.dialect.name in COLLATIONS and any(index["name"] == name for index in sa.inspect(bind).get_indexes(table)):
        return
    op.create_index(name, table, columns, **options)


def _is_there(bind: sa.Connection, table: str, columns: set[str]) -> bool:
    """Whether the table is there and is ours; somebody else's of that name makes the step fail, as it should."""
    inspector = sa.inspect(bind)
    return inspector.has_table(table) and columns == {column["name"] for column in inspector.get_columns(table)}
