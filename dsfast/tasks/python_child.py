"""Runs users' Python code in a process of its own, one attempt after the other. Standard library only.

Started as `python -I python_child.py PATH...`, it imports what it needs before PATH is searched, so a user's
json.py cannot take the place of the real one. Descriptor 3 leads to the worker: a line of JSON comes in for each
attempt, `+` goes back when it is taken up, then a line of JSON with its end. Standard output goes to the attempt's log.

Between attempts everything that code commonly changes is put back: environment, directory, signal handlers, umask,
sys.path and sys.argv. Modules that came from PATH are forgotten, so each attempt sees them as they are on disk
and none sees another's globals; installed packages stay loaded. Where that cannot be done (threads left running,
a compiled module in PATH), the answer is not `clean` and the worker ends this process.
"""

from __future__ import annotations

import _thread
import ctypes
import importlib
import importlib.machinery
import json
import linecache
import os
import signal
import sys
import time
import traceback
import types
from typing import Any

CHANNEL = 3
REASON_LENGTH_MAX = 500  # characters: a reason is a line in a table, the traceback is in the log
_SUFFIXES = tuple(importlib.machinery.EXTENSION_SUFFIXES)


def serve(path: list[str]) -> None:
    """Run attempts until the worker closes the channel."""
    os.set_inheritable(CHANNEL, False)
    sys.path[:0] = path
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    before = _State()
    with open(CHANNEL, "rb", closefd=False) as requests:
        for line in requests:
            _send(b"+\n")
            reply = _attempt(json.loads(line))
            reply["clean"] = before.restore_or_give_up(path)
            _send(json.dumps(reply).encode() + b"\n")


def _send(data: bytes) -> None:
    while data:
        data = data[os.write(CHANNEL, data) :]


def _attempt(request: dict[str, Any]) -> dict[str, Any]:
    """Run one attempt; its exit code, the reason if it failed, its result as JSON text if it has one."""
    try:
        _enter(request)
    except OSError as error:
        return _failed(f"cannot begin: {error}", 126)
    try:
        return _succeeded(_call(request) if request["call"] else _source(request), request["result_bytes_max"])
    except SystemExit as error:
        return _exited(error.code)
    except BaseException as error:  # noqa: BLE001 - whatever users' code raises is the attempt's end, not ours
        _print_traceback(error)
        return _failed(_sentence(error), 1)


def _enter(request: dict[str, Any]) -> None:
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    _redirect(log)
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    os.chdir(request["workdir"])


def _redirect(fd: int) -> None:
    """Standard output and error go to `fd`, which is closed."""
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)  # what C libraries have printed and still hold
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def _call(request: dict[str, Any]) -> Any:
    module, _, name = request["call"].partition(":")
    target: Any = importlib.import_module(module)
    for part in name.split("."):
        target = getattr(target, part)
    return target(**request["args"])


def _source(request: dict[str, Any]) -> Any:
    """Run the source as a script with the arguments as its variables; what it leaves in `result` is its result."""
    text, name = request["source"], "<{}>".format(request["name"])
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)  # for the lines in tracebacks
    main = types.ModuleType("__main__")
    main.__dict__.update(request["args"], __builtins__=__builtins__)
    sys.modules["__main__"] = main
    exec(compile(text, name, "exec", dont_inherit=True), main.__dict__)  # noqa: S102 - this is the process for it
    return main.__dict__.get("result")


def _succeeded(result: Any, bytes_max: int) -> dict[str, Any]:
    if result is None:
        return {"exit_code": 0}
    try:
        text = _clean(json.dumps(result, ensure_ascii=False, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        return _failed(f"the result cannot be handed on as JSON: {error}", 1)
    if len(text) > bytes_max:
        return _failed(f"the result is longer than {bytes_max} bytes as JSON: hand on names, not data", 1)
    return {"exit_code": 0, "result": text}


def _failed(reason: str, exit_code: int) -> dict[str, Any]:
    return {"exit_code": exit_code, "reason": _clean(reason[:REASON_LENGTH_MAX])}


def _clean(text: str) -> str:
    """The text without lone surrogates, which no JSON reader outside Python accepts."""
    return text.encode("utf-8", "replace").decode()


def _exited(code: object) -> dict[str, Any]:
    """What sys.exit(code) means: a number is the exit code, a text is said and means failure."""
    if code is None or code == 0:
        return {"exit_code": 0}
    if isinstance(code, int):
        return _failed(f"exit code {code & 0xFF}", code & 0xFF)
    print(code, file=sys.stderr)  # noqa: T201 - as Python does
    return _failed(str(code), 1)


def _print_traceback(error: BaseException) -> None:
    """The traceback without our own frames, which say nothing about the user's code."""
    trace = error.__traceback__
    while trace is not None and _is_ours(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace)


def _is_ours(file: str) -> bool:
    return file in (__file__, importlib.__file__) or file.startswith("<frozen importlib")


def _sentence(error: BaseException) -> str:
    try:
        said = str(error).strip().split("\n")[0]
    except Exception:  # noqa: BLE001 - __str__ is users' code as well
        said = ""
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


class _State:
    """What is put back after each attempt."""

    def __init__(self) -> None:
        self.main = sys.modules["__main__"]
        self.streams = sys.stdin, sys.stdout, sys.stderr
        self.path = list(sys.path)
        self.argv = list(sys.argv)
        self.mask = os.umask(0o077)
        os.umask(self.mask)
        self.signals = {number: signal.getsignal(number) for number in signal.valid_signals()}

    def restore_or_give_up(self, path: list[str]) -> bool:
        """Put everything back; False if this process should not run another attempt."""
        try:
            return self._restore(path)
        except Exception:  # noqa: BLE001 - users' code can break anything in this process: the worker ends it
            return False

    def _restore(self, path: list[str]) -> bool:
        sys.stdin, sys.stdout, sys.stderr = self.streams
        _redirect(os.open(os.devnull, os.O_WRONLY))
        os.chdir("/")
        os.umask(self.mask)
        sys.path[:], sys.argv[:] = self.path, self.argv
        sys.modules["__main__"] = self.main
        for number, handler in self.signals.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signal.alarm(0)
        return _forget_modules(path) and _thread._count() == 0


def _forget_modules(path: list[str]) -> bool:
    """Forget what was imported from these directories; False if something of it is compiled and cannot be."""
    beginnings = tuple(os.path.join(os.path.abspath(entry), "") for entry in path)
    forgettable = True
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.startswith(beginnings):
            forgettable = forgettable and not file.endswith(_SUFFIXES)
            del sys.modules[name]
    importlib.invalidate_caches()
    linecache.clearcache()
    return forgettable


if __name__ == "__main__":
    serve(sys.argv[1:])
