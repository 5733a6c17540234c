"""The JSON of DolphinScheduler's exports, in one shape for all versions.

2.0 to 3.2 write processDefinition and processTaskRelationList, 3.3 workflowDefinition and workflowTaskRelationList;
both refer to tasks by code. 1.x has the tasks in `processDefinitionJson`, as text, and refers to them by name.
"""

from __future__ import annotations

from typing import Any

import msgspec

from dsfast.errors import Problem, UsageError
from dsfast.formats.settings import mismatch

Code = int | str


class Property(msgspec.Struct, rename="camel"):
    """A global or local parameter."""

    prop: str = ""
    direct: str | None = None
    type: str | None = None
    value: Any = None


class Definition(msgspec.Struct, rename="camel"):
    """A workflow, without its tasks."""

    code: Code = 0
    name: str = ""
    description: str | None = None
    global_params: Any = None
    timeout: Any = 0
    execution_type: str | None = None
    release_state: Any = None
    flag: Any = None
    tenant_code: Any = None
    tenant_id: Any = None
    warning_group_id: Any = None
    locations: Any = None


class Relation(msgspec.Struct, rename="camel"):
    """An edge; a `pre_task_code` of 0 means that the other end is a root."""

    pre_task_code: Code = 0
    post_task_code: Code = 0
    condition_type: Any = None


class SourceTask(msgspec.Struct, rename="camel"):
    """A task."""

    code: Code = 0
    name: str = ""
    description: str | None = None
    task_type: str = ""
    task_params: Any = None
    flag: Any = None
    is_cache: Any = None
    task_priority: Any = None
    worker_group: str | None = None
    environment_code: Any = -1
    fail_retry_times: Any = 0
    fail_retry_interval: Any = 1
    timeout_flag: Any = None
    timeout_notify_strategy: str | None = None
    timeout: Any = 0
    delay_time: Any = 0
    task_group_id: Any = 0
    cpu_quota: Any = -1
    memory_max: Any = -1
    task_execute_type: str | None = None


class Source(msgspec.Struct):
    """One workflow of an export."""

    definition: Definition
    relations: list[Relation]
    tasks: list[SourceTask]
    schedule: dict[str, Any] | None


def sources(value: Any, file: str | None) -> list[Source]:
    """The workflows in an export. Raises UsageError when it is not one."""
    if isinstance(value, dict) and isinstance(value.get("data"), dict | list):  # an answer of the API
        value = value["data"]
    entries = value if isinstance(value, list) else [value]
    if not entries:
        raise UsageError(Problem("the export holds no workflow", file))
    try:
        return [_source(entry) for entry in entries]
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise UsageError(Problem(f"this is not an export of DolphinScheduler: {mismatch(str(error))}", file)) from None


def number(value: Any) -> float:
    """A number that may be written as text; 0 for what is none."""
    try:
        return msgspec.convert(value, float, strict=False)
    except msgspec.ValidationError:
        return 0.0


def embedded(value: Any) -> Any:
    """JSON that may have been put into a text. Raises msgspec.DecodeError."""
    return msgspec.json.decode(value) if isinstance(value, str) and value.strip() else value


def properties(value: Any) -> list[Property]:
    """Global or local parameters, as a list or as text. Raises UsageError for anything else."""
    try:
        return msgspec.convert(embedded(value) or [], list[Property], strict=False)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise UsageError(f"parameters of the export cannot be read: {error}") from None


def _source(entry: Any) -> Source:
    if not isinstance(entry, dict):
        raise msgspec.ValidationError("every workflow must be an object")
    if "processDefinitionJson" in entry:
        return _source_1x(entry)
    definition = entry.get("processDefinition") or entry.get("workflowDefinition")
    if not isinstance(definition, dict):
        raise msgspec.ValidationError("there is no processDefinition, workflowDefinition or processDefinitionJson")
    relations = entry.get("processTaskRelationList") or entry.get("workflowTaskRelationList") or []
    return Source(
        definition=_convert(definition, Definition),
        relations=_convert(relations, list[Relation]),
        tasks=_convert(entry.get("taskDefinitionList") or [], list[SourceTask]),
        schedule=_convert(entry.get("schedule"), dict[str, Any] | None),
    )


def _convert(value: Any, kind: Any) -> Any:
    return msgspec.convert(value, kind, strict=False)


def _source_1x(entry: dict[str, Any]) -> Source:
    """An entry of 1.x: tasks go by name, and settings have other words."""
    body = _convert(embedded(entry["processDefinitionJson"]), dict[str, Any])
    nodes = _convert(body.get("tasks") or [], list[dict[str, Any]])
    definition = Definition(
        name=_convert(entry.get("processDefinitionName") or "", str),
        description=_convert(entry.get("processDefinitionDescription"), str | None),
        global_params=body.get("globalParams"),
        timeout=body.get("timeout"),
        tenant_id=body.get("tenantId"),
        locations=entry.get("processDefinitionLocations"),
    )
    relations = [
        Relation(pre_task_code=before, post_task_code=node.get("name", ""))
        for node in nodes
        for before in _convert(embedded(node.get("preTasks")) or [], list[str])
    ]
    schedule = {key: value for key, value in entry.items() if key.startswith("schedule") and value}
    return Source(definition, relations, [_task_1x(node) for node in nodes], schedule or None)


def _task_1x(node: dict[str, Any]) -> SourceTask:
    timeout = _convert(embedded(node.get("timeout")) or {}, dict[str, Any])
    params = _convert(embedded(node.get("params")) or {}, dict[str, Any])
    apart = {key: embedded(node[key]) for key in ("dependence", "conditionResult") if node.get(key)}
    return SourceTask(
        code=_convert(node.get("name", ""), str),
        name=_convert(node.get("name", ""), str),
        description=_convert(node.get("desc", node.get("description")), str | None),
        task_type=_convert(node.get("type", ""), str),
        task_params={**apart, **params},
        flag="NO" if node.get("runFlag") == "FORBIDDEN" else "YES",
        task_priority=node.get("taskInstancePriority"),
        worker_group=_convert(node.get("workerGroup"), str | None),
        fail_retry_times=node.get("maxRetryTimes"),
        fail_retry_interval=node.get("retryInterval", 1),
        timeout_flag="OPEN" if timeout.get("enable") else "CLOSE",
        timeout_notify_strategy=_convert(timeout.get("strategy"), str | None),
        timeout=timeout.get("interval"),
    )
