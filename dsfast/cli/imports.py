"""`dsfast import`: workflows of other schedulers become workflow files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dsfast.cli.output import note, safe, say
from dsfast.errors import Problem, UsageError

if TYPE_CHECKING:
    from dsfast.formats.imported import Imported
    from dsfast.model import Workflow

FORMATS = ("auto", "dolphinscheduler", "wfformat")


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="File to write, or a directory; else printed.")
@click.option(
    "--format", "format_", type=click.Choice(FORMATS), default="auto", show_default=True, help="What FILE is."
)
@click.option(
    "--time-scale", default=1.0, show_default=True, type=click.FloatRange(0, math.inf, max_open=True),
    help="Of a trace: how long tasks sleep, as a part of how long they took.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Overwrite files.")
def import_(file: Path, out: Path | None, format_: str, time_scale: float, force: bool) -> None:
    """Convert workflows of other schedulers into workflow files.

    FILE is an export of Apache DolphinScheduler (its JSON), or a trace in WfFormat. What could not be carried over
    is listed. Several workflows become several files: OUT is a directory then.
    """
    from dsfast.formats.dump import dump_yaml

    imported = _read(file, format_, time_scale)
    for sentence in imported.notes:
        note(safe(sentence))
    if out is None:
        if len(imported.workflows) > 1:
            names = f"{len(imported.workflows)} workflows"
            raise UsageError(Problem(f"holds {names}", file=str(file), hint="name a directory for them: -o DIR/"))
        say(dump_yaml(imported.workflows[0]).rstrip("\n"))
        return
    targets = _targets(imported.workflows, out)
    _write([(target, dump_yaml(workflow)) for target, workflow in targets], force)
    say("\n".join(str(target) for target, _ in targets))
    note(f"check what came out: dsfast validate {' '.join(str(target) for target, _ in targets)}")


def _read(file: Path, format_: str, time_scale: float) -> Imported:
    from dsfast.formats.dolphinscheduler import read_export
    from dsfast.formats.wfformat import read_trace

    text = file.read_bytes()
    if format_ == "wfformat" or (format_ == "auto" and _is_trace(text, str(file))):
        return read_trace(text, str(file), time_scale)
    return read_export(text, str(file))


def _is_trace(text: bytes, file: str) -> bool:
    """Whether it is a WfFormat trace: those are an object with a `workflow` in it, exports never have one."""
    from dsfast.formats.imported import read_json

    value = read_json(text, file)
    return isinstance(value, dict) and isinstance(value.get("workflow"), dict)


def _targets(workflows: list[Workflow], out: Path) -> list[tuple[Path, Workflow]]:
    if out.is_dir():
        return [(out / f"{workflow.name}.yaml", workflow) for workflow in workflows]
    if len(workflows) > 1:
        hint = f"mkdir {out}" if not out.exists() else "name another"
        raise UsageError(Problem(f"{len(workflows)} workflows need a directory, which {out} is not", hint=hint))
    return [(out, workflows[0])]


def _write(files: list[tuple[Path, str]], force: bool) -> None:
    """Write all of them, or none if one is there already."""
    there = [path for path, _ in files if path.exists()]
    if there and not force:
        raise UsageError(Problem("is there already", file=str(path), hint="--force overwrites it") for path in there)
    try:
        for path, text in files:
            path.write_text(text)
    except OSError as error:
        raise UsageError(Problem(f"cannot be written: {error.strerror}", file=str(error.filename))) from None
