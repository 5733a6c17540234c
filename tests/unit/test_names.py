"""Names and their addresses: one question at a time for each, which nobody has to wait for."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from dsfast.runtime.names import Names

DEADLINE_SECONDS = 10.0


class Resolver:
    """The system's resolver, which answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = threading.Event()

    def getaddrinfo(self, host: str, port: object, **_: object) -> list[tuple[object, ...]]:
        self.asked.append(host)
        assert self.answer.wait(DEADLINE_SECONDS)
        if host == "unknown":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, None, None, None, (f"10.0.0.{len(host)}", 0))]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    made = Resolver()
    monkeypatch.setattr("dsfast.runtime.names.socket.getaddrinfo", made.getaddrinfo)
    yield made
    made.answer.set()


@pytest.mark.parametrize(("host", "family"), [("10.1.2.3", socket.AF_INET), ("::1", socket.AF_INET6)])
async def test_an_address_is_its_own_address(resolver: Resolver, host: str, family: int) -> None:
    assert await Names().address(host) == (family, host)
    assert not resolver.asked


async def test_a_name_that_is_being_asked_for_is_not_asked_for_again(resolver: Resolver) -> None:
    names = Names()
    for _ in range(20):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await names.address("slow")
    waiting = [asyncio.ensure_future(names.address("slow")) for _ in range(3)]
    other = asyncio.ensure_future(names.address("other"))
    resolver.answer.set()
    assert await asyncio.gather(*waiting) == [(socket.AF_INET, "10.0.0.4")] * 3
    assert await other == (socket.AF_INET, "10.0.0.5")
    assert sorted(resolver.asked) == ["other", "slow"]
    await names.address("slow")
    assert resolver.asked.count("slow") == 2, "an answer is good for those who wait for it"


async def test_a_name_that_nobody_knows_is_told_in_the_resolvers_words(resolver: Resolver) -> None:
    resolver.answer.set()
    with pytest.raises(OSError, match="not known"):
        await Names().address("unknown")


@pytest.mark.parametrize("host", ["a" * 64 + ".test", "a..b", "\0"])
async def test_what_cannot_be_a_name_is_trouble_of_the_dialled_one_only(host: str) -> None:
    with pytest.raises(OSError, match=r"host name|not known|service"):
        await Names().address(host)


async def test_a_machine_without_threads_is_trouble_of_the_dialled_one_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(OSError, match="cannot be looked up: can't start new thread"):
        await Names().address("name")
