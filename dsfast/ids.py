"""Run ids: 63-bit integers that sort by time, written as 13 characters for people.

Bits, high to low: 41 of milliseconds since 2020-01-01 UTC, 10 of the node, 12 of a counter.
The counter starts at chance and wraps; two masters with the same node number would have to
hit the same counter in the same millisecond to collide, and then the primary key refuses.
Text is Crockford's base 32 in lower case (no i, l, o, u), so it can be read out and typed.
"""

from __future__ import annotations

import random
from functools import lru_cache

EPOCH_MS = 1_577_836_800_000
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
TEXT_LENGTH = 13
_VALUES = {letter: value for value, letter in enumerate(ALPHABET)}
_VALUES.update({"i": 1, "l": 1, "o": 0})


class RunIds:
    """Makes run ids that never repeat within one master and hardly ever between two."""

    def __init__(self, rng: random.Random) -> None:
        self._node = rng.getrandbits(10)
        self._counter = rng.getrandbits(12)
        self._last_ms = 0

    def next(self, wall: float) -> int:
        """The next id for a run made at `wall` (seconds since 1970); ids of one master strictly grow."""
        ms = int(wall * 1000) - EPOCH_MS
        self._counter = (self._counter + 1) & 0xFFF
        if ms <= self._last_ms:  # the clock stood still or went back: grow by the counter, then by borrowed time
            ms = self._last_ms + (self._counter == 0)
        self._last_ms = ms
        return ms << 22 | self._node << 12 | self._counter


@lru_cache(maxsize=1024)  # all tasks of a run ask for the same one
def run_text(run_id: int) -> str:
    """The 13 characters that people see for a run."""
    return "".join(ALPHABET[run_id >> shift & 31] for shift in range(60, -1, -5))


def run_number(text: str) -> int:
    """The run id behind its text. Raises ValueError when the text is not one."""
    if len(text) != TEXT_LENGTH:
        raise ValueError(f"a run id has {TEXT_LENGTH} characters, not {len(text)}: {text!r}")
    number = 0
    for letter in text.lower():
        if letter not in _VALUES:
            raise ValueError(f"{letter!r} does not occur in run ids: {text!r}")
        number = number << 5 | _VALUES[letter]
    if number >> 63:
        raise ValueError(f"a run id starts with 0 to 7: {text!r}")
    return number
