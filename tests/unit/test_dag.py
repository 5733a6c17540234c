"""Readiness against graphlib and against a naive model, cycles, and what the kernel accepts as edges."""

import contextlib
import gc
import graphlib
import random
import tracemalloc
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsfast._core.dag import CycleError, Dag

Edges = list[tuple[int, int]]


def dag_of(nodes: int, edges: Sequence[tuple[int, int]]) -> Dag:
    return Dag(nodes, [source for source, _ in edges], [target for _, target in edges])


@st.composite
def acyclic(draw: st.DrawFn) -> tuple[int, Edges]:
    """A graph whose edges follow a hidden order of the nodes; some edges come several times."""
    nodes = draw(st.integers(1, 25))
    hidden = draw(st.permutations(range(nodes)))
    pair = st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1)).filter(lambda pair: pair[0] != pair[1])
    pairs = draw(st.lists(pair, max_size=60)) if nodes > 1 else []
    return nodes, [(hidden[min(pair)], hidden[max(pair)]) for pair in pairs]


def sorter_of(nodes: int, edges: Edges) -> "graphlib.TopologicalSorter[int]":
    sorter: graphlib.TopologicalSorter[int] = graphlib.TopologicalSorter()
    for node in range(nodes):
        sorter.add(node)
    for source, target in edges:
        sorter.add(target, source)
    return sorter


# -- readiness -------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(acyclic(), st.randoms(use_true_random=False))
def test_releases_the_nodes_that_graphlib_releases(graph: tuple[int, Edges], chance: random.Random) -> None:
    nodes, edges = graph
    dag, sorter = dag_of(nodes, edges), sorter_of(nodes, edges)
    sorter.prepare()
    open_nodes = list(sorter.get_ready())
    assert dag.ready() == sorted(open_nodes)
    while open_nodes:
        node = open_nodes.pop(chance.randrange(len(open_nodes)))
        sorter.done(node)
        released = sorted(sorter.get_ready())
        assert dag.settle(node) == released
        open_nodes += released
        assert dag.ready() == sorted(open_nodes)
    assert dag.remaining == 0


class Model:
    """The rules of readiness, spelled out over sets."""

    def __init__(self, nodes: int, edges: Edges) -> None:
        self.edges = set(edges)
        self.undecided = set(range(nodes))
        self.skipped: set[int] = set()

    def waits_for(self, node: int) -> set[int]:
        return {source for source, target in self.edges if target == node and source in self.undecided}

    def ready(self) -> list[int]:
        return sorted(node for node in self.undecided if not self.waits_for(node))

    def settle(self, node: int) -> list[int]:
        before = self.ready()
        self.undecided.discard(node)
        return sorted(set(self.ready()) - set(before))

    def skip(self, node: int) -> list[int]:
        found, front = {node}, [node]
        while front:
            current = front.pop()
            for source, target in self.edges:
                if source == current and target in self.undecided and target not in found:
                    found.add(target)
                    front.append(target)
        self.undecided -= found
        return sorted(found - {node})


@settings(deadline=None)
@given(acyclic(), st.randoms(use_true_random=False))
def test_settling_and_skipping_in_any_order_matches_the_model(graph: tuple[int, Edges], chance: random.Random) -> None:
    nodes, edges = graph
    dag, model = dag_of(nodes, edges), Model(nodes, edges)
    while model.undecided:
        if chance.random() < 0.2:
            node = chance.choice(sorted(model.undecided))
            assert dag.skip(node) == model.skip(node)
        else:
            node = chance.choice(model.ready())
            assert dag.settle(node) == model.settle(node)
        assert dag.ready() == model.ready()
        assert dag.remaining == len(model.undecided)
        assert [dag.decided(node) for node in range(nodes)] == [node not in model.undecided for node in range(nodes)]


