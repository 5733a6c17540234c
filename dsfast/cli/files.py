"""`dsfast validate` and `graph`: workflow files, without a cluster."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from dsfast.cli.exits import Exit
from dsfast.cli.output import note, print_json, safe, say
from dsfast.errors import Problem, UsageError


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--format", "format_", type=click.Choice(["text", "json", "github"]), default="text", show_default=True,
    help="How to print problems; github makes annotations of a pull request.",
)  # fmt: skip
def validate(files: tuple[str, ...], format_: str) -> None:
    """Report every mistake in workflow files. Exits with 1 if there is one."""
    found = {file: _problems(file) for file in files}
    if format_ == "json":
        print_json([{"file": file, "valid": not problems, "problems": problems} for file, problems in found.items()])
    else:
        for problem in (problem for problems in found.values() for problem in problems):
            say(_annotation(problem) if format_ == "github" else safe(problem))
    wrong = [file for file, problems in found.items() if problems]
    if format_ == "text":
        _sum_up(len(files), len(wrong), sum(map(len, found.values())))
    click.get_current_context().exit(Exit.ERROR if wrong else Exit.OK)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--format", "format_", type=click.Choice(["text", "dot", "svg"]), help="Else what the name of OUT says.")
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write; else printed.")
def graph(file: str, format_: str | None, out: Path | None) -> None:
    """Draw a workflow: as text for terminals, as DOT for Graphviz, or as SVG."""
    from dsfast.formats.graph import draw_dot, draw_svg, draw_text
    from dsfast.formats.yaml_workflow import load_file

    draw = {"text": draw_text, "dot": draw_dot, "svg": draw_svg}[format_ or _format_of(out)]
    drawing = draw(load_file(file))
    if out is None:
        say(drawing.rstrip("\n"))
        return
    try:
        out.write_text(drawing)
    except OSError as error:
        raise UsageError(Problem(f"cannot be written: {error.strerror}", file=str(out))) from None
    note(f"drawn in {out}")


def _format_of(out: Path | None) -> str:
    return {".dot": "dot", ".gv": "dot", ".svg": "svg"}.get(out.suffix if out else "", "text")


def _problems(file: str) -> list[Problem]:
    from dsfast.formats.yaml_workflow import load_file

    try:
        load_file(file)
    except UsageError as error:
        return list(error.problems)
    return []


def _sum_up(files: int, wrong: int, problems: int) -> None:
    what = "1 file" if files == 1 else f"{files} files"
    if wrong:
        note(f"{problems} problem{'s' if problems > 1 else ''} in {wrong} of {what}")
    else:
        note(f"{what}: no problems")


def _annotation(problem: Problem) -> str:
    """A workflow command of GitHub Actions."""
    place = [f"file={_escaped(problem.file, ',:')}"] if problem.file else []
    place += [f"line={problem.line}"] if problem.line else []
    text = ": ".join(part for part in (problem.field, problem.message) if part)
    text += f" ({problem.hint})" if problem.hint else ""
    return f"::error {','.join(place)}::{_escaped(text)}"


def _escaped(text: str, more: Iterable[str] = "") -> str:
    for letter in ("%", "\r", "\n", *more):
        text = text.replace(letter, f"%{ord(letter):02X}")
    return text
