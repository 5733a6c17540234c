"""Durations as people write them: `90`, "1h 30m", "500ms"."""

from __future__ import annotations

import re
from functools import lru_cache

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[smhdw])")
_WHOLE = re.compile(rf"\s*(?:{_PART.pattern}\s*)+")
_WORDS_LENGTH_MAX = 100  # characters; longer text is not a duration, and need not be searched for one


@lru_cache(maxsize=4096)
def parse_duration(text: str) -> float:
    """The seconds that text such as "1h 30m" stands for. Raises ValueError with the sentence to show."""
    if len(text) <= _WORDS_LENGTH_MAX:
        if _WHOLE.fullmatch(text):
            return sum(float(number) * UNITS[unit] for number, unit in _PART.findall(text))
        if re.fullmatch(r"\s*\d+(\.\d+)?\s*", text):
            return float(text)
    raise ValueError(f'must be a duration such as 90 (seconds), "1h 30m" or "500ms", not {text[:40]!r}')


def duration_text(seconds: float) -> str | float:
    """The duration as it reads best: whole minutes and more in units, everything else as the number it is."""
    if seconds < 60 or seconds != int(seconds):
        return int(seconds) if seconds == int(seconds) else seconds
    parts, rest = [], int(seconds)
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(rest, int(UNITS[unit]))
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts)
