"""The session's ZooKeeper: started on first use, ended with the session."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from kazoo.client import KazooClient

from dsfast.chaos import zookeeper
from dsfast.chaos.zookeeper import LOOPBACK, START_SECONDS_MAX, Ensemble, free_port

COUNTED = "4lw.commands.whitelist=ruok,srvr,dump,cons\n"  # cons: for `received`

__all__ = ["ZooKeeperServer", "free_port", "zookeeper_ensemble", "zookeeper_server", "zookeeper_url"]


class ZooKeeperServer(zookeeper.ZooKeeperServer):
    """A server that tests look into."""

    def client(self) -> KazooClient:
        """A started client of the bare server, to look around and to make trouble with."""
        client = KazooClient(hosts=self.hosts, timeout=20.0)
        client.start(timeout=START_SECONDS_MAX)
        return client

    def received(self) -> dict[str, int]:
        """How many packets each session's connection has sent so far, pings included."""
        answer = self._ask(b"cons").decode()
        return {sid: int(packets) for packets, sid in re.findall(r"recved=(\d+),.*?sid=(0x[0-9a-f]+)", answer)}


@pytest.fixture(scope="session")
def zookeeper_server() -> Iterator[ZooKeeperServer]:
    """The session's ZooKeeper. A test that stops it starts it again."""
    server = ZooKeeperServer(COUNTED)
    yield server
    server.close()


@pytest.fixture(scope="module")
def zookeeper_ensemble() -> Iterator[Ensemble]:
    """Three servers, of which one without the others serves readers only. A test that stops some starts them again."""
    ensemble = Ensemble([(LOOPBACK, ())] * 3, ("-Dreadonlymode.enabled=true",))
    yield ensemble
    ensemble.close()


@pytest.fixture
def zookeeper_url(zookeeper_server: ZooKeeperServer) -> str:
    """A registry URL with a fresh chroot."""
    return zookeeper_server.new_url()
