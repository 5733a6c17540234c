"""The session's ZooKeeper: started on first use, ended with the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kazoo.client import KazooClient

from dsfast.chaos import zookeeper
from dsfast.chaos.zookeeper import START_SECONDS_MAX, free_port

__all__ = ["ZooKeeperServer", "free_port", "zookeeper_server", "zookeeper_url"]


class ZooKeeperServer(zookeeper.ZooKeeperServer):
    """A server that tests look into."""

    def client(self) -> KazooClient:
        """A started client of the bare server, to look around and to make trouble with."""
        client = KazooClient(hosts=self.hosts, timeout=20.0)
        client.start(timeout=START_SECONDS_MAX)
        return client


@pytest.fixture(scope="session")
def zookeeper_server() -> Iterator[ZooKeeperServer]:
    """The session's ZooKeeper. A test that stops it starts it again."""
    server = ZooKeeperServer()
    yield server
    server.close()


@pytest.fixture
def zookeeper_url(zookeeper_server: ZooKeeperServer) -> str:
    """A registry URL with a fresh chroot."""
    return zookeeper_server.new_url()
