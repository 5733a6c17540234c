"""What Alembic executes: run the migrations on the connection that `upgrade` hands over."""

from __future__ import annotations

from alembic import context

from dsfast.store.revision import REVISION_TABLE
from dsfast.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table=REVISION_TABLE
)
with context.begin_transaction():
    context.run_migrations()
