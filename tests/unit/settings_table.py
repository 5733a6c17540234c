"""The table of settings in docs/configuration.md: `python -m tests.unit.settings_table` writes it anew."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

from dsfast.config import SECTIONS, settings
from dsfast.config.kinds import Setting

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
BEGIN, END = "<!-- settings -->\n", "<!-- end of settings -->\n"


def markdown() -> str:
    """One table per section."""
    parts = []
    for section, entries in groupby(settings(), key=lambda entry: entry.key.rpartition(".")[0]):
        about = (SECTIONS[section].__doc__ or "") if section else "Above all sections."
        rows = "".join(map(_row, entries))
        title = f"### [{section}]" if section else "### Top level"
        parts.append(f"{title}\n\n{about}\n\n| Setting | Kind | Default | Meaning |\n|---|---|---|---|\n{rows}\n")
    return "".join(parts)


def current(page: str) -> str:
    """The page with its table as the code has it."""
    head, _, rest = page.partition(BEGIN)
    tail = rest.partition(END)[2]
    return f"{head}{BEGIN}\n{markdown()}{END}{tail}"


def _row(entry: Setting) -> str:
    default = ", ".join(entry.default) if isinstance(entry.default, list) else str(entry.default)
    kind = entry.kind.name.replace("|", "\\|")
    name = entry.key.rpartition(".")[2]
    return (
        f"| `{name}` | {kind} | `{default}` | {entry.doc} |\n"
        if default
        else f"| `{name}` | {kind} | | {entry.doc} |\n"
    )


if __name__ == "__main__":
    sys.stdout.write(f"{PAGE}\n")
    PAGE.write_text(current(PAGE.read_text()))
