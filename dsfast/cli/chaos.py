"""`dsfast chaos`: a cluster of its own is broken on purpose, and judged."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsfast.cli.exits import Exit
from dsfast.cli.output import say, span, table

if TYPE_CHECKING:
    from dsfast.chaos.judge import Verdict

FINDINGS_SHOWN = 20
SEEDS = 1_000_000


class Span(click.ParamType[tuple[float, float]]):
    """Seconds as "2-10" or "5"."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        try:
            numbers = [float(part) for part in str(value).split("-")]
            low, high = numbers if len(numbers) == 2 else (numbers[0], numbers[0])
        except ValueError:
            self.fail(f'{value!r} is not a span of seconds; write such as "2-10"', param, ctx)
        if len(numbers) > 2 or not 0 < low <= high:
            self.fail(f'{value!r} is not a span of seconds; write such as "2-10"', param, ctx)
        return low, high


@click.command()
@click.option("--minutes", type=click.FloatRange(0.05, 10_000), default=1.0, show_default=True, help="How long.")
@click.option("--seed", type=int, help="What decides about faults and load; by chance without it.")
@click.option("--every", type=Span(), default="2-10", show_default=True, help="Seconds between two faults.")
@click.option("--faults", default="", metavar="LIST", help="Kinds of faults, separated by commas; all without it.")
@click.option("--masters", type=click.IntRange(1, 9), default=3, show_default=True, help="How many masters.")
@click.option("--workers", type=click.IntRange(1, 20), default=5, show_default=True, help="How many workers.")
@click.option("--slots", type=click.IntRange(1, 64), default=4, show_default=True, help="Slots of each worker.")
@click.option("--runs", type=click.IntRange(1, 1000), default=12, show_default=True, help="Unfinished runs at a time.")
@click.option("--lease", type=click.FloatRange(1, 60), default=4.0, show_default=True, help="Seconds of a session.")
@click.option("--store", default="", metavar="URL", help="A PostgreSQL database of yours, for this alone.")
@click.option(
    "--registry",
    default="zookeeper",
    show_default=True,
    metavar="URL",
    help='A registry of yours; or "zookeeper" (three servers are started) or "database" (leases in the store).',
)
@click.option("--partitions/--no-partitions", default=True, help="Whether to use network namespaces.")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="Where to keep what is seen.")
@click.option("--keep", is_flag=True, help="Keep the folder even if nothing is found.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the result there.")
def chaos(**asked: Any) -> None:
    """Break a cluster on purpose, and judge it.

    Starts masters, workers, an api, PostgreSQL and ZooKeeper on this machine, keeps them under load, kills, pauses,
    cuts off and restarts them by the seed, heals everything, waits for every run to end, and looks whether one was
    lost or a task ran twice. Exits with 1 if so, with the story and all that was seen in a folder.
    """
    import msgspec

    from dsfast.chaos.drive import Order, run_chaos

    keep, json_file = asked.pop("keep"), asked.pop("json_file")
    seed = asked.pop("seed")
    faults = tuple(name.strip() for name in asked.pop("faults").split(",") if name.strip())
    order = Order(
        seed=random.randrange(SEEDS) if seed is None else seed,
        faults=faults,
        lease_seconds=asked.pop("lease"),
        keep=keep,
        **asked,
    )
    verdict = run_chaos(order, say)
    _show(verdict)
    if json_file is not None:
        json_file.write_bytes(msgspec.json.encode(verdict))
    click.get_current_context().exit(Exit.ERROR if verdict.findings else Exit.OK)


def _show(verdict: Verdict) -> None:
    say()
    table(("FAULT", "TIMES"), [(kind, times) for kind, times in sorted(verdict.faults.items())])
    say()
    table(("WHAT", "COUNT"), _rows(verdict))
    for finding in verdict.findings[:FINDINGS_SHOWN]:
        say(f"{finding.kind}: {finding.where}{finding.sentence}")
    if len(verdict.findings) > FINDINGS_SHOWN:
        say(f"and {len(verdict.findings) - FINDINGS_SHOWN} more")
    if verdict.story:
        say(verdict.story)
    if verdict.folder:
        say(f"kept: {verdict.folder}")


def _rows(verdict: Verdict) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        ("runs", f"{verdict.runs} ({', '.join(f'{n} {state}' for state, n in sorted(verdict.states.items()))})"),
        ("tasks", verdict.tasks),
        ("attempts", verdict.attempts),
        ("processes started", verdict.started),
        ("failovers", verdict.failovers),
        ("daemons started again", sum(verdict.respawned.values())),
        ("faults that found nobody", sum(verdict.missed.values())),
    ]
    from dsfast.chaos.judge import FINDING_KINDS

    rows += [(kind, verdict.count(kind)) for kind in FINDING_KINDS]
    for what, seconds in (
        ("worker killed, task runs elsewhere", verdict.worker_kill_seconds),
        ("master killed, run has another", verdict.master_kill_seconds),
    ):
        if seconds:
            middle, high = (span(seconds[int(len(seconds) * share)]) for share in (0.5, 0.99))
            rows.append((what, f"p50 {middle}, p99 {high} ({len(seconds)})"))
    for role, (lived, bytes_, fds) in sorted(verdict.growth.items()):
        rows.append((f"growth of {role} in {lived:.0f} s", f"{bytes_ / 1048576:+.1f} MiB, {fds:+d} descriptors"))
    return rows
