"""A master whose commits fail, among masters that say whether the database answers them: is it to end, or to wait?"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dsfast.engine.events import LinkUp, Received
from dsfast.errors import Unavailable
from dsfast.runtime import outage
from dsfast.runtime.outage import Outage
from dsfast.store import open_store
from dsfast.store.base import Store
from dsfast.wire.commands import Command, Failed, Probe, Reached
from tests.integration.linking import Node, nodes

AWAY = "postgresql://127.0.0.1:1/nobody-listens-there"
NO = Failed("unavailable", "nor me")


class Cut:
    """A master with an outage, linked to others that answer as they are told."""

    def __init__(self, store: Store) -> None:
        self.node = Node("master", "m0")
        self.outage = Outage(store, self.node.links, logging.getLogger("test"))
        self.began = time.monotonic()
        self.others: list[Node] = []

    async def meet(self, name: str) -> None:
        other = Node("master", name)
        self.others.append(other)
        await other.listen()
        self.node.links.dial(other.me)
        await self.node.expect(LinkUp)
        await other.expect(LinkUp)

    async def verdict(self, *answers: Command) -> None:
        """Fail once, let the others answer, and fail again. Raises Unavailable if it is to end."""
        self.outage.failed(self.began)
        for other, answer in zip(self.others, answers, strict=True):
            question = await other.expect(Received)
            assert isinstance(question.command, Probe)
            other.links.send(question.peer_id, answer, question.request_id)
            other.links.flush()
        await self.asked()
        self.outage.failed(self.began)

    async def asked(self) -> None:
        """Return once it has found out what it asks for."""
        asking = self.outage._asking
        assert asking is not None
        await asyncio.wait([asking])


@asynccontextmanager
async def cut(store: Store, others: int = 2) -> AsyncIterator[Cut]:
    made = Cut(store)
    try:
        for number in range(1, others + 1):
            await made.meet(f"m{number}")
        yield made
    finally:
        await made.outage.close()
        async with nodes(made.node, *made.others):
            pass


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "PATIENCE_SECONDS", 0.0)


async def test_it_ends_if_one_other_reaches_the_database() -> None:
    async with cut(open_store(AWAY)) as made:
        with pytest.raises(Unavailable, match="alone cannot reach the database: master m2 has just been answered"):
            await made.verdict(NO, Reached())


async def test_it_waits_while_the_database_answers_nobody() -> None:
    async with cut(open_store(AWAY)) as made:
        await made.verdict(NO, NO)
        await made.asked()


async def test_it_waits_if_there_is_nobody_to_ask() -> None:
    async with cut(open_store(AWAY), others=0) as made:
        await made.verdict()


async def test_a_master_that_waits_for_its_own_commits_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "ANSWER_SECONDS", 0.1)
    async with cut(open_store(AWAY), others=1) as made:
        made.outage.failed(made.began)
        await made.asked()
        made.outage.failed(made.began)


async def test_a_database_that_answers_and_refuses_is_no_reason_to_ask(tmp_path: Path) -> None:
    """It is full, or read-only: for others, too."""
    store = open_store(f"sqlite:///{tmp_path}/db", create=True)
    await store.open()
    async with cut(store) as made:
        made.outage.failed(made.began)
        await made.asked()
        made.outage.failed(made.began)
        assert all(other.events.empty() for other in made.others)
    await store.close()


async def test_what_was_found_of_an_earlier_outage_ends_nobody_now() -> None:
    async with cut(open_store(AWAY), others=1) as made:
        made.outage.failed(made.began)
        question = await made.others[0].expect(Received)
        made.others[0].links.send(question.peer_id, Reached(), question.request_id)
        made.others[0].links.flush()
        await made.asked()
        made.began = time.monotonic()
        made.outage.failed(made.began)


async def test_a_short_failure_is_no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "PATIENCE_SECONDS", 3600.0)
    async with cut(open_store(AWAY)) as made:
        made.outage.failed(made.began)
        assert made.outage._asking is None
