"""Integration tests run on the loop that daemons run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop

from tests.integration.nursery import Nursery


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Starts daemons quickly; those that still run end with it."""
    made = Nursery()
    yield made
    made.close()
