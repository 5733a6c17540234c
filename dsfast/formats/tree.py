"""A workflow as text for a terminal: a tree in which every task stands once, below the last of those it needs.

    split
    ├─ part-1
    ├─ … 97 more
    └─ part-99 → merge (+98 others) → report

A chain is one line. `(+clean)` names what a task needs besides the task it stands after. Of many branches only
the largest are drawn, and the rest are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass

from dsfast._core.dag import Dag
from dsfast.formats.layout import graph_of, layer_of
from dsfast.formats.letters import columns
from dsfast.model import Workflow

BRANCHES_MAX = 8  # drawn of one task; two screens of branches tell no more than their number
WIDTH_MAX = 100  # characters of a line
OTHERS_WIDTH_MAX = 40  # characters of further needs told by name
MARKS = {
    "succeeded": "✓", "running": "▶", "failed": "✗", "killed": "✗", "failover": "↻", "queued": "○", "dispatched": "○",
    "delayed": "◷", "waiting": "·", "skipped": "-", "disabled": "-",
}  # fmt: skip


def draw_text(workflow: Workflow, states: Mapping[str, str] | None = None) -> str:
    """The workflow as a tree; with states by name of task, every task is marked with its own."""
    dag = graph_of(workflow)
    layer = layer_of(dag)
    edges = sum(len(dag.successors(node)) for node in range(len(dag)))
    kinds = {task.type for task in workflow.tasks}
    same = f", all of type {min(kinds)}" if len(kinds) == 1 and kinds != {"shell"} else ""
    tree = _tree(workflow, dag, layer, states, min(kinds) if len(kinds) == 1 else "shell")
    counts = f"{_count(len(dag), 'task')}, {_count(edges, 'edge')}, {_count(max(layer) + 1, 'layer')}"
    head = f"{workflow.name}: {counts}{same}"
    return "\n".join([head, "", *tree.lines(), *_legend(workflow, states), ""])


def _tree(workflow: Workflow, dag: Dag, layer: list[int], states: Mapping[str, str] | None, usual_type: str) -> _Tree:
    roots: list[int] = []
    branches: list[list[int]] = [[] for _ in layer]
    order = dag.order()
    others: list[list[int]] = [[] for _ in layer]
    for node in sorted(order, key=lambda node: (layer[node], node)):
        before = dag.predecessors(node)
        last = max(before, key=lambda other: (layer[other], other), default=None)
        (roots if last is None else branches[last]).append(node)
        others[node] = [other for other in before if other != last]
    sizes = [1] * len(layer)
    for node in reversed(order):
        sizes[node] += sum(sizes[branch] for branch in branches[node])
    return _Tree(workflow, roots, branches, others, sizes, states, usual_type)


@dataclass(slots=True)
class _Tree:
    """Every task below one of those it needs."""

    workflow: Workflow
    roots: list[int]
    branches: list[list[int]]
    others: list[list[int]]  # what a task needs besides the one it stands below
    sizes: list[int]  # tasks of each subtree, its root included
    states: Mapping[str, str] | None
    usual_type: str  # goes without saying

    def lines(self) -> Iterator[str]:
        """The lines of the drawing, without recursion: chains of branches can be as long as the workflow."""
        waiting: list[tuple[int | str, str, str]] = [(each, "", "") for each in reversed(self._chosen(self.roots))]
        while waiting:
            node, start, pad = waiting.pop()
            if isinstance(node, str):
                yield start + node
                continue
            end = yield from self._chain(node, start, pad)
            chosen = self._chosen(self.branches[end])
            for position, branch in reversed(list(enumerate(chosen))):
                is_last = position == len(chosen) - 1
                waiting.append((branch, pad + ("└─ " if is_last else "├─ "), pad + ("   " if is_last else "│  ")))

    def _chosen(self, nodes: list[int]) -> list[int | str]:
        """The branches to draw, in order, with a line that counts the others."""
        if len(nodes) <= BRANCHES_MAX:
            return list(nodes)
        largest = sorted(nodes, key=lambda node: -self.sizes[node])[: BRANCHES_MAX - 1]
        drawn = set(largest)
        hidden = [node for node in nodes if node not in drawn]
        first = next((at for at, node in enumerate(nodes) if node not in drawn), 0)
        before = [node for node in nodes[:first] if node in drawn]
        after = [node for node in nodes[first:] if node in drawn]
        return [*before, self._hidden(hidden), *after]

    def _hidden(self, nodes: list[int]) -> str:
        total = sum(self.sizes[node] for node in nodes)
        inside = f", {total} tasks in all" if total > len(nodes) else ""
        counts = Counter((self.states or {}).get(self.workflow.tasks[node].name, "") for node in nodes)
        told = ", ".join(f"{count} {state}" for state, count in counts.most_common() if state)
        return f"… {len(nodes)} more{inside}{f' ({told})' if told else ''}"

    def _chain(self, node: int, start: str, pad: str) -> Generator[str, None, int]:
        """The line of a task and of those that follow it one by one; returns the last of them."""
        line = start + self._label(node)
        while len(self.branches[node]) == 1:
            node = self.branches[node][0]
            label = self._label(node)
            if columns(line) + columns(label) + 3 > WIDTH_MAX:
                yield line + " →"
                line = f"{pad}  {label}"
            else:
                line = f"{line} → {label}"
        yield line
        return node

    def _label(self, node: int) -> str:
        task = self.workflow.tasks[node]
        mark = f"{MARKS.get(self.states.get(task.name, 'waiting'), '?')} " if self.states is not None else ""
        kind = "" if task.type == self.usual_type else f" [{task.type}]"
        off = "" if task.enabled else " [disabled]"
        return f"{mark}{task.name}{kind}{off}{self._also(node)}"

    def _also(self, node: int) -> str:
        others = self.others[node]
        if not others:
            return ""
        told = ", ".join(self.workflow.tasks[other].name for other in others[:OTHERS_WIDTH_MAX])
        if columns(told) <= OTHERS_WIDTH_MAX:
            return f" (+{told})"
        return f" (+{_count(len(others), 'other')})"


def _legend(workflow: Workflow, states: Mapping[str, str] | None) -> Iterator[str]:
    if states is not None:
        counts = Counter(states.get(task.name, "waiting") for task in workflow.tasks)
        yield ""
        yield "   ".join(f"{MARKS.get(state, '?')} {count} {state}" for state, count in counts.most_common())


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
