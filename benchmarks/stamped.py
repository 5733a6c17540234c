"""`python -m benchmarks.stamped master|worker`: a daemon that notes when it comes to each part of a hop.

It is dsfast as it is, with a note of the monotonic clock, which all processes of a machine share, at some of its calls.
A note costs some 0.3 us. They are written to the folder that DSFAST_BENCH_STAMPS names when the daemon ends.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from dsfast.cli.main import main
from dsfast.engine.master import MasterEngine
from dsfast.runtime.journal import Journal
from dsfast.runtime.link import Link
from dsfast.runtime.master import Master
from dsfast.runtime.worker import Worker

FOLDER = "DSFAST_BENCH_STAMPS"
PARTS: dict[str, list[tuple[type, str, str, str]]] = {  # class, method, and the marks of its begin and its end
    "master": [
        (Link, "data_received", "master reads", ""),
        (MasterEngine, "step", "master decides", "master has decided"),
        (Master, "_commit", "", "master has committed"),
    ],
    "worker": [
        (Link, "data_received", "worker reads", ""),
        (Worker, "_turn", "worker runs", ""),
        (Journal, "write", "worker keeps", "worker has kept"),
    ],
}

Stamps = list[tuple[int, str]]  # nanoseconds and mark


def stamp(stamps: Stamps, owner: type, method: str, begin: str, end: str) -> None:
    """Have a method note when it begins and ends; an empty mark is not noted."""
    original: Callable[..., Any] = getattr(owner, method)

    def note(mark: str) -> None:
        if mark:
            stamps.append((time.monotonic_ns(), mark))

    @functools.wraps(original)
    def noted(*arguments: Any) -> Any:
        note(begin)
        try:
            return original(*arguments)
        finally:
            note(end)

    @functools.wraps(original)
    async def noted_when_done(*arguments: Any) -> Any:
        try:
            return await original(*arguments)
        finally:
            note(end)

    setattr(owner, method, noted_when_done if inspect.iscoroutinefunction(original) else noted)


def serve(role: str) -> None:
    """Be that daemon."""
    stamps: Stamps = []
    for part in PARTS[role]:
        stamp(stamps, *part)
    path = Path(os.environ[FOLDER], f"{role}.json")
    atexit.register(lambda: path.write_bytes(msgspec.json.encode(stamps)))
    main()


if __name__ == "__main__":
    serve(sys.argv[1])
