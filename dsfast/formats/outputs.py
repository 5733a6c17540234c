"""What templates read: every param must be declared, every task whose outputs are read must have ended before."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import msgspec

from dsfast._core.dag import Dag
from dsfast.formats.findings import Findings, Path
from dsfast.formats.settings import Settings
from dsfast.model import Task, Workflow
from dsfast.templates import is_template, reads, strings

BATCH = 4096  # tasks asked about in one walk over the graph: a mask of 512 bytes per task
ROOTS = ("params", "tasks", "run", "task")  # what a worker fills templates in with
_DASHED = re.compile(r"(?:params|tasks)\.([\w-]*-\w+)")  # tasks.load-data is tasks.load minus data


def check_reads(workflow: Workflow, dag: Dag | None, settings: Settings, findings: Findings) -> None:
    """Add every template that cannot be filled in; without a graph the order of tasks is not looked at."""
    reading = _Reading(workflow, findings)
    for position, task in enumerate(workflow.tasks):
        templates = list(_templates(task, settings))
        if templates:
            reading.check(position, templates)
    if dag is not None and reading.uses:
        reading.check_order(dag)


def _templates(task: Task, settings: Settings) -> Iterator[tuple[Path, str]]:
    """The strings of the task that are filled in, and where they stand."""
    if task.env:
        for name, value in task.env.items():
            if is_template(value):
                yield ("env", name), value
    known = settings.known(task.type)
    if known is None or not known.type.templated or not is_template(bytes(task.config)):
        return
    try:
        config = msgspec.json.decode(task.config, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):  # found already
        return
    for name in known.type.templated:
        for text in strings(config.get(name)):
            if is_template(text):
                yield ("config", name), text


class _Use(NamedTuple):
    """A task reads the outputs of another that it does not need directly."""

    reader: int
    read: int
    path: Path


class _Reading:
    """Checks the templates of one workflow."""

    def __init__(self, workflow: Workflow, findings: Findings) -> None:
        self.uses: list[_Use] = []
        self._params = workflow.params
        self._tasks = workflow.tasks
        self._index = {task.name: position for position, task in enumerate(workflow.tasks)}
        self._findings = findings

    def check(self, position: int, templates: list[tuple[Path, str]]) -> None:
        """Check the syntax of a task's templates and the names in them; note the tasks read for `check_order`."""
        needs = frozenset(self._tasks[position].needs)
        for path, text in templates:
            at: Path = ("tasks", position, *path)
            if not _check_syntax(text, at, self._findings):
                continue
            for root, name in dict.fromkeys(reads(text)):
                if name is None:
                    self._refuse_unnamed(root, at)
                elif root == "params":
                    self._check_param(name, at)
                elif name not in self._index:
                    self._findings.add(at, f"there is no task {name!r}", self._task_hint(name, text))
                elif name not in needs:
                    self.uses.append(_Use(position, self._index[name], at))

    def check_order(self, dag: Dag) -> None:
        """Check that every task whose outputs are read comes before the one that reads them."""
        before = self._before(dag)
        for use in self.uses:
            name = self._tasks[use.read].name
            if use.read == use.reader:
                self._findings.add(use.path, "a task cannot read its own outputs")
            elif (use.reader, use.read) not in before:
                hint = f"add {name!r} to `needs` to read its outputs"
                self._findings.add(use.path, f"{name!r} need not have ended when this task starts", hint)

    def _refuse_unnamed(self, root: str, at: Path) -> None:
        example = "params.NAME" if root == "params" else 'tasks.NAME.KEY, or tasks["NAME"].KEY'
        self._findings.add(at, f"which of the {root} is read must be clear before the run", f"write {example}")

    def _check_param(self, name: str, at: Path) -> None:
        if name not in self._params:
            hint = self._findings.near(name, self._params, "declare it under `params`")
            self._findings.add(at, f"there is no param {name!r}", hint)

    def _task_hint(self, name: str, text: str) -> str | None:
        longer = (known for known in self._index if known.startswith(name) and f"tasks.{known}" in text)
        dotted = next(longer, None)
        return f'write tasks["{dotted}"]' if dotted else self._findings.near(name, self._index)

    def _before(self, dag: Dag) -> set[tuple[int, int]]:
        """The pairs (reader, read) of `uses` in which the reader comes after the read."""
        wanted = sorted({use.read for use in self.uses})
        order = dag.order()
        pairs: set[tuple[int, int]] = set()
        for start in range(0, len(wanted), BATCH):
            bits = {node: 1 << bit for bit, node in enumerate(wanted[start : start + BATCH])}
            masks = _ancestors(dag, order, bits)
            pairs.update((use.reader, use.read) for use in self.uses if masks[use.reader] & bits.get(use.read, 0))
        return pairs


def _ancestors(dag: Dag, order: list[int], bits: dict[int, int]) -> list[int]:
    """For every node the bits of those that come before it."""
    masks = [0] * len(order)
    for node in order:
        passed_on = masks[node] | bits.get(node, 0)
        if passed_on:
            for successor in dag.successors(node):
                masks[successor] |= passed_on
    return masks


def _check_syntax(text: str, at: Path, findings: Findings) -> bool:
    from minijinja import TemplateError  # not needed where nothing is filled in

    environment = _environment()
    try:
        roots = environment.undeclared_variables_in_str(text)
    except TemplateError as error:
        line = f" in its line {error.line}" if error.line and "\n" in text else ""
        quoting = "text that is not a template goes between {% raw %} and {% endraw %}"
        findings.add(at, f"is not a template that can be filled in: {error.detail or error.message}{line}", quoting)
        return False
    dashed = {word for name in _DASHED.findall(text) for word in name.split("-")[1:]}  # said with the name's finding
    for root in sorted(roots - environment.globals.keys() - dashed - {*ROOTS, "loop"}):
        hint = findings.near(root, ROOTS, "it reads params.NAME, tasks.NAME.KEY, run.id, task.name and task.attempt")
        findings.add(at, f"a template has no {root!r}", hint)
    return True


@cache
def _environment() -> Any:
    """As the one that fills templates in, as far as syntax goes."""
    from minijinja import Environment

    return Environment(comment_start_string="{{#", comment_end_string="#}}")
