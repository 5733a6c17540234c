"""Where in a YAML text the values of given paths stand: a second pass, made only when something is wrong."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from dsfast.formats.events import events
from dsfast.formats.findings import Path


def find_lines(text: str, wanted: Collection[Path]) -> dict[Path, int]:
    """The line of each wanted path; of one that is not in the text, the line of the nearest thing around it."""
    prefixes = {path[:length] for path in wanted for length in range(len(path) + 1)}
    found: dict[Path, int] = {(): 1}
    tracker = _Tracker(prefixes, found)
    for event in events(text):
        tracker.take(event)
    return {path: next(found[path[:n]] for n in range(len(path), -1, -1) if path[:n] in found) for path in wanted}


class _Tracker:
    """Follows the path through the events and notes where the wanted ones begin."""

    def __init__(self, prefixes: Collection[Path], found: dict[Path, int]) -> None:
        self._prefixes = prefixes
        self._found = found
        self._path: list[str | int] = []  # of the innermost open container that is on the way to a wanted path
        self._open: list[str | int | None] = []  # key or position in each open container, None before a key
        self._skipped = 0  # containers open below one that leads nowhere

    def take(self, event: Any) -> None:
        kind = event.__class__
        if kind is MappingEndEvent or kind is SequenceEndEvent:
            self._leave()
        elif kind is MappingStartEvent or kind is SequenceStartEvent:
            self._enter(event, 0 if kind is SequenceStartEvent else None)
        elif kind is ScalarEvent or kind is AliasEvent:
            self._pass(event)

    def _enter(self, event: Any, first: int | None) -> None:
        if self._skipped or (*self._path, *self._here()) not in self._prefixes:
            self._skipped += 1
            return
        self._note(event)
        self._path.extend(self._here())
        self._open.append(first)

    def _here(self) -> tuple[str | int, ...]:
        return () if not self._open or self._open[-1] is None else (self._open[-1],)

    def _leave(self) -> None:
        if self._skipped:
            self._skipped -= 1
            if not self._skipped:
                self._advance()
            return
        self._open.pop()
        if self._open:
            self._path.pop()
            self._advance()

    def _pass(self, event: Any) -> None:
        if self._skipped or not self._open:
            return
        if self._open[-1] is None and event.__class__ is ScalarEvent:
            self._open[-1] = event.value
            self._note(event)
        else:
            self._note(event)
            self._advance()

    def _note(self, event: Any) -> None:
        path = (*self._path, *self._here())
        if path in self._prefixes:
            self._found.setdefault(path, event.start_mark.line + 1)

    def _advance(self) -> None:
        if self._open:
            last = self._open[-1]
            self._open[-1] = last + 1 if isinstance(last, int) else None
