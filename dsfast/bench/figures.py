"""What `dsfast bench` says: figures, each beside another, and where they were taken."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec

from dsfast import __version__


class Figure(msgspec.Struct, frozen=True):
    """One answer. `value` is a median, `least` and `most` what it varied between, `p99` of single durations.

    `beside` is what the same machine does without dsfast, measured in the same run; `ratio` is `value` by `beside`.
    """

    name: str
    about: str
    unit: str
    value: float
    least: float
    most: float
    p99: float | None
    beside: float
    beside_about: str
    ratio: float


class Machine(msgspec.Struct, frozen=True):
    """Where it was measured. `load` is what the machine was busy with before."""

    system: str
    cpu: str
    cores: int
    load: float
    python: str
    dsfast: str


class Bench(msgspec.Struct, frozen=True):
    """One run of `dsfast bench`."""

    machine: Machine
    store: str
    durability: str
    seconds: float
    figures: list[Figure]


def machine() -> Machine:
    """This machine."""
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        load=round(os.getloadavg()[0], 2),
        python=platform.python_version(),
        dsfast=__version__,
    )


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def duration(name: str, about: str, seconds: Sequence[float], beside: Sequence[float], beside_about: str) -> Figure:
    """A figure in microseconds, of single durations beside others."""
    ordered = sorted(seconds)
    middle, other = statistics.median(ordered), statistics.median(beside)
    return Figure(
        name=name,
        about=about,
        unit="us",
        value=round(middle * 1e6, 1),
        least=round(ordered[0] * 1e6, 1),
        most=round(ordered[-1] * 1e6, 1),
        p99=round(ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))] * 1e6, 1),
        beside=round(other * 1e6, 1),
        beside_about=beside_about,
        ratio=round(middle / other, 2),
    )


def rate(name: str, about: str, rates: Sequence[float], beside: float, beside_about: str) -> Figure:
    """A figure per second, of some rounds beside another rate."""
    middle = statistics.median(rates)
    return Figure(
        name=name,
        about=about,
        unit="per s",
        value=round(middle),
        least=round(min(rates)),
        most=round(max(rates)),
        p99=None,
        beside=round(beside),
        beside_about=beside_about,
        ratio=round(middle / beside, 2),
    )