@settings(deadline=None)
@given(acyclic())
def test_neighbours_and_order_describe_the_graph(graph: tuple[int, Edges]) -> None:
    nodes, edges = graph
    dag = dag_of(nodes, edges)
    assert len(dag) == nodes
    for node in range(nodes):
        assert dag.successors(node) == sorted({target for source, target in edges if source == node})
        assert dag.predecessors(node) == sorted({source for source, target in edges if target == node})
    place = {node: at for at, node in enumerate(dag.order())}
    assert sorted(place) == list(range(nodes))
    assert all(place[source] < place[target] for source, target in edges)


def test_an_edge_given_twice_counts_once() -> None:
    dag = Dag(3, [0, 0, 0, 1], [1, 1, 2, 2])
    assert dag.successors(0) == [1, 2]
    assert dag.settle(0) == [1]
    assert dag.settle(1) == [2]


def test_a_skipped_node_does_not_come_back_through_another_predecessor() -> None:
    dag = Dag(4, [0, 1, 2], [2, 2, 3])
    assert dag.skip(0) == [2, 3]
    assert dag.settle(1) == []
    assert dag.remaining == 0
    with pytest.raises(ValueError, match="node 2 is decided already"):
        dag.settle(2)


def test_a_graph_without_nodes_is_done() -> None:
    dag = Dag(0, [], [])
    assert (len(dag), dag.remaining, dag.ready(), dag.order()) == (0, 0, [], [])


# -- refusals --------------------------------------------------------------------------------------------


def test_only_a_ready_node_can_be_settled() -> None:
    dag = Dag(3, [0, 1, 0], [1, 2, 2])
    with pytest.raises(ValueError, match="node 2 still waits for 2 of its predecessors"):
        dag.settle(2)
    assert dag.settle(0) == [1]
    with pytest.raises(ValueError, match="node 0 is decided already"):
        dag.settle(0)
    with pytest.raises(ValueError, match="node 0 is decided already"):
        dag.skip(0)
    assert dag.remaining == 2


@pytest.mark.parametrize("node", [-1, 3, 2**31, 2**40])
@pytest.mark.parametrize("method", ["settle", "skip", "decided", "successors", "predecessors"])
def test_a_node_outside_the_graph_is_refused(method: str, node: int) -> None:
    with pytest.raises(ValueError, match=f"node {node} is not one of the graph's 3 nodes"):
        getattr(Dag(3, [0], [1]), method)(node)


