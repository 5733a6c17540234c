"""What does a finished task cost in its graph? The kernel beside graphlib, on 100,000 nodes and 300,000 edges."""

from __future__ import annotations

import graphlib
import random
import time
from array import array
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from dsfast._core.dag import Dag

pytestmark = pytest.mark.benchmark(timer=time.process_time)  # nothing here waits: neighbours do not count

NODES = 100_000
EDGES_PER_NODE = 3
REACH = 1_000  # how far back an edge may come from: layers that overlap, as in wide real graphs
SEED = 20


@cache
def edges() -> tuple[array[int], array[int]]:
    chance = random.Random(SEED)
    sources, targets = array("i"), array("i")
    for target in range(1, NODES):
        for _ in range(EDGES_PER_NODE):
            sources.append(chance.randrange(max(0, target - REACH), target))
            targets.append(target)
    return sources, targets


def sorter() -> graphlib.TopologicalSorter[int]:
    graph: graphlib.TopologicalSorter[int] = graphlib.TopologicalSorter()
    for source, target in zip(*edges(), strict=True):
        graph.add(target, source)
    return graph


def settle_all(dag: Dag) -> None:
    settle, open_nodes = dag.settle, dag.ready()
    for node in open_nodes:
        open_nodes += settle(node)


def settle_all_graphlib(graph: graphlib.TopologicalSorter[int]) -> None:
    done, get_ready = graph.done, graph.get_ready
    open_nodes = list(get_ready())
    for node in open_nodes:
        done(node)
        open_nodes += get_ready()


def test_settle(beside: Callable[..., None]) -> None:
    def ours() -> Callable[[], Any]:
        dag = Dag(NODES, *edges())
        return lambda: settle_all(dag)

    def theirs() -> Callable[[], Any]:
        graph = sorter()
        graph.prepare()
        return lambda: settle_all_graphlib(graph)

    beside(NODES, ours, graphlib=theirs)


def test_build_per_edge_of_arrays(beside: Callable[..., None]) -> None:
    beside(len(edges()[0]), lambda: lambda: Dag(NODES, *edges()), graphlib=lambda: lambda: sorter().prepare())


def test_build_per_edge_of_lists(beside: Callable[..., None]) -> None:
    sources, targets = map(list, edges())
    beside(len(sources), lambda: lambda: Dag(NODES, sources, targets), graphlib=lambda: lambda: sorter().prepare())


def test_small_run_of_10_tasks(beside: Callable[..., None]) -> None:
    """Build and settle a diamond with eight arms, which is what most workflows are like."""
    arms = range(1, 9)
    sources, targets = [0] * 8 + list(arms), list(arms) + [9] * 8

    def ours() -> None:
        for _ in range(1000):
            settle_all(Dag(10, sources, targets))

    def theirs() -> None:
        for _ in range(1000):
            graph: graphlib.TopologicalSorter[int] = graphlib.TopologicalSorter()
            for source, target in zip(sources, targets, strict=True):
                graph.add(target, source)
            graph.prepare()
            settle_all_graphlib(graph)

    beside(10_000, lambda: ours, graphlib=lambda: theirs)
