"""Printing: aligned columns for people, JSON for programs. Colour only on a terminal, and not if NO_COLOR is set."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from dsfast.views import RunView

STATE_COLORS = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "cancelling": "yellow",
    "killed": "yellow",
    "running": "cyan",
    "dispatched": "cyan",
    "delayed": "magenta",
    "failover": "magenta",
}


def colorful(stream: TextIO) -> bool:
    """Whether to send colours there."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def say(text: str = "") -> None:
    """Print to standard output."""
    click.echo(text, color=colorful(sys.stdout))


def note(text: str) -> None:
    """Print to standard error: what people should know and programs should not parse."""
    click.echo(text, err=True, color=colorful(sys.stderr))


def colored(state: str) -> str:
    """A state word in its colour."""
    return click.style(state, fg=STATE_COLORS.get(state))


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print aligned columns, states in their colours; cells are made safe for terminals."""
    cells = [[safe(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    say(click.style("  ".join(map(str.ljust, header, widths)).rstrip(), bold=True))
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        say("  ".join(_in_color(title, cell) for title, cell in zip(header, padded, strict=True)).rstrip())


def _in_color(title: str, cell: str) -> str:
    return click.style(cell, fg=STATE_COLORS.get(cell.strip())) if title == "STATE" else cell


def safe(cell: object) -> str:
    """A cell as printable text: control characters of names and reasons must not reach a terminal."""
    text = "-" if cell is None or cell == "" else str(cell)
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def span(seconds: float | None) -> str:
    """A duration for people."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def local(timestamp: str | None) -> str:
    """A time of the JSON as this machine's clock shows it."""
    return f"{datetime.fromisoformat(timestamp).astimezone():%Y-%m-%d %H:%M:%S}" if timestamp else ""


def counted(counts: dict[str, int]) -> str:
    """Counts by state, for people: "3 succeeded, 1 failed"."""
    return ", ".join(f"{number} {word}" for word, number in counts.items()) or "no tasks"


def end_line(run: RunView) -> str:
    """One line about a run that has ended."""
    why = f" ({safe(run.reason)})" if run.reason else ""
    took = span(run.duration_seconds) or "no time"
    return f"run {run.id} {colored(run.state)} in {took}{why}: {counted(run.counts)}"


def print_json(view: object) -> None:
    """Print as JSON on one line."""
    import msgspec

    say(msgspec.json.encode(view).decode())


def print_json_lines(views: Iterable[object]) -> None:
    """Print each as JSON on a line of its own."""
    for view in views:
        print_json(view)
