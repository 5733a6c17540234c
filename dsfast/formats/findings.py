"""What is wrong with a workflow, collected while it is read and checked.

A finding names its place by a path of model attributes, such as ("tasks", 3, "retry", "delay"). Whoever wrote
the workflow sees the place in the words of the layout it was written in: `tasks.load.retries.delay`, line 12.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from dsfast.errors import Problem

PROBLEMS_MAX = 200  # listed one by one; a longer list is one mistake made often, and only its length matters
NEAR_CANDIDATES_MAX = 100  # names compared letter by letter for one hint: 3 ms
COMPARED_MAX = 200_000  # names looked through for all hints together: a second; then findings come without
PART_LENGTH_MAX = 60  # characters of a name within the place of a problem: it is read in a terminal

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong, and where."""

    path: Path
    message: str
    hint: str | None = None


@dataclass(slots=True)
class Findings:
    """Everything wrong, in the order it was found; beyond PROBLEMS_MAX only counted."""

    items: list[Finding] = field(default_factory=list)
    count: int = 0
    compared: int = 0  # names looked through for hints so far

    def add(self, path: Path, message: str, hint: str | None = None) -> None:
        self.count += 1
        if len(self.items) < PROBLEMS_MAX:
            self.items.append(Finding(path, message, hint))

    def near(self, word: str, known: Collection[str], otherwise: str | None = None) -> str | None:
        """A hint with the known name closest to a misspelt one; what is not listed any more gets none."""
        if len(self.items) >= PROBLEMS_MAX or self.compared > COMPARED_MAX:
            return None
        self.compared += len(known)
        close = near_name(word, known)
        return f"did you mean {close!r}?" if close is not None else otherwise

    def rest(self) -> Iterator[Problem]:
        """One problem that counts those not listed, if there are any."""
        if self.count > len(self.items):
            yield Problem(f"and {self.count - len(self.items)} more problems")


def near_name(word: str, known: Collection[str]) -> str | None:
    """The known name closest to the word, if any is close."""
    candidates: Sequence[str] = [name for name in known if abs(len(name) - len(word)) <= 3]
    if len(candidates) > NEAR_CANDIDATES_MAX:
        candidates = sorted(candidates, key=lambda name: -_shared_ends(name, word))[:NEAR_CANDIDATES_MAX]
    close = get_close_matches(word, candidates, n=1)
    return close[0] if close else None


def _shared_ends(name: str, word: str) -> int:
    """How many letters two names share at their beginning and end: cheap, and right for one slip of the finger."""
    start = next((at for at, (a, b) in enumerate(zip(name, word, strict=False)) if a != b), min(len(name), len(word)))
    rest = min(len(name), len(word)) - start
    end = next((n for n in range(rest) if name[-1 - n] != word[-1 - n]), rest)
    return start + end


def field_text(path: Path) -> str:
    """The path as people read it: `tasks.load.needs[1]`."""
    text = ""
    for part in path:
        shown = part if isinstance(part, int) else _shown(part)
        text += f"[{shown}]" if isinstance(part, int) else f".{shown}" if text else str(shown)
    return text


def _shown(part: str) -> str:
    if len(part) > PART_LENGTH_MAX:
        return part[:PART_LENGTH_MAX] + "…"
    return part if part and part.isprintable() else repr(part)
