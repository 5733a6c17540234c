"""What we show people is right: the examples, the page on workflows, and the schema for editors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dsfast.formats.dump import dump_yaml
from dsfast.formats.graph import draw_svg, draw_text
from dsfast.formats.task_keys import RETRY_KEYS, TASK_KEYS
from dsfast.formats.yaml_workflow import TOP_KEYS, load_file, load_workflow
from tests.unit.workflow_schema import PAGE, text

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
DOCS = ROOT / "docs" / "workflows.md"


def test_the_examples_are_there() -> None:
    assert {path.stem for path in EXAMPLES} >= {"etl", "fan", "params", "python", "retries"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_workflow_that_says_what_it_shows(path: Path) -> None:
    workflow = load_file(path)
    assert workflow.name == path.stem
    assert path.read_text().startswith("# ")
    assert f"dsfast run examples/{path.name}" in path.read_text()
    assert load_workflow(dump_yaml(workflow)) == workflow
    assert all(task.name in draw_svg(workflow) and task.name in draw_text(workflow) for task in workflow.tasks)


def test_the_schema_for_editors_is_current() -> None:
    assert PAGE.read_text() == text(), "run: python -m tests.unit.workflow_schema"


def test_the_page_on_workflows_describes_every_key() -> None:
    page = DOCS.read_text()
    rows = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert rows >= {*TOP_KEYS, *TASK_KEYS, *RETRY_KEYS}


def complete(page: str) -> list[str]:
    return [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "\nname:" in f"\n{block}"]


@pytest.mark.parametrize("block", complete(DOCS.read_text()))
def test_every_workflow_on_the_page_is_one(block: str) -> None:
    workflow = load_workflow(block)
    assert load_workflow(dump_yaml(workflow)) == workflow
