"""A bug that kills something in the background ends the daemon, with the bug as its story."""

from __future__ import annotations

import asyncio

import pytest

from dsfast.fatal import report_fatal, until_fatal


async def test_a_daemon_ends_with_the_bug_after_it_has_cleaned_up() -> None:
    cleaned = []

    async def daemon() -> None:
        try:
            asyncio.get_running_loop().call_soon(report_fatal, "the registry's task died", ZeroDivisionError())
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    with pytest.raises(ZeroDivisionError):
        await until_fatal(daemon())
    assert cleaned


async def test_other_trouble_of_the_loop_is_logged_and_ends_nothing() -> None:
    async def daemon() -> str:
        asyncio.get_running_loop().call_exception_handler({"message": "a callback failed", "exception": OSError()})
        await asyncio.sleep(0)
        return "done"

    assert await until_fatal(daemon()) == "done"


async def test_a_daemon_that_is_cancelled_is_cancelled() -> None:
    ended = asyncio.Event()

    async def daemon() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    outer = asyncio.create_task(until_fatal(daemon()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    outer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await outer
    await ended.wait()
