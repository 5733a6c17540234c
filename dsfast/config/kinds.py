"""What a setting's value may be: how it is read, and what is said if it is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLICIES = ("least_loaded", "round_robin", "smooth_weighted", "random", "fixed_weight")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("logfmt", "json")

_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_UNIT_BYTES = {"": 1, "b": 1} | {
    letter + suffix: base**power
    for power, letter in enumerate("kmgt", start=1)
    for suffix, base in (("", 1024), ("ib", 1024), ("b", 1000))
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value; `parse` takes what TOML or a text holds and raises ValueError with a sentence."""

    name: str
    parse: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """One configurable value. `default` may name {state_dir}, {hostname} and {cpus}."""

    key: str
    kind: Kind
    default: Any
    doc: str

    @property
    def env(self) -> str:
        """The environment variable that sets it."""
        return "DSFAST_" + self.key.upper().replace(".", "_")


def seconds(value: Any) -> float:
    """A duration: a number of seconds, or a text such as "90s" or "1h 30m"."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value)
    else:
        number = _seconds_of_text(str(value).strip().lower())
    if not 0 <= number < float("inf"):
        raise ValueError(f"a duration is not negative and not infinite: {value!r}")
    return number


def _seconds_of_text(text: str) -> float:
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not text or not re.fullmatch(f"(?:{_DURATION.pattern})+", text):
        raise ValueError(f'{text!r} is not a duration; write seconds, or such as "10s", "500ms" or "1h 30m"')
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION.findall(text))


def _size(value: Any) -> int:
    match = _SIZE.fullmatch(str(value).strip().lower())
    if isinstance(value, bool) or match is None or match[2] not in _UNIT_BYTES:
        raise ValueError(f'{value!r} is not a size; write bytes, or such as "64 MiB" or "1 GiB"')
    return int(float(match[1]) * _UNIT_BYTES[match[2]])


def _integer(value: Any, least: int, most: int, what: str) -> int:
    text = str(value).strip()
    if isinstance(value, (bool, float)) or not re.fullmatch(r"-?\d+", text) or not least <= int(text) <= most:
        raise ValueError(f"{value!r} is not {what} ({least} to {most})")
    return int(text)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")
    return value.strip()


def _url(value: Any) -> str:
    text = _text(value)
    if "://" not in text:
        raise ValueError(f"{text!r} is not a URL: it has no ://")
    return text


def _name(value: Any) -> str:
    text = _text(value)
    if not _NAME.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a name: at most 100 letters, digits, '.', '_' and '-', a letter or digit first"
        )
    return text


def _names(value: Any) -> tuple[str, ...]:
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(parts, list) or not parts:
        raise ValueError(f"{value!r} is not a list of names")
    return tuple(dict.fromkeys(_name(part) for part in parts))


def _path(value: Any) -> Path:
    text = _text(value)
    if not text or "\0" in text:
        raise ValueError("a path is not empty")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"{text!r}: there is no such home directory") from None


def _switch(value: Any) -> bool:
    words = {"on": True, "true": True, "off": False, "false": False}
    if str(value).lower() not in words:
        raise ValueError(f"{value!r} is neither on nor off")
    return words[str(value).lower()]


def _choice(*options: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in options:
            raise ValueError(f"{value!r} is none of {', '.join(options)}")
        return str(value)

    return parse


TEXT = Kind("text", _text)
URL = Kind("URL", _url)
NAME = Kind("name", _name)
NAMES = Kind("list of names", _names)
PATH = Kind("path", _path)
SWITCH = Kind("on | off", _switch)
DURATION = Kind("duration", seconds)
SIZE = Kind("size", _size)
PORT = Kind("port", lambda value: _integer(value, 0, 65535, "a port"))
COUNT = Kind("number", lambda value: _integer(value, 1, 1_000_000, "a number"))
POLICY = Kind(" | ".join(POLICIES), _choice(*POLICIES))
LOG_LEVEL = Kind(" | ".join(LOG_LEVELS), _choice(*LOG_LEVELS))
LOG_FORMAT = Kind(" | ".join(LOG_FORMATS), _choice(*LOG_FORMATS))
