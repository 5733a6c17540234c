"""Dumped YAML reads back as the same workflow, and reads well."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsfast.formats.check import NAME_FORBIDDEN
from dsfast.formats.dump import dump_yaml
from dsfast.formats.yaml_workflow import load_workflow
from dsfast.model import OnFailure, Priority, Retry, Task, Workflow

LETTERS = st.characters(exclude_categories=["Cs"])
TRICKY = st.sampled_from(
    [
        "", " ", "yes", "No", "~", "null", "1", "1.0", "1e3", "0x1f", "1:30", "2024-01-01", "-", "- a", "? a", ": a",
        "a: b", "a:b", "a:", "http://x/y?z", "a #b", "#a", "&a", "*a", "!a", "|", ">", "%a", "@a", "`a`", "'a'", '"a"',
        "a,b", "[a]", "{a}", "{{ x }}", "a ", " a", "a  b", "\t", "a\tb", "\n", "\n\n", "a\n", "a\nb", "1m 2s",
        "a\nb\n", "a\n\n", " a\nb", "\na\n", "  \na\n", "a\n  \nb\n", "a \nb\t\n", "\ta\nb", "a\r\nb", "\x00", "\x7f",
        "\x85", "a\u2028b\nc",
        "\ufeff", "\uffff", "é", "\U0001f600", "a\\b", "---\na\n", "...\n",
        "it's", "<<", "x" * 1100, "echo {{ x }}", "a [b], {c}: d", "a, b: c",
    ]
)  # fmt: skip
TEXTS = st.one_of(TRICKY, st.text(LETTERS, max_size=12))
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 63), (1 << 63) - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        TEXTS,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=10,
)
NAMES = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="".join(NAME_FORBIDDEN)), min_size=1, max_size=12
).filter(lambda name: name.isprintable() and name not in (".", ".."))
SECONDS = st.one_of(st.integers(0, 10**8).map(float), st.floats(0, 10**8))
RETRIES = st.builds(
    Retry, limit=st.integers(0, 10_000), delay=SECONDS, backoff=st.floats(1, 100), delay_max=SECONDS
) | st.just(Retry())
CONFIGS: st.SearchStrategy[tuple[str, dict[str, Any]]] = st.one_of(
    st.tuples(st.just("noop"), st.just({})),
    st.tuples(st.just("sleep"), st.fixed_dictionaries({"seconds": st.floats(0, 1e6)})),
    st.tuples(st.just("shell"), st.fixed_dictionaries({"script": TEXTS.filter(lambda text: bool(text.strip()))})),
    st.tuples(
        st.just("python"),
        st.fixed_dictionaries({"call": st.just("json:dumps"), "args": st.fixed_dictionaries({"x": VALUES})}),
    ),
)


@st.composite
def workflows(draw: st.DrawFn) -> Workflow:
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    tasks = []
    for position, name in enumerate(names):
        kind, config = draw(CONFIGS)
        needs = draw(st.lists(st.sampled_from(names[:position]), unique=True)) if position else []
        tasks.append(
            Task(
                name=name,
                type=kind,
                needs=tuple(needs),
                config=msgspec.Raw(msgspec.json.encode(config)),
                retry=draw(RETRIES),
                timeout=draw(st.none() | st.floats(0.001, 1e8) | st.integers(1, 10**6).map(float)),
                delay=draw(SECONDS),
                priority=draw(st.sampled_from(Priority)),
                group=draw(NAMES),
                env=draw(st.dictionaries(NAMES.filter(lambda name: "=" not in name), TEXTS, max_size=3)),
                workdir=draw(st.none() | st.sampled_from(["/srv/x", "a b", "1", "yes"])),
                enabled=draw(st.booleans()),
            )
        )
    return Workflow(
        name=draw(NAMES),
        tasks=tuple(tasks),
        description=draw(TEXTS),
        params=draw(st.dictionaries(NAMES, VALUES, max_size=4)),
        priority=draw(st.sampled_from(Priority)),
        on_failure=draw(st.sampled_from(OnFailure)),
    )


def is_runnable(workflow: Workflow) -> bool:
    """No braces of a template and no NUL by chance in what templates and the environment are made of."""
    texts = [value.encode() for task in workflow.tasks for value in task.env.values()]
    texts += [bytes(task.config) for task in workflow.tasks]
    return not any(mark in text for text in texts for mark in (b"{{", b"{%", b"\0"))


@given(workflows().filter(is_runnable))
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_what_is_dumped_loads_as_the_same_workflow(workflow: Workflow) -> None:
    assert load_workflow(dump_yaml(workflow)) == workflow


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=4))
@settings(deadline=None, max_examples=60)
def test_other_yaml_readers_take_text_for_text(params: dict[str, Any]) -> None:
    texts = {key: [text for text in _texts(value) if "\u2028" not in text] for key, value in params.items()}
    dumped = dump_yaml(Workflow(name="w", params=texts, tasks=(Task(name="a", type="noop"),)))
    assert yaml.safe_load(dumped)["params"] == texts


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


def test_it_reads_well() -> None:
    text = """\
name: nightly
description: Loads yesterday's orders
params:
  day: "2024-01-01"
  tables: [orders, customers]
priority: high
on_failure: stop
tasks:
  extract:
    script: |
      set -e
      curl -o orders.csv {{ params.day }}
    retries:
      limit: 3
      delay: 1m
      backoff: 2
    timeout: 1h 30m

  load:
    type: python
    needs: extract
    call: loader:load
    args:
      rows: 5
    retries: 2
    delay: 0.5
    priority: lowest
    worker_group: big
    env:
      MODE: "1"
    working_dir: /srv/load
    enabled: false
"""
    assert dump_yaml(load_workflow(text)) == text


@pytest.mark.parametrize("needs", [["a"], ["a", "b"], [f"a-rather-long-name-{n}" for n in range(9)]])
def test_needs_stand_on_one_line_if_they_fit(needs: list[str]) -> None:
    tasks = [Task(name=name, type="noop") for name in needs]
    dumped = dump_yaml(Workflow(name="w", tasks=(*tasks, Task(name="z", type="noop", needs=tuple(needs)))))
    assert max(map(len, dumped.split("\n"))) <= 120
    assert load_workflow(dumped).tasks[-1].needs == tuple(needs)
