"""A daemon with bugs that nobody foresaw: `python -m tests.integration.sabotaged ROLE`.

Once the file named by SABOTAGE exists, its registry's background task fails. A master fails over workflows that are
named CURSED.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable
from pathlib import Path

from dsfast.cli.main import main
from dsfast.engine import core
from dsfast.engine.plan import Plan, compile_body
from dsfast.model import Member, OnDisconnect
from dsfast.registry.roster import View
from dsfast.registry.sqlite import SqliteRoster

CURSED = "cursed"
SABOTAGE = Path(os.environ.get("SABOTAGE", "/nowhere"))
honest_look = SqliteRoster.look


def look(self: SqliteRoster, member: Member | None) -> Awaitable[View]:
    if SABOTAGE.exists():
        raise ZeroDivisionError("a bug in the registry")
    return honest_look(self, member)


def compile_cursed(body: bytes, on_disconnect: OnDisconnect) -> Plan:
    plan = compile_body(body, on_disconnect)
    if plan.name == CURSED:
        raise ZeroDivisionError("a bug in the compiler")
    return plan


if __name__ == "__main__":
    SqliteRoster.look = look  # type: ignore[method-assign,assignment]
    core.compile_body = compile_cursed
    main()
