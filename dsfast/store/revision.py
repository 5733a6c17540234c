"""Which schema this code needs, and the sentences for a database that has another."""

from __future__ import annotations

from dsfast.errors import UsageError

REVISIONS = ("0001", "0002")  # every migration, oldest first; a test compares them with the migrations' own chain
HEAD = REVISIONS[-1]
REVISION_TABLE = "dsfast_revision"  # Alembic's own table, under a name that says whose it is


def check_revision(found: str | None, place: str) -> None:
    """Raise UsageError unless the database at `place` has the schema this code was written for."""
    if found == HEAD:
        return
    if found is None:
        raise UsageError(f"{place} has no dsfast tables yet; create them with `dsfast db upgrade`")
    if found in REVISIONS:
        raise UsageError(f"{place} has schema {found}, this dsfast needs {HEAD}; run `dsfast db upgrade`")
    raise UsageError(
        f"{place} has schema {found}, made by a newer dsfast than this one, which knows up to {HEAD}; "
        "install that release here too (`dsfast db upgrade` only goes forward)"
    )
