"""What a benchmark of this folder tells: a figure with its spread, beside its floor, what rivals reach, and its target.

`tell` (conftest.py) keeps figures with the benchmark's result, where `python -m benchmarks.report` finds them, and
prints them at the end of the session.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6}
HIGHER = ("per s", "%", "times")  # units of which more is better


class Beside(msgspec.Struct, frozen=True):
    """A figure of the same unit to compare with, and what it is."""

    value: float
    about: str


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One answer. `value` is a median where there are several, `least` and `most` what they varied between."""

    what: str
    value: float
    unit: str
    count: int = 1
    least: float | None = None
    p95: float | None = None
    p99: float | None = None
    most: float | None = None
    floor: Beside | None = None  # what nothing can do without, measured in the same run
    rival: Beside | None = None  # what others reach, measured elsewhere (rivals.py) or in the same run
    target: float | None = None
    durable: str = ""  # the settings of the database; nothing where nothing is committed

    @property
    def more_is_better(self) -> bool:
        return self.unit in HIGHER

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.more_is_better else self.value <= self.target

    @property
    def times_floor(self) -> float | None:
        """How far it is from its floor."""
        if self.floor is None or not self.value or not self.floor.value:
            return None
        return self.floor.value / self.value if self.more_is_better else self.value / self.floor.value


def durations(what: str, seconds: Sequence[float], unit: str = "ms", **more: object) -> Figure:
    """Of single durations: median, 95th and 99th percentile."""
    ordered, scale = sorted(seconds), UNITS[unit]
    return Figure(
        what=what,
        unit=unit,
        count=len(ordered),
        value=statistics.median(ordered) * scale,
        least=ordered[0] * scale,
        p95=percentile(ordered, 0.95) * scale,
        p99=percentile(ordered, 0.99) * scale,
        most=ordered[-1] * scale,
        **more,  # type: ignore[arg-type]
    )


def rounds(what: str, values: Sequence[float], unit: str, **more: object) -> Figure:
    """Of some rounds: the median, and what they varied between."""
    return Figure(
        what=what,
        unit=unit,
        count=len(values),
        value=statistics.median(values),
        least=min(values) if len(values) > 1 else None,
        most=max(values) if len(values) > 1 else None,
        **more,  # type: ignore[arg-type]
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Of values in order."""
    return ordered[min(len(ordered) - 1, round(share * len(ordered)))]


def number(value: float) -> str:
    """Three digits that matter, with thousands separated."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def line(figure: Figure) -> str:
    """A figure as one line of text."""
    text = f"{figure.what:54} {number(figure.value):>9} {figure.unit:9}"
    if figure.p95 is not None and figure.p99 is not None:
        text += f" p95 {number(figure.p95)} p99 {number(figure.p99)} (of {figure.count})"
    elif figure.least is not None and figure.most is not None:
        text += f" {number(figure.least)} - {number(figure.most)}"
    if figure.floor is not None:
        times = figure.times_floor
        far = f", {number(times)}x" if times is not None else ""
        text += f"; {figure.floor.about}: {number(figure.floor.value)}{far}"
    if figure.rival is not None:
        text += f"; {figure.rival.about}: {number(figure.rival.value)}"
    if figure.target is not None:
        sign, verdict = (">=" if figure.more_is_better else "<="), ("met" if figure.met else "MISSED")
        text += f"; target {sign} {number(figure.target)}: {verdict}"
    return text
