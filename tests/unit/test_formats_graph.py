"""Pictures of workflows: complete, ordered, safe to open."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from hypothesis import given, settings
from hypothesis import strategies as st

from dsfast.formats.graph import draw_dot, draw_svg, draw_text
from dsfast.formats.layout import graph_of, heights, layer_of, make_layers
from dsfast.formats.tree import BRANCHES_MAX
from dsfast.model import Task, Workflow

SVG = "{http://www.w3.org/2000/svg}"


def workflow(needs: dict[str, list[str]], **kinds: str) -> Workflow:
    tasks = [Task(name=name, type=kinds.get(name, "shell"), needs=tuple(each)) for name, each in needs.items()]
    return Workflow(name="w", tasks=tuple(tasks))


@st.composite
def graphs(draw: st.DrawFn, size: int = 14) -> Workflow:
    count = draw(st.integers(1, size))
    needs = {
        f"task{node:02}": [f"task{n:02}" for n in draw(st.sets(st.integers(0, node - 1), max_size=4))] if node else []
        for node in range(count)
    }
    return workflow(needs)


# -- layout ---------------------------------------------------------------------------------------------


@given(graphs())
@settings(deadline=None)
def test_every_line_leads_one_layer_to_the_right_and_nothing_overlaps(given_workflow: Workflow) -> None:
    dag = graph_of(given_workflow)
    layers = make_layers(dag)
    assert sorted(node for row in layers.rows for node in row) == list(range(len(layers.layer)))
    for node, after in enumerate(layers.after):
        assert all(layers.layer[other] == layers.layer[node] + 1 for other in after)
    at = heights(layers, 50.0, 10.0)
    for row in layers.rows:
        sizes = [50.0 if node < layers.tasks else 10.0 for node in row]
        for place in range(len(row) - 1):
            gap = at[row[place + 1]] - at[row[place]]
            assert gap >= (sizes[place] + sizes[place + 1]) / 2 - 1e-6


@given(graphs())
@settings(deadline=None)
def test_bends_join_exactly_the_tasks_that_need_each_other(given_workflow: Workflow) -> None:
    dag = graph_of(given_workflow)
    layers = make_layers(dag)

    def ends(node: int) -> set[int]:
        return {end for other in layers.after[node] for end in ({other} if other < layers.tasks else ends(other))}

    assert [ends(node) for node in range(layers.tasks)] == [set(dag.successors(node)) for node in range(len(dag))]


def test_a_root_stands_right_before_what_needs_it() -> None:
    dag = graph_of(workflow({"a": [], "b": ["a"], "c": ["b", "config"], "config": []}))
    assert layer_of(dag) == [0, 1, 2, 1]


def test_a_chain_of_ten_thousand_tasks_is_drawn() -> None:
    chain = workflow({f"t{n}": [f"t{n - 1}"] if n else [] for n in range(10_000)})
    assert draw_svg(chain).count('class="box"') == 10_000
    assert "t9999" in draw_text(chain)


# -- SVG ------------------------------------------------------------------------------------------------


def test_svg_has_a_box_for_every_task_and_a_line_for_every_edge() -> None:
    root = ET.fromstring(draw_svg(workflow({"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c", "a"]}, d="python")))
    boxes = root.findall(f"{SVG}g")
    assert [box.findtext(f"{SVG}title") for box in boxes] == ["a (shell)", "b (shell)", "c (shell)", "d (python)"]
    tips = [line for line in root.findall(f"{SVG}path") if line.get("marker-end")]
    assert len(tips) == 5
    assert root.findtext(f"{SVG}title") == "w"


def test_svg_holds_names_as_text_only_and_nothing_from_outside() -> None:
    name = "<script>alert(1)</script> & ]]>"
    drawn = draw_svg(Workflow(name=name, tasks=(Task(name=name, type="<b>"),)))
    root = ET.fromstring(drawn)
    assert root.findtext(f"{SVG}g/{SVG}title") == f"{name} (<b>)"
    assert not root.findall(f".//{SVG}script")
    assert re.findall(r"(?:href|src|url)[=(][^#)]", drawn) == []


def test_svg_shows_states_and_disabled_tasks() -> None:
    drawn = Workflow(name="w", tasks=(Task(name="a", type="noop"), Task(name="b", type="noop", enabled=False)))
    root = ET.fromstring(draw_svg(drawn, {"a": "failed"}))
    assert [box.get("class") for box in root.findall(f"{SVG}g")] == ["failed", "off"]
    assert root.findtext(f"{SVG}g/{SVG}title") == "a (noop, failed)"


def test_long_names_lose_their_middle() -> None:
    root = ET.fromstring(draw_svg(workflow({"load_" + "x" * 60 + "_0042": []})))
    shown = root.find(f"{SVG}g/{SVG}text")
    assert shown is not None
    assert re.fullmatch(r"load_x+…x+_0042", shown.text or "")


# -- text -----------------------------------------------------------------------------------------------


@given(graphs(size=BRANCHES_MAX))
@settings(deadline=None)
def test_every_task_stands_in_the_tree_exactly_once(given_workflow: Workflow) -> None:
    drawn = re.sub(r"\(\+[^)]*\)", "", draw_text(given_workflow))
    assert sorted(re.findall(r"task\d\d", drawn)) == [task.name for task in given_workflow.tasks]


def test_text_reads_well() -> None:
    drawn = draw_text(
        workflow(
            {"extract": [], "clean": ["extract"], "enrich": ["extract"], "load": ["clean", "enrich"], "mail": ["load"]}
        )
    )
    assert drawn == (
        "w: 5 tasks, 5 edges, 4 layers\n"
        "\n"
        "extract\n"
        "├─ clean\n"
        "└─ enrich → load (+clean) → mail\n"
    )  # fmt: skip


def test_many_branches_are_counted_and_the_largest_drawn() -> None:
    parts = {f"part-{n}": ["split"] for n in range(100)}
    states = dict.fromkeys(parts, "succeeded") | {"part-98": "running"}
    drawn = draw_text(workflow({"split": [], **parts, "merge": list(parts)}), states).split("\n")
    assert drawn[2:7] == ["· split", "├─ ✓ part-0", "├─ ✓ part-1", "├─ ✓ part-2", "├─ ✓ part-3"]
    assert drawn[-5:] == [
        "├─ … 93 more (92 succeeded, 1 running)",
        "└─ ✓ part-99 → · merge (+99 others)",
        "",
        "✓ 99 succeeded   · 2 waiting   ▶ 1 running",
        "",
    ]


def test_long_chains_are_broken_into_lines() -> None:
    lines = draw_text(workflow({f"step-{n}": [f"step-{n - 1}"] if n else [] for n in range(40)})).split("\n")
    assert all(len(line) <= 102 for line in lines)
    assert lines[2].endswith(" →")
    assert lines[3].startswith("  step-")


# -- DOT ------------------------------------------------------------------------------------------------


def test_dot_names_tasks_and_edges() -> None:
    drawn = draw_dot(workflow({'say "hi"': [], "b": ['say "hi"']}, b="python"))
    assert '  t0 [label="say \\"hi\\"\\nshell"];' in drawn
    assert '  t1 [label="b\\npython"];' in drawn
    assert "  t0 -> t1;" in drawn
