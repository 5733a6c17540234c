"""A figure as a small picture: where it lies between its floor, its target and its rivals, on a scale of decades."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.figures import Figure, number

WIDTH, HEIGHT, MARGIN = 300, 26, 6
MIDDLE = HEIGHT / 2


@dataclass(frozen=True, slots=True)
class Scale:
    """Values of one unit as places from left to right; each decade is as wide as the others."""

    least: float
    most: float

    def at(self, value: float) -> float:
        share = (math.log10(value) - self.least) / (self.most - self.least)
        return MARGIN + share * (WIDTH - 2 * MARGIN)

    def decades(self) -> Iterable[float]:
        return (10.0**power for power in range(math.ceil(self.least), math.floor(self.most) + 1))


def scales(figures: Sequence[Figure]) -> dict[str, Scale]:
    """A scale for each unit that takes in everything that will be drawn."""
    values: dict[str, list[float]] = {}
    for figure in figures:
        values.setdefault(figure.unit, []).extend(drawn(figure))
    return {unit: _scale(each) for unit, each in values.items() if each}


def drawn(figure: Figure) -> list[float]:
    """The values of a figure that have a place on a scale of decades."""
    besides = [each.value for each in (figure.floor, figure.rival) if each is not None]
    found = [figure.value, *besides, figure.target, figure.least, figure.p99, figure.most]
    return [value for value in found if value is not None and value > 0 and math.isfinite(value)]


def _scale(values: Sequence[float]) -> Scale:
    least, most = math.log10(min(values)), math.log10(max(values))
    room = max((most - least) * 0.06, 0.15)
    return Scale(least - room, most + room)


def picture(figure: Figure, scale: Scale | None) -> str:
    """The figure as inline SVG; nothing without a value that can be drawn."""
    if scale is None or figure.value <= 0:
        return ""
    at = scale.at
    parts = [
        f'<line class="decade" x1="{at(decade):.1f}" x2="{at(decade):.1f}" y1="0" y2="{HEIGHT}"/>'
        for decade in scale.decades()
    ]
    low, high = figure.least, figure.p99 or figure.most
    if low and high and low > 0:
        parts.append(
            f'<line class="spread" x1="{at(low):.1f}" x2="{at(high):.1f}" y1="{MIDDLE}" y2="{MIDDLE}">'
            f"<title>{number(low)} to {number(high)} {figure.unit}</title></line>"
        )
    parts += _marks(figure, scale)
    parts.append(f'<circle class="value {_verdict(figure)}" cx="{at(figure.value):.1f}" cy="{MIDDLE}" r="5"/>')
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">{"".join(parts)}</svg>'


def _marks(figure: Figure, scale: Scale) -> list[str]:
    marks = []
    if figure.floor is not None and figure.floor.value > 0:
        x = scale.at(figure.floor.value)
        marks.append(f'<path class="floor" d="M{x:.1f} {HEIGHT - 8}l5 8h-10z"/>')
    if figure.rival is not None and figure.rival.value > 0:
        x = scale.at(figure.rival.value)
        marks.append(f'<path class="rival" d="M{x:.1f} 8l5 5l-5 5l-5 -5z"/>')
    if figure.target:
        x = scale.at(figure.target)
        marks.append(f'<line class="target" x1="{x:.1f}" x2="{x:.1f}" y1="2" y2="{HEIGHT - 2}"/>')
    return marks


def _verdict(figure: Figure) -> str:
    return {True: "met", False: "missed", None: "plain"}[figure.met]
