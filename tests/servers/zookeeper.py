"""The session's ZooKeeper: started on first use, ended with the session."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import KazooException

from dsfast.chaos import zookeeper
from dsfast.chaos.zookeeper import LOOPBACK, START_SECONDS_MAX, Ensemble

COUNTED = "4lw.commands.whitelist=ruok,srvr,dump,cons\n"  # cons: for `received`
WIPES_MAX = 100

__all__ = ["ZooKeeperServer", "wipe", "zookeeper_ensemble", "zookeeper_server", "zookeeper_url"]


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


def wipe(client: KazooClient, path: str) -> None:
    """Delete a node and all below it at once: nobody can grow a part of it again while the rest is being cut."""
    for _ in range(WIPES_MAX):
        cut = client.transaction()
        for node in reversed(_tree(client, path)):
            cut.delete(node)
        if not any(isinstance(result, KazooException) for result in cut.commit()):
            return
    raise AssertionError(f"{path} changes faster than it can be listed")


def _tree(client: KazooClient, path: str) -> list[str]:
    children = client.get_children(path)
    return [path, *(node for name in children for node in _tree(client, f"{path}/{name}"))]


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
