"""The keys that tasks of every type have in YAML: what each may hold, and the model attribute it becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dsfast.formats.durations import parse_duration
from dsfast.formats.findings import Findings, Path
from dsfast.model import OnDisconnect, OnFailure, Priority, Retry

PRIORITIES = {priority.name.lower(): priority for priority in Priority}
ON_FAILURE = {choice.name.lower(): choice for choice in OnFailure}
RETRY_KEYS = ("limit", "delay", "backoff", "delay_max")

ON_DISCONNECT_KEYS = ("replace", "stop_after", "replace_after")

Reader = Callable[[Any, Path, Findings], Any]  # returns None for what it has refused


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a task."""

    attribute: str
    read: Reader


def read_text(value: Any, at: Path, findings: Findings) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        findings.add(at, f"must be text, not the number {value}", "put it in quotes")
    else:
        findings.add(at, f"must be text, not {kind(value)}")
    return None


def read_choice(choices: dict[str, Any]) -> Reader:
    """A reader of one of these words."""

    def read(value: Any, at: Path, findings: Findings) -> Any:
        if isinstance(value, str) and value.lower() in choices:
            return choices[value.lower()]
        shown = repr(value) if isinstance(value, str | int | float) else kind(value)
        near = findings.near(value.lower(), choices) if isinstance(value, str) else None
        findings.add(at, f"must be one of {', '.join(choices)}, not {shown}", near)
        return None

    return read


def read_duration(value: Any, at: Path, findings: Findings) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, str):
        findings.add(at, f'must be a duration such as 90 (seconds) or "1h 30m", not {kind(value)}')
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        findings.add(at, str(error))
        return None


def read_bool(value: Any, at: Path, findings: Findings) -> bool | None:
    if isinstance(value, bool):
        return value
    shown = repr(value) if isinstance(value, str | int | float) else kind(value)
    findings.add(at, f"must be true or false, not {shown}")
    return None


def read_needs(value: Any, at: Path, findings: Findings) -> tuple[str, ...] | None:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        findings.add(at, f"must be the name of a task or a list of names, not {kind(value)}")
        return None
    if all(each.__class__ is str for each in value):
        return tuple(value)
    for position, each in enumerate(value):
        read_text(each, (*at, position), findings)
    return tuple(each for each in value if isinstance(each, str))


def read_retry(value: Any, at: Path, findings: Findings) -> Retry | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return Retry(limit=value)
    if not isinstance(value, dict):
        findings.add(at, f"must be how often to retry, or a mapping of {', '.join(RETRY_KEYS)}, not {kind(value)}")
        return None
    fields = _read_fields(value, RETRY_KEYS, "retries have", _read_retry_field, at, findings)
    if "limit" not in value:
        findings.add(at, "`limit` is missing: how often to retry")
    return Retry(**fields)


def _read_retry_field(key: str, value: Any, at: Path, findings: Findings) -> int | float | None:
    if key in ("delay", "delay_max"):
        return read_duration(value, at, findings)
    if key == "backoff" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if key == "limit" and isinstance(value, int) and not isinstance(value, bool):
        return value
    shown = repr(value) if isinstance(value, str | float) else kind(value)
    findings.add(at, f"must be a {'whole ' if key == 'limit' else ''}number, not {shown}")
    return None


def read_on_disconnect(value: Any, at: Path, findings: Findings) -> OnDisconnect | None:
    if not isinstance(value, dict):
        findings.add(at, f"must be a mapping of {', '.join(ON_DISCONNECT_KEYS)}, not {kind(value)}")
        return None
    return OnDisconnect(**_read_fields(value, ON_DISCONNECT_KEYS, "it has", _read_on_disconnect_field, at, findings))


def _read_on_disconnect_field(key: str, value: Any, at: Path, findings: Findings) -> bool | float | None:
    return (read_bool if key == "replace" else read_duration)(value, at, findings)


def _read_fields(
    value: dict[Any, Any],
    keys: tuple[str, ...],
    have: str,
    read: Callable[[str, Any, Path, Findings], Any],
    at: Path,
    findings: Findings,
) -> dict[str, Any]:
    """What a mapping with these keys holds; any other key is a finding, which begins as `have` says."""
    fields: dict[str, Any] = {}
    for key, each in value.items():
        if key not in keys:
            otherwise = f"there are {', '.join(keys)}"
            findings.add((*at, key), f"{have} no `{key}`", findings.near(key, keys, otherwise))
        elif (found := read(key, each, (*at, key), findings)) is not None:
            fields[key] = found
    return fields


def read_env(value: Any, at: Path, findings: Findings) -> dict[str, str] | None:
    if not isinstance(value, dict):
        findings.add(at, f"must be a mapping of names to values, not {kind(value)}")
        return None
    for key, each in value.items():
        if isinstance(each, dict | list):
            findings.add((*at, key), f"must be text, not {kind(each)}")
    return {key: _env_text(each) for key, each in value.items() if not isinstance(each, dict | list)}


def _env_text(value: Any) -> str:
    """Text is as it was written; only what came by an alias or a merge can still be something else."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def kind(value: Any) -> str:
    """What a value is, in a word for people."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    return "text" if isinstance(value, str) else "a list" if isinstance(value, list) else "a mapping"


TASK_KEYS = {
    "type": Key("type", read_text),
    "needs": Key("needs", read_needs),
    "retries": Key("retry", read_retry),
    "timeout": Key("timeout", read_duration),
    "delay": Key("delay", read_duration),
    "priority": Key("priority", read_choice(PRIORITIES)),
    "worker_group": Key("group", read_text),
    "env": Key("env", read_env),
    "working_dir": Key("workdir", read_text),
    "enabled": Key("enabled", read_bool),
    "on_disconnect": Key("on_disconnect", read_on_disconnect),
}
