"""A task that calls a Python function, or runs a piece of Python, in a warm process beside the worker.

`call` names a function of an installed package, or of a module in one of the directories in `path`; it gets
`args` as keyword arguments. `source` is a script: `args` are its variables, and what it leaves in the variable
`result` is its result. Arguments and result are JSON; a mapping becomes the task's output values, any other
result the one value `result`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import msgspec

from dsfast.tasks.base import Done, Execution, Job

_CALL = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


class PythonConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Either `call` ("module:function") or `source`. Relative directories in `path` begin at the working directory."""

    call: str = ""
    source: str = ""
    args: dict[str, Any] = {}
    path: tuple[str, ...] = ()
    python: str = ""  # the interpreter; empty: the one that runs the worker
    reuse: bool = True  # whether the process may have run, and may run, other attempts


class PythonTask:
    """The task type `python`."""

    name: ClassVar[str] = "python"
    Config: ClassVar[type[msgspec.Struct]] = PythonConfig
    templated: ClassVar[tuple[str, ...]] = ("args",)
    quote: ClassVar[Callable[[str], str] | None] = None
    light: ClassVar[bool] = False

    def __init__(self) -> None:
        self._pool: Any = None  # pool.Pool, made by the first start: checking workflows needs no processes

    def check(self, config: PythonConfig) -> Iterable[tuple[str, str]]:
        if bool(config.call) == bool(config.source.strip()):
            yield "call", "needs either a call or a source, and not both"
        if config.call and not _CALL.fullmatch(config.call):
            yield "call", f"must look like module:function, not {config.call!r}"
        for name in config.args:
            if not name.isidentifier():
                yield "args", f"{name!r} cannot be the name of an argument"
        if config.source and not config.python:  # another interpreter may know another Python
            yield from _syntax(config.source)

    def start(self, job: Job, done: Done) -> Execution:
        from asyncio import get_running_loop

        from dsfast.tasks.pool import Pool, PythonAttempt

        if self._pool is None or self._pool.loop is not get_running_loop():
            self._pool = Pool()
        attempt = PythonAttempt(job, done, self._pool)
        attempt.start()
        return attempt

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()


def _syntax(source: str) -> Iterable[tuple[str, str]]:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        yield "source", f"is not Python: {getattr(error, 'msg', error)}{f' in its line {line}' if line else ''}"
