"""From the JSON that pytest-benchmark writes to sections of figures, one section for each file."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.figures import Beside, Figure
from dsfast.bench.figures import Machine

ROOT = Path(__file__).parents[2]
MEASURED_WHOLE = "median of whole rounds"


class Section(msgspec.Struct, frozen=True):
    """What one file asks, and its answers; `notes` are numbers that have no figure of their own."""

    file: str
    question: str
    command: str
    figures: list[Figure]
    notes: dict[str, dict[str, float]]


class Report(msgspec.Struct, frozen=True):
    """All of it. `format` grows when fields change their meaning."""

    format: int
    taken_at: str
    seconds: float
    short: bool
    commit: str
    machine: Machine
    load_after: float
    versions: dict[str, str]
    failed: list[str]
    sections: list[Section]


def sections(benchmarks: list[dict[str, Any]]) -> list[Section]:
    """One for each file, in the order in which they ran."""
    by_file: dict[str, list[dict[str, Any]]] = {}
    for each in benchmarks:
        by_file.setdefault(each["fullname"].partition("::")[0], []).append(each)
    return [_section(file, each) for file, each in by_file.items()]


def _section(file: str, benchmarks: list[dict[str, Any]]) -> Section:
    figures: list[Figure] = []
    notes: dict[str, dict[str, float]] = {}
    for each in benchmarks:
        name, info = each["name"].removeprefix("test_").replace("_", " "), each["extra_info"]
        found = list(_figures(name, info, each["stats"]))
        figures += found
        told = {key.replace("_", " "): float(value) for key, value in info.items() if isinstance(value, int | float)}
        if told and not any("figures" in info or figure.unit == "ns" for figure in found):
            notes[name] = told
    command = f".venv/bin/python -m pytest {file} --benchmark-only"
    return Section(file, _question(ROOT / file), command, figures, notes)


def _question(file: Path) -> str:
    """The first line of a file's docstring."""
    return (ast.get_docstring(ast.parse(file.read_text())) or file.name).partition("\n")[0]


def _figures(name: str, info: Mapping[str, Any], stats: Mapping[str, float]) -> Iterator[Figure]:
    if "figures" in info:
        yield from msgspec.convert(info["figures"], list[Figure])
    elif "ns_per_operation" in info:
        yield _beside(name, info, stats)
    elif compared := {key: value for key, value in info.items() if isinstance(value, dict)}:
        yield from (_compared(name, what, each) for what, each in compared.items())
    else:
        milliseconds = {key: stats[key] * 1e3 for key in ("median", "min", "max")}
        yield Figure(
            what=f"{name}: {MEASURED_WHOLE}",
            value=milliseconds["median"],
            unit="ms",
            count=int(stats["rounds"]),
            least=milliseconds["min"] if stats["rounds"] > 1 else None,
            most=milliseconds["max"] if stats["rounds"] > 1 else None,
        )


def _beside(name: str, info: Mapping[str, Any], stats: Mapping[str, float]) -> Figure:
    """Of the fixture `beside`: one operation, and what the slowest other takes for it."""
    value = float(info["ns_per_operation"])
    others = {
        key.removeprefix("ns_per_operation_"): float(each)
        for key, each in info.items()
        if key.startswith("ns_per_operation_")
    }
    floor = Beside(others.pop("floor"), "the bare driver") if "floor" in others else None
    rival = min(others.items(), key=lambda each: each[1], default=None)
    return Figure(
        what=name,
        value=value,
        unit="ns",
        count=int(stats["rounds"]),
        least=value * stats["min"] / stats["median"],
        most=value * stats["max"] / stats["median"],
        floor=floor,
        rival=Beside(rival[1], rival[0].replace("_", " ")) if rival else None,
    )


def _compared(name: str, what: str, each: Mapping[str, Any]) -> Figure:
    """Of `bench_baseline.py`."""
    return Figure(
        what=f"{what} ({name})",
        value=float(each["dsfast"]),
        unit=str(each["unit"]),
        rival=Beside(float(each["baseline"]), "the polling design"),
    )
