"""What all benchmarks share: a subject timed beside its oracle, in turns, so that both see the same machine."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.figures import Figure
from benchmarks.figures import line as text_of
from benchmarks.stage import Place

ROUNDS = 7  # odd, so that the median is a round that happened
LINES: pytest.StashKey[list[str]] = pytest.StashKey()
FIGURES: pytest.StashKey[dict[str, list[str]]] = pytest.StashKey()  # by the test that tells them

Work = Callable[[], Callable[[], Any]]


@pytest.fixture
def beside(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> Callable[..., None]:
    """`beside(operations, subject, **oracles)`: times one and all, records ns per operation and the ratios.

    Each is a function that prepares, untimed, and returns the work to time. The clock is the one that a mark
    `benchmark(timer=...)` names, else wall time.
    """
    marker = request.node.get_closest_marker("benchmark")
    clock = marker.kwargs.get("timer", time.perf_counter) if marker else time.perf_counter

    def run(operations: int, subject: Work, **oracles: Work) -> None:
        seconds: dict[str, list[float]] = {name: [] for name in oracles}

        def prepare() -> tuple[tuple[Callable[[], Any]], dict[str, Any]]:
            for name, oracle in oracles.items():
                seconds[name].append(timed(oracle(), clock))
            return (subject(),), {}

        benchmark.pedantic(lambda work: work(), setup=prepare, rounds=ROUNDS, warmup_rounds=1)
        if benchmark.stats is None:  # --benchmark-disable runs the work once, to see that it can
            return
        ours = benchmark.stats.stats.median / operations * 1e9
        theirs = {name: statistics.median(rounds) / operations * 1e9 for name, rounds in seconds.items()}
        benchmark.extra_info["ns_per_operation"] = round(ours, 1)
        for name, ns in theirs.items():
            benchmark.extra_info[f"ns_per_operation_{name}"] = round(ns, 1)
            benchmark.extra_info[f"times_faster_than_{name}"] = round(ns / ours, 2)
        request.config.stash.setdefault(LINES, []).append(line(request.node.name, ours, theirs))

    return run


def timed(work: Callable[[], Any], clock: Callable[[], float]) -> float:
    gc.collect()
    begin = clock()
    work()
    return clock() - begin


def line(name: str, ours: float, theirs: dict[str, float]) -> str:
    beside = "".join(f"   {other} {ns:,.0f} ns ({ns / ours:.1f}x)" for other, ns in theirs.items())
    return f"{name.removeprefix('test_'):44} {ours:8,.0f} ns{beside}"


@pytest.fixture
def tell(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> Callable[..., None]:
    """`tell(figure, ...)`: keep figures with the result, and print them at the end."""

    def keep(*figures: Figure) -> None:
        if benchmark.disabled:  # what was measured is whether it still works
            return
        benchmark.extra_info.setdefault("figures", []).extend(map(msgspec.to_builtins, figures))
        request.config.stash.setdefault(FIGURES, {}).setdefault(request.node.name, []).extend(map(text_of, figures))

    return keep


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One worker and several; a look at whether a file still works needs one cluster."""
    if "workers" in metafunc.fixturenames:
        metafunc.parametrize("workers", [3] if metafunc.config.getoption("benchmark_disable") else [1, 3])


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A fresh database that also says who is alive."""
    if request.param == "sqlite":
        return Place("sqlite", f"sqlite:///{tmp_path}/db", f"database+sqlite:///{tmp_path}/registry.db")
    url = request.getfixturevalue("postgres_server").new_migrated_database()
    return Place("postgresql", url, f"database+{url}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash.get(LINES, []):
        terminalreporter.section("median time of one operation")
        for text in lines:
            terminalreporter.write_line(text)
    if figures := config.stash.get(FIGURES, {}):
        terminalreporter.section("figures")
        for name, texts in figures.items():
            terminalreporter.write_line(name.removeprefix("test_"))
            for text in texts:
                terminalreporter.write_line(f"  {text}")
