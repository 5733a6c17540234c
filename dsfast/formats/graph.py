"""A workflow as a picture: as text for a terminal, as DOT for Graphviz, as SVG for everything else."""

from __future__ import annotations

import json

from dsfast.formats.layout import graph_of
from dsfast.formats.svg import draw_svg
from dsfast.formats.tree import draw_text
from dsfast.model import Workflow

__all__ = ["draw_dot", "draw_svg", "draw_text"]


def draw_dot(workflow: Workflow) -> str:
    """The workflow in the DOT language."""
    dag = graph_of(workflow)
    lines = [
        f"digraph {_quoted(workflow.name)} {{",
        "  rankdir=LR;",
        '  node [shape=box, style=rounded, fontname="sans-serif"];',
    ]
    for position, task in enumerate(workflow.tasks):
        look = "" if task.enabled else ', style="rounded,dashed", fontcolor=gray'
        lines.append(f"  t{position} [label={_quoted(f'{task.name}{chr(10)}{task.type}')}{look}];")
    lines += [f"  t{node} -> t{successor};" for node in range(len(dag)) for successor in dag.successors(node)]
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