@pytest.mark.parametrize(
    ("nodes", "sources", "targets", "message"),
    [
        (2, [0], [2], "edge 0 -> 2 leaves the graph's 2 nodes"),
        (2, [2], [0], "edge 2 -> 0 leaves the graph's 2 nodes"),
        (2, [-1], [0], "edge -1 -> 0 leaves the graph's 2 nodes"),
        (0, [0], [0], "edge 0 -> 0 leaves the graph's 0 nodes"),
        (2, [2**40], [0], "an edge names node 1099511627776, which no graph has"),
        (2, [0], [-1], "edge 0 -> -1 leaves the graph's 2 nodes"),
        (2, array("i", [-5]), array("i", [0]), "edge -5 -> 0 leaves the graph's 2 nodes"),
        (2, [1], [1], "node 1 depends on itself"),
        (2, [0, 1], [1], "2 sources but 1 targets"),
        (-1, [], [], "nodes, not -1"),
        (2**31, [], [], "nodes, not 2147483648"),
    ],
)
def test_edges_that_make_no_graph_are_refused(nodes: int, sources: Any, targets: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dag(nodes, sources, targets)


@pytest.mark.parametrize("sources", [[0.0], ["0"], [None], None, 7])
def test_edges_that_are_no_integers_are_refused(sources: Any) -> None:
    with pytest.raises(TypeError):
        Dag(2, sources, [1])


# -- cycles ----------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 12).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_finds_a_cycle_exactly_when_graphlib_does(graph: tuple[int, Edges]) -> None:
    nodes, edges = graph[0], [edge for edge in graph[1] if edge[0] != edge[1]]
    try:
        sorter_of(nodes, edges).prepare()
    except graphlib.CycleError:
        with pytest.raises(CycleError) as caught:
            dag_of(nodes, edges)
        assert_is_cycle(caught.value.cycle, edges)
    else:
        dag_of(nodes, edges)


def assert_is_cycle(cycle: list[int], edges: Edges) -> None:
    assert len(cycle) >= 2
    assert len(set(cycle)) == len(cycle)
    assert set(zip(cycle, cycle[1:] + cycle[:1], strict=True)) <= set(edges)


def test_the_cycle_is_a_short_one_and_is_named() -> None:
    long_way_round = [(node, node + 1) for node in range(99)] + [(99, 0)]
    with pytest.raises(CycleError) as caught:
        dag_of(100, [*long_way_round, (1, 0)])
    assert caught.value.cycle == [0, 1]
    with pytest.raises(CycleError, match=r"^the graph has a cycle: 1 -> 2 -> 1$"):
        dag_of(5, [(0, 1), (1, 2), (2, 1), (2, 3), (3, 4)])


def test_depth_has_no_limit() -> None:
    nodes = 1_000_000
    sources, targets = array("i", range(nodes - 1)), array("i", range(1, nodes))
    dag = Dag(nodes, sources, targets)
    assert dag.ready() == [0]
    assert dag.settle(0) == [1]
    assert dag.skip(1) == list(range(2, nodes))
    sources.append(nodes - 1)
    targets.append(0)
    with pytest.raises(CycleError) as caught:
        Dag(nodes, sources, targets)
    assert len(caught.value.cycle) == nodes


# -- what counts as edges --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "convert",
    [
        tuple,
        bytes,
        lambda numbers: array("i", numbers),
        lambda numbers: array("q", numbers),
        lambda numbers: array("H", numbers),
        lambda numbers: memoryview(array("i", numbers)),
        lambda numbers: memoryview(array("i", [n for number in numbers for n in (number, 99)]))[::2],
        lambda numbers: array("i", numbers).tobytes() and memoryview(array("i", numbers).tobytes()).cast("i"),
        lambda numbers: [bool(number) if number < 2 else number for number in numbers],
    ],
)
def test_every_sequence_of_integers_makes_the_same_graph(convert: Callable[[list[int]], Any]) -> None:
    dag = Dag(4, convert([0, 0, 1, 2]), convert([1, 2, 3, 3]))
    assert [dag.successors(node) for node in range(4)] == [[1, 2], [3], [3], []]


def test_buffers_are_let_go() -> None:
    sources, targets = array("i", [0]), array("i", [1])
    dag = Dag(2, sources, targets)
    sources.append(9)  # raises BufferError while somebody holds the buffer
    targets.append(9)
    assert dag.successors(0) == [1]
    with pytest.raises(ValueError, match="leaves the graph"):
        Dag(2, sources, targets)
    sources.pop()


def test_a_sequence_that_lies_about_its_length_is_refused() -> None:
    class Growing(list[int]):
        def __len__(self) -> int:
            return 1

    with pytest.raises(ValueError, match="changed while they were read"):
        Dag(3, Growing([0, 1]), [1])


# -- memory ----------------------------------------------------------------------------------------------


def test_a_graph_costs_four_bytes_an_edge_and_less_than_thirteen_a_node() -> None:
    nodes, edges = 50_000, 200_000
    chance = random.Random(7)
    targets = array("i", (chance.randrange(1, nodes) for _ in range(edges)))
    sources = array("i", (chance.randrange(target) for target in targets))
    tracemalloc.start()
    dag = Dag(nodes, sources, targets)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used < 4 * edges + 13 * nodes
    assert dag.remaining == nodes


def test_building_and_refusing_graphs_keeps_no_memory() -> None:
    refused: list[Any] = [(3, [0, 1, 2], [1, 2, 0]), (2, [0], [5]), (2, [0, "x"], [1, 1])]

    def turn() -> None:
        Dag(100, range(99), range(1, 100)).skip(0)
        for graph in refused:
            with contextlib.suppress(ValueError, TypeError):
                Dag(*graph)

    turn()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(300):
        turn()
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < 10_000
