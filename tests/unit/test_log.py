"""Log lines can be searched by event, and nothing in a value can forge a line."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from dsfast.config import LogConfig
from dsfast.log import log_event, setup_logging

HOSTILE = 'a\nlevel=error forged="1"\x1b[31m\x85\u2028'


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("dsfast")
    kept = (list(root.handlers), root.level, ours.level)
    yield
    root.handlers[:], level, our_level = kept
    root.setLevel(level)
    ours.setLevel(our_level)


def lines(format_: str, level: str = "info", **fields: Any) -> list[str]:
    stream = io.StringIO()
    logger = setup_logging(LogConfig(level=level, format=format_), "master", stream)
    log_event(logger, "task_settled", **fields)
    return stream.getvalue().splitlines()


def test_an_event_is_one_logfmt_line() -> None:
    (line,) = lines("logfmt", run="06zk", wait_ms=1.23456789, worker=None, text="two words")
    assert line.split(" ", 1)[1] == 'info master task_settled run=06zk wait_ms=1.23457 text="two words"'


def test_an_event_is_one_json_line() -> None:
    (line,) = lines("json", run="06zk", attempt=2)
    fields = json.loads(line)
    assert fields.pop("time").endswith("Z")
    assert fields == {"level": "info", "logger": "master", "event": "task_settled", "run": "06zk", "attempt": 2}


@pytest.mark.parametrize("format_", ["logfmt", "json"])
def test_a_value_cannot_forge_a_line(format_: str) -> None:
    (line,) = lines(format_, task=HOSTILE)
    assert line.isprintable()
    assert json.dumps(HOSTILE) in line


def test_an_error_is_named_and_its_traceback_is_for_debugging() -> None:
    error = ValueError("no\nway")
    (line,) = lines("logfmt", exc=error)
    assert line.endswith(r'error="ValueError: no\nway"')
    (line,) = lines("logfmt", level="debug", exc=error)
    assert "traceback=" in line


def test_lines_below_the_level_are_not_written() -> None:
    assert lines("logfmt", level="warning") == []


def test_a_librarys_line_keeps_its_text() -> None:
    stream = io.StringIO()
    setup_logging(LogConfig(level="info", format="logfmt"), "master", stream)
    logging.getLogger("kazoo.client").warning("lost %s\n", "it")
    assert stream.getvalue().endswith('warning kazoo.client message text="lost it\\n"\n')
