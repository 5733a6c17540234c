"""What daemons write about themselves: one line per event on standard error, as logfmt or JSON.

    2026-11-20T12:00:00.123Z info master run_submitted run=06zk3v0c2r000 workflow=etl tasks=12

An event has a name and fields; names are stable, so lines can be searched and counted. Control characters
in values are escaped in both formats: a task called "a\\nlevel=error" cannot forge a line. Tracebacks are
for bugs: they are written with CRITICAL events, and with all of them when the level is debug.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from dsfast.config import LogConfig

ROOT = "dsfast"
_PLAIN = re.compile(r"[!#-<>-\[\]-~\u00a1-\ud7ff\ue000-\ufffd]+")  # visible, without quote, equals, backslash


def log_event(
    logger: logging.Logger,
    event: str,
    /,
    *,
    level: int = logging.INFO,
    exc: BaseException | None = None,
    **fields: object,
) -> None:
    """Write one event. Fields that are None are left out; `exc` adds the error."""
    if logger.isEnabledFor(level):
        logger.log(level, "%s", event, exc_info=exc, extra={"event": event, "fields": fields})


def setup_logging(config: LogConfig, role: str, stream: TextIO | None = None) -> logging.Logger:
    """Send everything this process logs to standard error, and return the daemon's own logger."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if config.format == "json" else LogfmtLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger(ROOT).setLevel(config.level.upper())
    return logging.getLogger(f"{ROOT}.{role}")


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, event, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        head = {"time": _time(record), "level": record.levelname.lower(), "logger": _short(record.name)}
        return json.dumps(head | _fields(record), default=str)


class LogfmtLines(logging.Formatter):
    """Time, level, logger and event, then key=value; a value is quoted as in JSON unless it is plain."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        head = [_time(record), record.levelname.lower(), _short(record.name), _plain(fields.pop("event"))]
        return " ".join(head + [f"{key}={_plain(value)}" for key, value in fields.items()])


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    given = getattr(record, "fields", None)
    if given is None:  # a library's own line
        fields: dict[str, Any] = {"event": "message", "text": record.getMessage()}
    else:
        fields = {"event": record.getMessage()} | {key: value for key, value in given.items() if value is not None}
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        fields["error"] = f"{type(error).__name__}: {error}"
        if record.levelno >= logging.CRITICAL or logging.getLogger(ROOT).isEnabledFor(logging.DEBUG):
            fields["traceback"] = logging.Formatter().formatException((type(error), error, error.__traceback__))
    return fields


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _short(name: str) -> str:
    return name.removeprefix(ROOT + ".")


def _plain(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
