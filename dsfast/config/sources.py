"""Where values come from: flags, environment, file, defaults. Collects every problem, not just the first."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dsfast.config.kinds import PATH, URL, Setting
from dsfast.errors import Problem, UsageError

DEFAULT = "default"  # the origin of a value that nobody set
FLAG = "flag"  # the origin of a value that an option of the command set
LOCAL_FILE = Path("dsfast.toml")
SYSTEM_FILE = Path("/etc/dsfast/config.toml")
FILE_BYTES_MAX = 1 << 20  # a configuration is a page or two; more is the wrong file

_KEY_LINE = re.compile(r"\s*([A-Za-z0-9_-]+(?:\s*\.\s*[A-Za-z0-9_-]+)*)\s*=")
_TABLE_LINE = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]")


@dataclass(frozen=True, slots=True)
class Raw:
    """A value as somebody wrote it, and where."""

    value: Any
    origin: str
    line: int | None = None


class Sources:
    """All places of values, read once. `problems` grows as values are asked for."""

    def __init__(
        self,
        known: list[Setting],
        path: str | Path | None,
        flags: Mapping[str, Any],
        environ: Mapping[str, str],
    ) -> None:
        self.problems: list[Problem] = []
        self.origins: dict[str, str] = {}
        self._keys = [setting.key for setting in known]
        self._environ = environ
        self.file = find_file(path, environ)
        self._raw: dict[str, Raw] = {}
        self._read_file()
        self._read_environment(known)
        self._read_flags(flags)
        self._words: dict[str, Any] = {
            "hostname": hostname(),
            "cpus": len(os.sched_getaffinity(0)),
            "state_home": state_home(environ),
        }

    def value(self, setting: Setting) -> Any:
        """The parsed value of a setting, or None after noting what is wrong with it."""
        raw = self._raw.get(setting.key) or Raw(self._filled(setting), DEFAULT)
        self.origins[setting.key] = raw.origin
        try:
            value = setting.kind.parse(raw.value)
        except ValueError as error:
            self._complain(str(error), setting.key, raw)
            return None
        if setting.kind is PATH:
            value = self._absolute(value, raw)
        if setting.key == "state_dir":
            self._words["state_dir"] = value
        return value

    def _filled(self, setting: Setting) -> Any:
        if not isinstance(setting.default, str):
            return setting.default
        words = self._words
        if setting.kind is URL:
            words = {name: quote(str(word)) for name, word in words.items()}
        return setting.default.format(**words)

    def _absolute(self, path: Path, raw: Raw) -> Path:
        in_file = raw.line is not None and self.file is not None
        base = self.file.parent if in_file and self.file is not None else Path()
        return (base / path).absolute()

    def _complain(self, message: str, key: str, raw: Raw) -> None:
        in_file = raw.line is not None
        place = str(self.file) if in_file else raw.origin
        self.problems.append(Problem(message, file=place, line=raw.line, field=key))

    def _read_file(self) -> None:
        if self.file is None:
            return
        text = _read_text(self.file)
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(Problem(f"is not valid TOML: {error}", file=str(self.file))) from None
        lines = _lines_of_keys(text)
        for key, value in _flat(tables, {key.partition(".")[0] for key in self._keys if "." in key}):
            line = lines.get(key) or lines.get(key.partition(".")[0]) or 1
            self._take(key, Raw(value, f"{self.file}:{line}", line))

    def _read_environment(self, known: list[Setting]) -> None:
        variables = {setting.env: setting.key for setting in known}
        sections = tuple("DSFAST_" + key.partition(".")[0].upper() + "_" for key in self._keys if "." in key)
        for name, value in self._environ.items():
            if name in variables:
                self._take(variables[name], Raw(value, f"${name}"))
            elif name.startswith(sections):
                hint = near(name, variables)
                self.problems.append(Problem("no setting has this name", file=f"${name}", hint=hint))

    def _read_flags(self, flags: Mapping[str, Any]) -> None:
        for key, value in flags.items():
            self._take(key, Raw(value, FLAG))

    def _take(self, key: str, raw: Raw) -> None:
        if key in self._keys:
            self._raw[key] = raw
            return
        place = str(self.file) if raw.line is not None else raw.origin
        message = f"there is no setting {key!r}"
        self.problems.append(Problem(message, file=place, line=raw.line, hint=near(key, self._keys)))


def find_file(path: str | Path | None, environ: Mapping[str, str]) -> Path | None:
    """The configuration file to read, if any. Raises UsageError when one was named and is not there."""
    named = path or environ.get("DSFAST_CONFIG")
    if named:
        file = Path(named).expanduser()
        if not file.is_file():
            raise UsageError(Problem("there is no such configuration file", file=str(file)))
        return file.absolute()
    for candidate in (LOCAL_FILE, _config_home(environ) / "dsfast" / "config.toml", SYSTEM_FILE):
        if candidate.is_file():
            _require_trusted(candidate)
            return candidate.absolute()
    return None


def _require_trusted(file: Path) -> None:
    """A file that was found, not named, must be ours or root's: it decides where keys are read and what is run."""
    status = file.stat()
    if status.st_uid not in (os.getuid(), 0) or status.st_mode & 0o002:
        hint = f"if you trust it, name it: --config {file}"
        raise UsageError(Problem("other users can write this configuration file", file=str(file), hint=hint))


def _config_home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()


def state_home(environ: Mapping[str, str]) -> Path:
    """Where the user's programs keep their state."""
    return Path(environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()


def hostname() -> str:
    """The machine's name."""
    return os.uname().nodename


def near(word: str, known: Iterable[str]) -> str | None:
    """A hint that names the known word closest to this one, if one is close."""
    import difflib  # only after a mistake

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else None


def _read_text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise UsageError(Problem(f"is larger than {FILE_BYTES_MAX} bytes", file=str(file)))
        return data.decode()
    except OSError as error:
        raise UsageError(Problem(f"cannot be read: {error.strerror}", file=str(file))) from None
    except UnicodeDecodeError:
        raise UsageError(Problem("is not UTF-8 text", file=str(file))) from None


def _flat(tables: Mapping[str, Any], sections: set[str]) -> Iterable[tuple[str, Any]]:
    for name, value in tables.items():
        if name in sections and isinstance(value, dict):
            yield from ((f"{name}.{entry}", inner) for entry, inner in value.items())
        else:
            yield name, value


def _lines_of_keys(text: str) -> dict[str, int]:
    """Line of each key, as "section.key", found by its look; good enough to point at, never used to decide."""
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _TABLE_LINE.match(line):
            table = match[1].replace(" ", "")
            lines.setdefault(table, number)
        elif match := _KEY_LINE.match(line):
            key = match[1].replace(" ", "")
            lines.setdefault(f"{table}.{key}" if table else key, number)
    return lines
