"""A workflow as a drawing in SVG: one file, nothing from outside, dark or light as its reader prefers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

from dsfast.formats.layout import Layers, graph_of, heights, make_layers
from dsfast.formats.letters import letters
from dsfast.model import Task, Workflow

BOX_HEIGHT = 40.0
ROW_GAP = 14.0
BEND_GAP = 10.0
MARGIN = 24.0
TITLE_HEIGHT = 56.0
LABEL_WIDTH_MAX = 30.0  # in letters; longer names are cut, and told in full when pointed at
LETTER = 7.4  # width of a usual letter of 12.5 px
GUTTER_MIN, GUTTER_MAX = 48.0, 160.0  # between columns: room for the lines to part

_STYLE = """
svg { background: #ffffff; font-family: ui-sans-serif, system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif }
.title { font-size: 16px; font-weight: 600; fill: #1f2328 } .count { font-size: 12px; fill: #656d76 }
.line { fill: none; stroke: #9aa4b2; stroke-width: 1.3 } .tip { fill: #9aa4b2 }
.box { fill: #f6f8fa; stroke: #8c959f; stroke-width: 1.2 } .bar { fill: #8c959f }
.name { font-size: 12.5px; font-weight: 500; fill: #1f2328 } .type { font-size: 10.5px; fill: #656d76 }
.off .box { stroke-dasharray: 4 3; fill: none } .off .name { fill: #8c959f }
.succeeded .bar { fill: #1a7f37 } .running .bar { fill: #0969da } .dispatched .bar, .queued .bar { fill: #54aeff }
.failed .bar, .killed .bar { fill: #cf222e } .failover .bar, .delayed .bar { fill: #bf8700 }
@media (prefers-color-scheme: dark) {
svg { background: #0d1117 } .title, .name { fill: #e6edf3 } .count, .type { fill: #8d96a0 }
.line { stroke: #57606a } .tip { fill: #57606a } .box { fill: #161b22; stroke: #57606a } .bar { fill: #57606a }
.off .name { fill: #6e7681 } }
"""

_TIP = """<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path class="tip" d="M0,0.8 L8,4 L0,7.2 Z"/></marker></defs>"""


def draw_svg(workflow: Workflow, states: Mapping[str, str] | None = None) -> str:
    """The workflow as an SVG document; with states by name of task, boxes are coloured by them."""
    layers = make_layers(graph_of(workflow))
    height = [at + TITLE_HEIGHT + MARGIN for at in heights(layers, BOX_HEIGHT + ROW_GAP, BEND_GAP)]
    lefts, widths = _columns(workflow, layers)
    total_width = max(lefts[-1] + widths[-1] + MARGIN, MARGIN * 2 + len(workflow.name) * 10)
    total_height = max(height) + BOX_HEIGHT / 2 + MARGIN
    size = f'width="{total_width:.0f}" height="{total_height:.0f}" viewBox="0 0 {total_width:.0f} {total_height:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{_text(workflow.name)}</title><style>{_STYLE}</style>{_TIP}",
        f'<text class="title" x="{MARGIN}" y="34">{_text(workflow.name)}</text>',
        f'<text class="count" x="{MARGIN}" y="52">{_count(workflow, layers)}</text>',
        *_lines(layers, height, lefts, widths),
        *_boxes(workflow, states or {}, layers, height, lefts, widths),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _count(workflow: Workflow, layers: Layers) -> str:
    edges = sum(len(task.needs) for task in workflow.tasks)
    return f"{len(workflow.tasks):,} tasks, {edges:,} edges, {len(layers.rows):,} layers"


def _columns(workflow: Workflow, layers: Layers) -> tuple[list[float], list[float]]:
    """Left edge and width of every layer's column."""
    lefts: list[float] = []
    widths: list[float] = []
    at = MARGIN
    for row in layers.rows:
        labels = [_label_width(workflow.tasks[node]) for node in row if node < layers.tasks]
        crossing = sum(len(layers.after[node]) for node in row)
        lefts.append(at)
        widths.append(max(labels, default=40.0))
        at += widths[-1] + min(GUTTER_MIN + 2.0 * crossing, GUTTER_MAX)
    return lefts, widths


def _label_width(task: Task) -> float:
    return max(letters(_cut(task.name)) * LETTER, letters(_cut(task.type)) * LETTER * 0.85) + 26


def _lines(layers: Layers, height: list[float], lefts: list[float], widths: list[float]) -> Iterator[str]:
    for node, after in enumerate(layers.after):
        column = layers.layer[node]
        start, level = lefts[column] + widths[column], height[node]
        if node >= layers.tasks:
            yield f'<path class="line" d="M{lefts[column]:.1f},{level:.1f}H{start:.1f}"/>'
        for other in after:
            end, other_level = lefts[layers.layer[other]], height[other]
            middle = (start + end) / 2
            curve = f"C{middle:.1f},{level:.1f} {middle:.1f},{other_level:.1f} {end:.1f},{other_level:.1f}"
            tip = ' marker-end="url(#tip)"' if other < layers.tasks else ""
            yield f'<path class="line" d="M{start:.1f},{level:.1f}{curve}"{tip}/>'


def _boxes(
    workflow: Workflow,
    states: Mapping[str, str],
    layers: Layers,
    height: list[float],
    lefts: list[float],
    widths: list[float],
) -> Iterator[str]:
    for node, task in enumerate(workflow.tasks):
        column = layers.layer[node]
        state = states.get(task.name, "")
        kind = f"{state} off".strip() if not task.enabled else state
        told = f"{task.name} ({task.type}{', disabled' if not task.enabled else ''}{f', {state}' if state else ''})"
        yield (
            f'<g class="{_text(kind)}" transform="translate({lefts[column]:.1f},{height[node] - BOX_HEIGHT / 2:.1f})">'
            f"<title>{_text(told)}</title>"
            f'<rect class="box" width="{widths[column]:.1f}" height="{BOX_HEIGHT:.0f}" rx="6"/>'
            f'<rect class="bar" x="5" y="8" width="3" height="{BOX_HEIGHT - 16:.0f}" rx="1.5"/>'
            f'<text class="name" x="15" y="17">{_text(_cut(task.name))}</text>'
            f'<text class="type" x="15" y="31">{_text(_cut(task.type))}</text></g>'
        )


def _cut(text: str) -> str:
    """The text, without its middle if it is too long for a box: names that begin alike differ at their ends."""
    if letters(text) <= LABEL_WIDTH_MAX:
        return text
    start = end = 0
    width = 1.0
    while True:
        letter = text[start] if start <= end else text[-1 - end]
        width += letters(letter)
        if width > LABEL_WIDTH_MAX:
            return f"{text[:start]}…{text[len(text) - end :]}"
        start, end = (start + 1, end) if start <= end else (start, end + 1)


def _text(text: str) -> str:
    return escape(text, quote=True)
