"""A daemon with a bug that begins on demand: `python -m tests.integration.sabotaged ROLE`.

Once the file named by SABOTAGE exists, its registry's background task fails on an error that nobody foresaw.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable
from pathlib import Path

from dsfast.cli.main import main
from dsfast.model import Member
from dsfast.registry.roster import View
from dsfast.registry.sqlite import SqliteRoster

SABOTAGE = Path(os.environ["SABOTAGE"])
honest_look = SqliteRoster.look


def look(self: SqliteRoster, member: Member | None) -> Awaitable[View]:
    if SABOTAGE.exists():
        raise ZeroDivisionError("a bug in the registry")
    return honest_look(self, member)


if __name__ == "__main__":
    SqliteRoster.look = look  # type: ignore[method-assign,assignment]
    main()
