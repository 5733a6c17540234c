"""The dedicated thread: order, errors, callers that went away."""

from __future__ import annotations

import asyncio
import threading

import pytest

from dsfast.store.thread import DedicatedThread


async def test_calls_run_in_order_in_one_other_thread() -> None:
    thread = DedicatedThread("under test")
    seen: list[int] = []
    await asyncio.gather(*(thread.call(seen.append, number) for number in range(100)))
    assert seen == list(range(100))
    assert {await thread.call(threading.get_ident) for _ in range(3)}.isdisjoint({threading.get_ident()})
    thread.stop()


async def test_what_a_call_raises_reaches_its_caller_and_the_thread_goes_on() -> None:
    thread = DedicatedThread("under test")
    with pytest.raises(ZeroDivisionError):
        await thread.call(divmod, 1, 0)
    assert await thread.call(divmod, 7, 2) == (3, 1)
    thread.stop()


async def test_a_call_happens_though_its_caller_was_cancelled() -> None:
    thread = DedicatedThread("under test")
    gate, seen = threading.Event(), list[int]()
    held = asyncio.ensure_future(thread.call(gate.wait))
    cancelled = asyncio.ensure_future(thread.call(seen.append, 1))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    gate.set()
    await held
    await thread.call(seen.append, 2)
    assert seen == [1, 2]
    thread.stop()


async def test_stop_waits_for_the_calls_made_before() -> None:
    thread = DedicatedThread("under test")
    seen: list[int] = []
    calls = [asyncio.ensure_future(thread.call(seen.append, number)) for number in range(10)]
    await asyncio.sleep(0)
    thread.stop()
    assert seen == list(range(10))
    await asyncio.gather(*calls)


def test_a_loop_that_ended_without_waiting_does_not_end_the_thread() -> None:
    thread = DedicatedThread("under test")
    gate = threading.Event()

    async def leave() -> None:
        call = asyncio.ensure_future(thread.call(gate.wait))
        await asyncio.sleep(0)
        call.cancel()

    asyncio.run(leave())
    gate.set()

    async def come_back() -> int:
        return await thread.call(int)

    assert asyncio.run(come_back()) == 0
    thread.stop()
