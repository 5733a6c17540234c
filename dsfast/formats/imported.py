"""What every import from another system has in common: its result, reading JSON, and names that can be used here."""

from __future__ import annotations

import codecs
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import orjson

from dsfast.errors import Problem, UsageError
from dsfast.formats.check import NAME_FORBIDDEN, check, name_fault
from dsfast.model import NAME_LENGTH_MAX, Workflow


@dataclass(frozen=True, slots=True)
class Imported:
    """Workflows taken over from another system, and a sentence for everything that was not."""

    workflows: list[Workflow]
    notes: list[str]


def read_json(text: str | bytes, file: str | None) -> Any:
    """The JSON value in the text. Raises UsageError when there is none."""
    body = text if isinstance(text, bytes) else text.encode(errors="replace")
    try:
        return orjson.loads(body.removeprefix(codecs.BOM_UTF8))  # the quickest where the shape is anybody's guess
    except orjson.JSONDecodeError as error:
        raise UsageError(Problem(f"this is not JSON: {error}", file)) from None


def usable_name(name: str, taken: Container[str]) -> str:
    """The name, changed as little as needed to be one that is allowed here and not taken."""
    letters = ("_" if letter in NAME_FORBIDDEN or not letter.isprintable() else letter for letter in name)
    base = "".join(letters).strip()[:NAME_LENGTH_MAX].strip()
    if name_fault(base):
        base = "unnamed" if not base else f"_{base}"
    candidate, number = base, 2
    while candidate in taken:
        suffix = f"-{number}"
        candidate, number = base[: NAME_LENGTH_MAX - len(suffix)] + suffix, number + 1
    return candidate


def checked(workflow: Workflow, file: str | None) -> Workflow:
    """The workflow if it can run. Raises UsageError with all that is wrong with it otherwise."""
    problems = check(workflow, file)
    if problems:
        raise UsageError(problems)
    return workflow
