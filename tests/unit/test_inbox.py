"""Turns of events: complete, in order, and never in the way of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from dsfast.engine.events import Drain, Event, PeerDead
from dsfast.runtime.inbox import Inbox

ROUNDING_SECONDS = 1e-9  # a sum of two times is not to the last digit what the loop's own milliseconds make


def dead(number: int) -> PeerDead:
    return PeerDead(str(number))


async def test_a_batch_holds_everything_that_is_there_in_order() -> None:
    inbox = Inbox()
    events: list[Event] = [dead(number) for number in range(5)]
    for event in events:
        inbox.put(event)
    assert len(inbox) == 5
    assert await inbox.batch() == events
    assert len(inbox) == 0


async def test_a_batch_waits_for_the_first_event_and_takes_those_that_came_with_it() -> None:
    inbox = Inbox()
    waiting = asyncio.ensure_future(inbox.batch())
    await asyncio.sleep(0)
    assert not waiting.done()
    inbox.put(dead(1))
    inbox.put(dead(2))
    assert await waiting == [dead(1), dead(2)]


async def test_what_is_put_first_comes_before_what_was_there_and_ends_the_wait() -> None:
    inbox = Inbox(batch_events_max=2)
    for number in range(3):
        inbox.put(dead(number))
    inbox.put_first(dead(9))
    assert await inbox.batch() == [dead(9), dead(0)]
    assert await inbox.batch() == [dead(1), dead(2)]
    waiting = asyncio.ensure_future(inbox.batch())
    await asyncio.sleep(0)
    inbox.put_first(dead(10))
    assert await waiting == [dead(10)]


async def test_a_batch_is_bounded_and_the_rest_comes_next() -> None:
    inbox = Inbox(batch_events_max=3)
    for number in range(7):
        inbox.put(dead(number))
    assert [len(await inbox.batch()) for _ in range(3)] == [3, 3, 1]


async def test_events_put_while_a_turn_is_computed_are_the_next_turn() -> None:
    inbox = Inbox()
    inbox.put(dead(1))
    turn = await inbox.batch()
    inbox.put(dead(2))
    assert turn == [dead(1)]
    assert await inbox.batch() == [dead(2)]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_deadline_ends_the_wait_with_an_empty_turn_and_not_too_early(run: Callable[..., None]) -> None:
    async def wait_for_deadlines() -> None:
        inbox = Inbox()
        loop = asyncio.get_running_loop()
        for wait in (0.001, 0.0014, 0.0012, 0.0026, 0.003, -1.0):
            until = loop.time() + wait
            assert await inbox.batch(until) == []
            assert loop.time() > until - ROUNDING_SECONDS

    run(wait_for_deadlines())


async def test_an_event_before_the_deadline_ends_the_wait_and_the_timer_does_not_disturb_the_next_one() -> None:
    inbox = Inbox()
    loop = asyncio.get_running_loop()
    first = asyncio.ensure_future(inbox.batch(loop.time() + 0.002))
    await asyncio.sleep(0)
    inbox.put(Drain())
    assert await first == [Drain()]
    second = asyncio.ensure_future(inbox.batch())
    await asyncio.sleep(0.004)  # past the first deadline
    assert not second.done()
    inbox.put(Drain())
    assert await second == [Drain()]


async def test_a_reader_that_is_cancelled_loses_nothing() -> None:
    inbox = Inbox()
    waiting = asyncio.ensure_future(inbox.batch())
    await asyncio.sleep(0)
    waiting.cancel()
    inbox.put(Drain())
    assert await inbox.batch() == [Drain()]


async def test_a_busy_reader_lets_everything_else_run_once_per_batch() -> None:
    inbox = Inbox(batch_events_max=1)
    ran: list[int] = []

    async def neighbour() -> None:
        for number in range(10):
            ran.append(number)
            await asyncio.sleep(0)

    for number in range(10):
        inbox.put(dead(number))
    other = asyncio.ensure_future(neighbour())
    for _ in range(10):
        await inbox.batch()
    assert len(ran) == 10
    await other
