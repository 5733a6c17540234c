"""`Workflow` -> YAML that people like to read: scripts as blocks, durations in words, nothing that is a default.

`load_workflow(dump_yaml(workflow))` is the same workflow, for every workflow that passes the checks. The writer
is our own because it must quote what any YAML reader, 1.1 or 1.2, could take for something else than text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from dsfast.formats.durations import duration_text
from dsfast.formats.yaml_workflow import SHELL_KEYS
from dsfast.model import OnDisconnect, OnFailure, Priority, Retry, Task, Workflow

WIDTH_MAX = 100  # characters of a list on one line
KEY_LENGTH_MAX = 1000  # characters; YAML readers give up on a plain `key:` of more than 1024
_DURATION = r"\d+(?:ms|[smhdw])(?: \d+(?:ms|[smhdw]))*"
_REST = r"\w ./$=+@%()<>;|&*'\"!\\~^\-"  # what may follow the first letter of text without quotes
_IN_FLOW = re.compile(rf"(?:[^\W\d]|/)[{_REST}]*|{_DURATION}")  # in a list on one line, and of keys
_IN_BLOCK = re.compile(rf"(?:[^\W\d]|/)[{_REST}?,\[\]{{}}]*(?::[\w/$.][{_REST}?,\[\]{{}}]*)*|{_DURATION}")
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
_UNPRINTABLE = re.compile("[^\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_STEP = "  "


def dump_yaml(workflow: Workflow) -> str:
    """The workflow as YAML."""
    top: dict[str, Any] = {"name": workflow.name}
    if workflow.description:
        top["description"] = workflow.description
    if workflow.params:
        top["params"] = workflow.params
    if workflow.priority is not Priority.MEDIUM:
        top["priority"] = workflow.priority.name.lower()
    if workflow.on_failure is not OnFailure.CONTINUE:
        top["on_failure"] = workflow.on_failure.name.lower()
    lines = [*_mapping(top, ""), "tasks:"]
    for task in workflow.tasks:
        lines += _entry(task.name, _task(task), _STEP)
        if len(workflow.tasks) > 1:
            lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _task(task: Task) -> dict[str, Any]:
    config: dict[str, Any] = msgspec.json.decode(task.config)
    fields: dict[str, Any] = {}
    if task.type != "shell" or config.keys().isdisjoint(SHELL_KEYS):
        fields["type"] = task.type
    if task.needs:
        fields["needs"] = task.needs[0] if len(task.needs) == 1 else list(task.needs)
    fields |= config
    if task.retry != Retry():
        fields["retries"] = _retries(task.retry)
    if task.timeout is not None:
        fields["timeout"] = duration_text(task.timeout)
    if task.delay:
        fields["delay"] = duration_text(task.delay)
    if task.priority is not Priority.MEDIUM:
        fields["priority"] = task.priority.name.lower()
    if task.group != "default":
        fields["worker_group"] = task.group
    if task.env:
        fields["env"] = task.env
    if task.workdir is not None:
        fields["working_dir"] = task.workdir
    if not task.enabled:
        fields["enabled"] = False
    if task.on_disconnect is not None:
        fields["on_disconnect"] = _on_disconnect(task.on_disconnect)
    return fields


def _retries(retry: Retry) -> Any:
    if retry == Retry(limit=retry.limit):
        return retry.limit
    fields: dict[str, Any] = {"limit": retry.limit}
    if retry.delay:
        fields["delay"] = duration_text(retry.delay)
    if retry.backoff != 1:
        fields["backoff"] = int(retry.backoff) if retry.backoff == int(retry.backoff) else retry.backoff
    if retry.delay_max != Retry().delay_max:
        fields["delay_max"] = duration_text(retry.delay_max)
    return fields


def _on_disconnect(policy: OnDisconnect) -> dict[str, Any]:
    fields: dict[str, Any] = {"replace": policy.replace}
    if policy.stop_after is not None:
        fields["stop_after"] = duration_text(policy.stop_after)
    if policy.replace_after:
        fields["replace_after"] = duration_text(policy.replace_after)
    return fields


def _mapping(values: dict[str, Any], pad: str) -> Iterator[str]:
    for key, value in values.items():
        yield from _entry(key, value, pad)


def _entry(key: str, value: Any, pad: str) -> Iterator[str]:
    written = _text(key)
    if len(written) > KEY_LENGTH_MAX:
        yield f"{pad}? {written}"
        written = ""
    yield from _value(f"{pad}{written}:", value, pad)


def _value(start: str, value: Any, pad: str) -> Iterator[str]:
    """The value after what begins its line; what does not fit there is indented below."""
    if isinstance(value, str) and _is_block(value):
        yield from _block(start, value, pad + _STEP)
    elif isinstance(value, dict) and value:
        yield start
        yield from _mapping(value, pad + _STEP)
    elif isinstance(value, list) and value and not _fits(value):
        yield start
        for each in value:
            yield from _item(each, pad + _STEP)
    else:
        yield f"{start} {_text(value, _IN_BLOCK) if isinstance(value, str) else _scalar(value)}"


def _item(value: Any, pad: str) -> Iterator[str]:
    if isinstance(value, dict | list) and value and not (isinstance(value, list) and _fits(value)):
        yield f"{pad}-"
        if isinstance(value, dict):
            yield from _mapping(value, pad + _STEP)
        else:
            for each in value:
                yield from _item(each, pad + _STEP)
    else:
        yield from _value(f"{pad}-", value, pad)


def _fits(values: list[Any]) -> bool:
    """Whether a list reads well on one line."""
    return (
        len(values) <= WIDTH_MAX
        and not any(isinstance(each, dict | list) or (isinstance(each, str) and "\n" in each) for each in values)
        and len(_scalar(values)) <= WIDTH_MAX
    )


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return f"[{', '.join(_scalar(each) for each in value)}]"
    return "{}" if isinstance(value, dict) else json.dumps(value)


def _text(text: str, plain: re.Pattern[str] = _IN_FLOW) -> str:
    """Text on one line, in quotes where it would not be read as text without."""
    if plain.fullmatch(text) and text[-1] != " " and text.lower() not in _WORDS:
        return text
    return _UNPRINTABLE.sub(_escape, json.dumps(text, ensure_ascii=False))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _is_block(text: str) -> bool:
    return "\n" in text and bool(text.strip()) and not text.endswith("\n\n") and not _UNPRINTABLE.search(text)


def _block(start: str, text: str, pad: str) -> Iterator[str]:
    """Text of several lines as it is. A first line that is indented or empty needs the depth of the block said."""
    depth = str(len(_STEP)) if text[0] in " \n" else ""
    yield f"{start} |{depth}{'' if text.endswith(chr(10)) else '-'}"
    for line in text.removesuffix("\n").split("\n"):
        yield pad + line if line else ""
