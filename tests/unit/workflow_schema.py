"""docs/workflow.schema.json, for editors: `python -m tests.unit.workflow_schema` writes it anew from the code."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from dsfast.formats.durations import UNITS
from dsfast.formats.task_keys import ON_DISCONNECT_KEYS, ON_FAILURE, PRIORITIES, RETRY_KEYS, TASK_KEYS
from dsfast.formats.yaml_workflow import TOP_KEYS
from dsfast.model import NAME_LENGTH_MAX
from dsfast.tasks.base import TaskType
from dsfast.tasks.types import task_types

PAGE = Path(__file__).parents[2] / "docs" / "workflow.schema.json"
Schema = dict[str, Any]

NAME: Schema = {"type": "string", "minLength": 1, "maxLength": NAME_LENGTH_MAX}
DURATION: Schema = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": rf"^\s*(\d+(\.\d+)?\s*({'|'.join(UNITS)})?\s*)+$"},
    ]
}
SCALAR: Schema = {"type": ["string", "number", "boolean", "null"]}
RETRIES: Schema = {
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {
            "type": "object",
            "required": ["limit"],
            "additionalProperties": False,
            "properties": {
                "limit": {"type": "integer", "minimum": 0, "description": "How often a failed task is tried again."},
                "delay": {**DURATION, "description": "The wait before the first retry."},
                "backoff": {"type": "number", "minimum": 1, "description": "Every wait is this many times the last."},
                "delay_max": {**DURATION, "description": "No wait is longer than this."},
            },
        },
    ]
}
ON_DISCONNECT: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "replace": {"type": "boolean", "description": "False: wait for the worker, or for proof that it is dead."},
        "stop_after": {**DURATION, "description": "How long the worker lets the task run on before it ends it."},
        "replace_after": {**DURATION, "description": "The least time before the task is started elsewhere."},
    },
}
COMMON: dict[str, Schema] = {
    "type": {"type": "string", "description": "What runs the task; shell if there is a script."},
    "needs": {
        "description": "The tasks that must have succeeded before.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": SCALAR, "uniqueItems": True}],
    },
    "retries": {**RETRIES, "description": "How often, and how soon, the task is tried again when it fails."},
    "timeout": {**DURATION, "description": "An attempt that takes longer is killed and has failed."},
    "delay": {**DURATION, "description": "How long to wait once the task could start."},
    "priority": {"enum": list(PRIORITIES), "description": "Which of several ready tasks starts first."},
    "worker_group": {**NAME, "description": "The group of workers that run the task."},
    "env": {
        "type": "object",
        "description": "Environment variables, as text; templates are filled in.",
        "additionalProperties": SCALAR,
    },
    "working_dir": {"type": "string", "description": "The directory to run in; a private one if not said."},
    "enabled": {"type": "boolean", "description": "False: the task is passed over as if it had succeeded."},
    "on_disconnect": {**ON_DISCONNECT, "description": "What becomes of it when nobody can see its worker any more."},
}


def schema() -> Schema:
    """The schema of a workflow in YAML."""
    kinds = {name: kind for name, kind in task_types().items() if type(kind).__module__.startswith("dsfast.")}
    settings = {name: _settings(kind) for name, kind in kinds.items()}
    by_type: Schema = {"$ref": "#/definitions/other_task"}
    for name in reversed(kinds):
        condition = {"properties": {"type": {"const": name}}}
        by_type = {"if": condition, "then": {"$ref": f"#/definitions/{name}_task"}, "else": by_type}
    every = {key: each for found in settings.values() for key, each in found.items()}
    definitions = {f"{name}_task": _task(kinds[name].Config, found) for name, found in settings.items()}
    definitions["untyped_task"] = {
        **_closed(COMMON | every),
        "description": "A shell task, or one of the type that `defaults` says.",
    }
    definitions["other_task"] = {"type": "object", "properties": COMMON, "description": "A type of a plug-in."}
    untyped = {"$ref": "#/definitions/untyped_task"}
    definitions["task"] = {"if": {"required": ["type"]}, "then": by_type, "else": untyped}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A workflow of dsfast",
        "required": ["name", "tasks"],
        **_closed(_top()),
        "definitions": definitions,
    }


def _top() -> dict[str, Schema]:
    one = {"$ref": "#/definitions/task"}
    properties: dict[str, Schema] = {
        "name": {**NAME, "description": "The workflow's name."},
        "description": {"type": "string", "description": "What it is for."},
        "params": {"type": "object", "description": "Params and their defaults: any JSON value."},
        "priority": {"enum": list(PRIORITIES), "description": "Which of several runs goes first."},
        "on_failure": {
            "enum": list(ON_FAILURE),
            "description": "continue: finish what does not depend on the failed task. stop: kill what runs.",
        },
        "defaults": {**_closed(_without("needs")), "description": "Keys that apply to every task without its own."},
        "tasks": {
            "description": "The tasks by name, or a list of tasks that have a name.",
            "anyOf": [
                {"type": "object", "minProperties": 1, "additionalProperties": one},
                {"type": "array", "minItems": 1, "items": {"type": "object", "required": ["name"]}},
            ],
        },
    }
    assert tuple(properties) == TOP_KEYS
    return properties


def _without(name: str) -> dict[str, Schema]:
    assert list(COMMON) == list(TASK_KEYS)
    assert list(RETRIES["anyOf"][1]["properties"]) == list(RETRY_KEYS)
    assert list(ON_DISCONNECT["properties"]) == list(ON_DISCONNECT_KEYS)
    return {key: each for key, each in COMMON.items() if key != name}


def _settings(kind: TaskType) -> dict[str, Schema]:
    described = msgspec.json.schema(kind.Config)
    (definition,) = described["$defs"].values()
    return dict(definition.get("properties", {}))


def _task(config: type[msgspec.Struct], settings: dict[str, Schema]) -> Schema:
    required = sorted(each.name for each in msgspec.structs.fields(config) if each.required)
    about: Schema = {"description": config.__doc__ or ""}
    return {**about, **({"required": required} if required else {}), **_closed(COMMON | settings)}


def _closed(properties: dict[str, Schema]) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def text() -> str:
    """The file as the code has it."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(f"{PAGE}\n")
    PAGE.write_text(text())
