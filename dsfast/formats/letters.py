"""How wide a text is when drawn, in usual letters, without asking a font."""

from __future__ import annotations

import unicodedata

_NARROW = frozenset("fijlrtI .,:;'|!()[]/-")
_BROAD = frozenset("mwMW@%")


def letters(text: str) -> float:
    """The width of a text in a proportional font."""
    return sum(map(_width, text))


def columns(text: str) -> int:
    """The width of a text in a terminal."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _width(letter: str) -> float:
    if letter in _NARROW:
        return 0.65
    if letter in _BROAD:
        return 1.4
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.8
    return 1.2 if letter.isupper() else 1.0
