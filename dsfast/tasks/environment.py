"""The environment of a task's processes, built from nothing: what is allowed through, what was declared, DSFAST_*.

The worker's own variables hold its cluster key and the database's address, so none is passed on unless
its name is allowed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from dsfast.ids import run_text

ALLOWED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_*", "TZ", "TMPDIR")
KEY = "DSFAST_ATTEMPT_KEY"  # the mark by which a process is known to be an attempt's
WORKER = "DSFAST_WORKER"  # the mark by which the next life of a worker knows what a former one has left
PARAM_BYTES_MAX = 96 << 10  # the kernel takes 128 KiB a variable; a larger value comes by `{{ params.name }}` only
_PARAM = "DSFAST_PARAM_"
_NOT_IN_NAMES = re.compile(r"[^A-Z0-9_]")


def inherit(environ: Mapping[str, str], allowed: Iterable[str]) -> dict[str, str]:
    """Those of the worker's variables that are allowed through by name, `LC_*` standing for all that begin so."""
    names = frozenset(allowed)
    beginnings = tuple(name[:-1] for name in names if name.endswith("*"))
    return {
        name: value
        for name, value in environ.items()
        if (name in names or name.startswith(beginnings)) and not name.startswith("DSFAST_")
    }


def build_env(
    inherited: Mapping[str, str],
    declared: Mapping[str, str],
    *,
    run_id: int,
    task: int,
    attempt: int,
    name: str,
    output: str,
    params: Mapping[str, Any],
    worker: str = "",
) -> dict[str, str]:
    """The complete environment of one attempt of the task `name`; later sources win, DSFAST_* always.

    A param arrives as DSFAST_PARAM_<NAME>, its name in capitals with `_` for every other character. `worker` is the
    mark of the worker.
    """
    run = run_text(run_id)
    own = {
        "DSFAST_RUN_ID": run,
        "DSFAST_TASK": name,
        "DSFAST_ATTEMPT": str(attempt),
        KEY: f"{run}.{task}.{attempt}",
        "DSFAST_OUTPUT": output,
    }
    if worker:
        own[WORKER] = worker
    return {**inherited, **declared, **dict(_params(params)), **own}


def mark(env: Mapping[str, str]) -> tuple[str, ...]:
    """What tells the attempt's processes from others, wherever they move to; empty for an environment without key."""
    return (f"{KEY}={env[KEY]}",) if KEY in env else ()


def _params(params: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in params.items():
        text = _text(value)
        if len(text.encode(errors="surrogatepass")) <= PARAM_BYTES_MAX and "\0" not in text:
            yield _PARAM + _NOT_IN_NAMES.sub("_", name.upper()), text


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
