"""Where the tasks of a workflow stand in a drawing: in layers from left to right, few crossings, short lines.

Theory of operation. A task's layer is the longest way to it, so every line leads to the right. Lines that pass
layers get a bend in each, shared by all lines of one task, which takes part in everything like a small task; so
lines go between boxes and not through them. Sweeps over the layers, there and back, sort each by the mean place of
its neighbours (the barycentre method). Heights come from more such sweeps: every node wants to be level with its
neighbours, order and distances are kept, and the least sum of squared deviations under that is found by pooling
adjacent violators.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from dsfast._core.dag import Dag
from dsfast.model import Workflow

ORDER_SWEEPS = 6  # more change little
HEIGHT_SWEEPS = 6
BENDS_MAX = 30_000  # of all lines together; beyond that long lines go straight, which costs no time
BEND_WEIGHT = 3.0  # how much more a bend resists being moved than a task: long lines look better straight


@dataclass(slots=True)
class Layers:
    """Tasks and bends by layer. Nodes from `tasks` on are bends; lines lead from each node to those `after` it."""

    tasks: int
    layer: list[int]
    after: list[list[int]]
    before: list[list[int]] = field(default_factory=list)
    rows: list[list[int]] = field(default_factory=list)


def graph_of(workflow: Workflow) -> Dag:
    """The tasks by position. Raises dag.CycleError and KeyError for what `check` refuses."""
    index = {task.name: position for position, task in enumerate(workflow.tasks)}
    sources, targets = array("i"), array("i")
    for position, task in enumerate(workflow.tasks):
        sources.extend(index[need] for need in task.needs)
        targets.extend([position] * len(task.needs))
    return Dag(len(workflow.tasks), sources, targets)


def layer_of(dag: Dag) -> list[int]:
    """The layer of every node: one more than the highest of those before it; roots right before what needs them."""
    layer = [0] * len(dag)
    order = dag.order()
    for node in order:
        for successor in dag.successors(node):
            layer[successor] = max(layer[successor], layer[node] + 1)
    for node in order:
        successors = dag.successors(node)
        if successors and not dag.predecessors(node):
            layer[node] = min(layer[successor] for successor in successors) - 1
    return layer


def make_layers(dag: Dag) -> Layers:
    """Layers with bends, each in an order that has few crossings."""
    layer = layer_of(dag)
    layers = Layers(len(layer), layer, [dag.successors(node) for node in range(len(layer))])
    longest = [max((layer[other] for other in after), default=0) for after in layers.after]
    if sum(max(last - layer[node] - 1, 0) for node, last in enumerate(longest)) <= BENDS_MAX:
        for node in range(layers.tasks):
            _bend(layers, node)
    layers.before = [[] for _ in layer]
    for node, after in enumerate(layers.after):
        for other in after:
            layers.before[other].append(node)
    _fill_rows(layers, dag)
    for sweep in range(ORDER_SWEEPS):
        _sort_rows(layers, forwards=sweep % 2 == 0)
    return layers


def _bend(layers: Layers, node: int) -> None:
    """Lead the long lines of a task over one bend in each layer that they pass."""
    here, far = node, [other for other in layers.after[node] if layers.layer[other] > layers.layer[node] + 1]
    layers.after[node] = [other for other in layers.after[node] if other not in set(far)]
    while far:
        bend = len(layers.layer)
        column = layers.layer[here] + 1
        layers.layer.append(column)
        layers.after[here].append(bend)
        layers.after.append([other for other in far if layers.layer[other] == column + 1])
        here, far = bend, [other for other in far if layers.layer[other] > column + 1]


def _fill_rows(layers: Layers, dag: Dag) -> None:
    """First order: what follows one after the other stands in one height, as far as a walk in depth gets it."""
    layers.rows = [[] for _ in range(max(layers.layer) + 1)]
    seen = [False] * len(layers.layer)
    for root in dag.ready():
        stack = [root]
        while stack:
            node = stack.pop()
            if not seen[node]:
                seen[node] = True
                layers.rows[layers.layer[node]].append(node)
                stack.extend(reversed(layers.after[node]))


def _sort_rows(layers: Layers, forwards: bool) -> None:
    place = [0.0] * len(layers.layer)
    neighbours = layers.before if forwards else layers.after
    for row in layers.rows if forwards else reversed(layers.rows):
        wish = {node: _mean([place[other] for other in neighbours[node]], place[node]) for node in row}
        if any(neighbours[node] for node in row):
            fallback = 0.0
            for node in row:  # who has no neighbours stays beside the one before it
                fallback = wish[node] = wish[node] if neighbours[node] else fallback
            row.sort(key=wish.__getitem__)
        for position, node in enumerate(row):
            place[node] = (position + 0.5) / len(row)


def heights(layers: Layers, size: float, bend_size: float) -> list[float]:
    """The height of the middle of every node, if tasks take `size` of a column and bends `bend_size`."""
    sizes = [size if node < layers.tasks else bend_size for node in range(len(layers.layer))]
    height = [0.0] * len(sizes)
    for row in layers.rows:
        at = -sum(sizes[node] for node in row) / 2
        for node in row:
            height[node] = at + sizes[node] / 2
            at += sizes[node]
    for sweep in range(HEIGHT_SWEEPS):
        forwards = sweep % 2 == 0
        neighbours = layers.before if forwards else layers.after
        for row in layers.rows if forwards else reversed(layers.rows):
            wishes = [_mean([height[other] for other in neighbours[node]], height[node]) for node in row]
            weights = [1.0 if node < layers.tasks else BEND_WEIGHT for node in row]
            for node, at in zip(row, _spread(wishes, weights, [sizes[node] for node in row]), strict=True):
                height[node] = at
    lowest = min(height[node] - sizes[node] / 2 for node in range(len(sizes)))
    return [at - lowest for at in height]


def _spread(wishes: list[float], weights: list[float], sizes: list[float]) -> list[float]:
    """The places nearest to the wishes that keep the order and do not overlap."""
    offsets, at = [], 0.0
    for size in sizes:
        offsets.append(at + size / 2)
        at += size
    blocks: list[tuple[float, float, int]] = []  # mean, weight and length of runs that touch each other
    for wish, weight, offset in zip(wishes, weights, offsets, strict=True):
        mean, total, count = wish - offset, weight, 1
        while blocks and blocks[-1][0] > mean:
            other, other_total, other_count = blocks.pop()
            mean = (mean * total + other * other_total) / (total + other_total)
            total, count = total + other_total, count + other_count
        blocks.append((mean, total, count))
    means = [mean for mean, _, count in blocks for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
