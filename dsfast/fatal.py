"""Bugs of ours in the background: they stop the daemon, and failover does its work.

A task in the background that dies would leave a daemon that looks alive and is not: one that no longer renews its
lease, or never links to a worker again. Whoever owns such a task reports its end here, to the loop's exception
handler; `until_fatal` runs a daemon and makes that the daemon's end, too. Elsewhere the loop's own handler logs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def report_fatal(message: str, bug: BaseException) -> None:
    """Say that something without which this daemon cannot go on has died of a bug."""
    context = {"message": message, "exception": bug, "fatal": True}
    asyncio.get_running_loop().call_exception_handler(context)


async def until_fatal(daemon: Coroutine[Any, Any, T]) -> T:
    """Run a daemon to its end. Raises the first bug that is reported while it runs, after the daemon has cleaned up."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(daemon)
    bugs: list[BaseException] = []

    def on_trouble(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop.default_exception_handler(context)
        if context.get("fatal"):
            bugs.append(context["exception"])
            task.cancel()

    loop.set_exception_handler(on_trouble)
    try:
        return await task
    except asyncio.CancelledError:
        if bugs:
            raise bugs[0] from None
        task.cancel()
        raise
