"""`dsfast bench`: how fast dsfast is on this machine, in a few seconds."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dsfast.cli.options import output_option, setting_option, with_config
from dsfast.cli.output import note, print_json, say, table
from dsfast.config import Config, make_state_dir

if TYPE_CHECKING:
    from dsfast.bench.figures import Bench, Figure
    from dsfast.bench.measure import Amount


@click.command()
@click.option("--store", metavar="URL", help="A database of its own for this; else an SQLite file, removed afterwards.")
@click.option("--size", type=click.FloatRange(0.001, 1000), default=1.0, show_default=True, help="How much, in times.")
@output_option("table", "json")
@setting_option("--slots", key="worker.slots", about="Tasks that may run at a time.")
@with_config
def bench(config: Config, store: str | None, size: float, output: str) -> None:
    """Measure dsfast on this machine, beside what it does without.

    Runs a chain and a heap of no-op tasks and some processes on a master and a worker in this process, as `dsfast
    run` does, every commit as durable as the database makes it. Beside each figure stands what the machine does without
    dsfast, measured in the same run.
    """
    import uvloop

    from dsfast.bench.measure import Amount

    make_state_dir(config)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=config.state_dir) as folder:  # /tmp may be mere memory
        own = _own(config, Path(folder), store)
        report = uvloop.run(_bench(own, Amount().times(size)))
    if output == "json":
        print_json(report)
    else:
        _show(report)


def _own(config: Config, folder: Path, url: str | None) -> Config:
    """The configuration of a cluster that leaves nothing behind but the rows in a database that was given."""
    worker = replace(
        config.worker, host="127.0.0.1", port=0, log_dir=folder / "logs", work_dir=folder / "work", groups=("default",)
    )
    return replace(
        config,
        store=replace(config.store, url=url or f"sqlite:///{folder}/bench.db"),
        master=replace(config.master, host="127.0.0.1", port=0),
        worker=worker,
    )


async def _bench(config: Config, amount: Amount) -> Bench:
    from dsfast.bench.figures import Bench, machine
    from dsfast.bench.measure import measure
    from dsfast.runtime.embedded import Embedded
    from dsfast.store.floor import durability

    began, url, here = time.monotonic(), config.store.url, machine()
    async with Embedded(config) as embedded:
        figures = await measure(embedded, url, amount, config.worker.slots, lambda text: note(f"{text} ..."))
        durable = await durability(url)
    return Bench(here, url.partition(":")[0], durable, round(time.monotonic() - began, 1), figures)


def _show(report: Bench) -> None:
    here = report.machine
    table(("WHAT", "MEDIAN", "P99", "VARIED", "BESIDE IT", ""), map(_row, report.figures))
    say()
    say(f"{here.cores} cores of {here.cpu}, load {here.load:g} before; {here.system}; Python {here.python}")
    say(f"dsfast {here.dsfast}, {report.durability}; {report.seconds:g} s in all")


def _row(figure: Figure) -> tuple[object, ...]:
    p99 = "" if figure.p99 is None else _text(figure, figure.p99)
    varied = f"{_number(figure.least)} - {_number(figure.most)}"
    return figure.about, _text(figure, figure.value), p99, varied, _text(figure, figure.beside), figure.beside_about


def _text(figure: Figure, value: float) -> str:
    return f"{_number(value)} {figure.unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
