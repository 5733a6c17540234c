"""What ZooKeeper and its administrators can do to a registry, with a real server."""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError
from kazoo.security import OPEN_ACL_UNSAFE

from dsfast.chaos.ports import free_port
from dsfast.errors import Unavailable, UsageError
from dsfast.registry import Registry, Session, open_registry
from dsfast.registry.ensemble import parse_ensemble
from dsfast.registry.leased import RosterRegistry
from dsfast.registry.roster import encode
from dsfast.registry.zookeeper import ZooKeeperRoster, new_client, node_name
from tests.contract.registries import Cluster, Seen, ServedGround, worker
from tests.servers.zookeeper import ZooKeeperServer, wipe

C, S, L = Session.CONNECTED, Session.SUSPENDED, Session.LOST


@pytest.fixture
async def cluster(zookeeper_server: ZooKeeperServer, zookeeper_url: str) -> AsyncIterator[Cluster]:
    cluster = Cluster(ServedGround(zookeeper_url, zookeeper_server.port))
    yield cluster
    await cluster.close()


@pytest.fixture
def admin(zookeeper_server: ZooKeeperServer) -> Iterator[KazooClient]:
    client = zookeeper_server.client()
    yield client
    client.stop()
    client.close()


def roster_at(url: str, session: float = 20.0) -> ZooKeeperRoster:
    return ZooKeeperRoster(parse_ensemble(url.removeprefix("zookeeper://"), {}), "test", session)


def chroot(url: str) -> str:
    return "/" + url.rpartition("/")[2]


def members(url: str) -> str:
    return f"{chroot(url)}/dsfast/test/members"


async def test_a_restart_of_the_server_loses_nobody(cluster: Cluster, zookeeper_server: ZooKeeperServer) -> None:
    registry, own = await cluster.start(session=30)
    _, other = await cluster.start(session=30)
    await registry.join(worker("w"))
    await other.until_ids("w@1")
    zookeeper_server.stop()
    try:
        await own.until_session(S)
        await other.until_session(S)
    finally:
        zookeeper_server.start()  # not in a thread: the server would end with it
    await own.until_session(C)
    await other.until_session(C)
    assert own.sessions == other.sessions == [C, S, C]
    assert () not in other.views[1:]


async def test_an_ended_session_is_told_and_registered_anew(
    cluster: Cluster, zookeeper_server: ZooKeeperServer, zookeeper_url: str
) -> None:
    roster = roster_at(zookeeper_url)
    registry, own = await cluster.start(registry=RosterRegistry(roster, 20.0))
    _, other = await cluster.start()
    await registry.join(worker("w"))
    await other.until_ids("w@1")
    before = roster.session
    assert before is not None
    await asyncio.to_thread(zookeeper_server.expire, before)
    await own.until(lambda: own.sessions[-2:] == [L, C])
    await other.until(lambda: () in other.views[1:] and other.ids == ["w@1"])
    assert roster.session is not None
    assert roster.session[0] != before[0]


async def test_a_wiped_tree_is_grown_again(cluster: Cluster, admin: KazooClient, zookeeper_url: str) -> None:
    registry, own = await cluster.start()
    watcher, other = await cluster.start()
    await registry.join(worker("w"))
    await other.until_ids("w@1")
    await asyncio.to_thread(wipe, admin, chroot(zookeeper_url))
    await own.until(lambda: L in own.sessions and own.sessions[-1] is C)
    await other.until_ids("w@1")
    assert L not in other.sessions
    await watcher.join(worker("x"))
    await own.until_ids("w@1", "x@1")


async def test_a_node_that_an_administrator_deletes_comes_back(
    cluster: Cluster, admin: KazooClient, zookeeper_url: str
) -> None:
    registry, own = await cluster.start()
    await registry.join(worker("w"))
    path = f"{members(zookeeper_url)}/{node_name(worker('w'), encode(worker('w')))}"
    await asyncio.to_thread(admin.delete, path)
    await own.until(lambda: own.sessions == [C, L, C])
    assert await asyncio.to_thread(admin.exists, path) is not None


async def test_a_leftover_of_an_earlier_session_is_replaced(
    cluster: Cluster, zookeeper_server: ZooKeeperServer, zookeeper_url: str
) -> None:
    earlier = await asyncio.to_thread(zookeeper_server.client)
    body = encode(worker("w"))
    path = f"{members(zookeeper_url)}/{node_name(worker('w'), body)}"
    await asyncio.to_thread(earlier.create, path, body, ephemeral=True, makepath=True)
    roster = roster_at(zookeeper_url)
    registry, own = await cluster.start(registry=RosterRegistry(roster, 20.0))
    await registry.join(worker("w"))
    stat = await asyncio.to_thread(earlier.exists, path)
    assert roster.session is not None
    assert stat.ephemeralOwner == roster.session[0]
    await asyncio.to_thread(earlier.stop)
    await asyncio.to_thread(earlier.close)
    other_registry, _ = await cluster.start()
    await other_registry.join(worker("x"))
    await own.until_ids("w@1", "x@1")
    assert own.sessions == [C]


async def test_a_silent_partition_is_noticed_on_our_own_clock(cluster: Cluster) -> None:
    registry, own = await cluster.start(session=1.0)
    _, other = await cluster.start(session=20.0)
    await registry.join(worker("w"))
    await other.until_ids("w@1")
    assert isinstance(cluster.ground, ServedGround)
    cluster.ground.proxy(registry).freeze()
    await own.until_session(L)
    assert own.sessions == [C, S, L]
    await other.until_ids()
    cluster.ground.proxy(registry).mend()
    await own.until_session(C)
    await other.until_ids("w@1")


async def test_a_change_whose_watch_is_lost_is_found(
    cluster: Cluster, zookeeper_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsfast.registry.zookeeper.RELIST_SECONDS", 0.2)
    roster = roster_at(zookeeper_url)
    monkeypatch.setattr(roster, "_on_change", lambda event: None)
    _, deaf = await cluster.start(registry=RosterRegistry(roster, 20.0))
    registry, _ = await cluster.start()
    await registry.join(worker("w"))
    await deaf.until_ids("w@1")


async def test_a_kazoo_thread_that_ends_is_replaced(cluster: Cluster, zookeeper_url: str) -> None:
    roster = roster_at(zookeeper_url, session=5.0)
    registry, own = await cluster.start(registry=RosterRegistry(roster, 5.0))
    await registry.join(worker("w"))
    assert roster._client is not None
    roster._client.add_auth_async("no-such-scheme", "nobody")  # the server refuses it, and kazoo gives up for good
    await own.until(lambda: own.sessions[-1] is C and L in own.sessions)
    await own.until_ids("w@1")


async def test_nodes_that_are_no_members_are_ignored_and_named_once(
    cluster: Cluster, admin: KazooClient, zookeeper_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry, seen = await cluster.start()
    for name, body in {"a": b"\xff\xfe", "b": b'{"role": 7}', "c": b"[" * 70_000}.items():
        await asyncio.to_thread(admin.create, f"{members(zookeeper_url)}/{name}", body)
    await registry.join(worker("w"))
    await registry.join(worker("w", weight=7))
    await seen.until(lambda: [member.weight for member in seen.views[-1]] == [7])
    assert [record.name for record in caplog.records if "foreign" in record.message] == ["dsfast.registry"] * 3


async def test_a_session_that_the_ensemble_grants_otherwise_is_warned_about(
    cluster: Cluster, zookeeper_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    roster = roster_at(zookeeper_url, session=100.0)
    await cluster.start(registry=RosterRegistry(roster, 100.0))
    assert "registry_session_differs asked_s=100 granted_s=60" in caplog.text
    assert roster.lease_seconds == pytest.approx(54)


@pytest.fixture
async def guarded(zookeeper_server: ZooKeeperServer, zookeeper_url: str) -> AsyncIterator[Registry]:
    url = zookeeper_url.replace("://", "://anna:s%3Acret@")
    registry = open_registry(url, cluster="test", session_seconds=20.0)
    await registry.start(lambda members: None, lambda session: None)
    yield registry
    await registry.stop()


async def test_with_a_user_nobody_else_can_read_or_wipe(
    guarded: Registry, admin: KazooClient, zookeeper_url: str
) -> None:
    await guarded.join(worker("w"))
    with pytest.raises(NoAuthError):
        await asyncio.to_thread(admin.get_children, members(zookeeper_url))
    with pytest.raises(NoAuthError):
        await asyncio.to_thread(admin.delete, chroot(zookeeper_url), recursive=True)
    with pytest.raises(NoAuthError):
        await asyncio.to_thread(admin.set_acls, chroot(zookeeper_url), OPEN_ACL_UNSAFE)


async def test_the_wrong_user_is_refused_at_once_without_the_password(guarded: Registry, zookeeper_url: str) -> None:
    await guarded.join(worker("w"))
    url = zookeeper_url.replace("://", "://anna:wrong-secret@")
    with pytest.raises(UsageError, match="does not allow us to use") as refusal:
        await open_registry(url, cluster="test", session_seconds=20.0).start(print, print)
    assert "wrong-secret" not in str(refusal.value)


async def test_an_unreachable_ensemble_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsfast.registry.leased.START_SECONDS_MAX", 0.3)
    registry = open_registry("zookeeper://127.0.0.1:1,localhost:1/x", cluster="test", session_seconds=5.0)
    sentence = r"no connection to ZooKeeper at 127.0.0.1:1,localhost:1/x \(tried for 0.3 seconds\)"
    with pytest.raises(Unavailable, match=sentence):
        await registry.start(print, print)


async def test_debug_logging_shows_no_credentials(guarded: Registry, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await guarded.join(worker("w"))
    assert "s:cret" not in caplog.text


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A directory with a certificate authority, and keys and certificates of a server and a client made by it."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "names").write_text("subjectAltName=DNS:localhost")
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=authority")
    for name, extensions in {"server": ["-extfile", "names"], "client": []}.items():
        openssl("req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signer = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"]
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signer, *extensions)
    (tmp_path / "both.pem").write_text((tmp_path / "server.key").read_text() + (tmp_path / "server.pem").read_text())
    return tmp_path


@pytest.fixture
def tls_port(certificates: Path) -> Iterator[int]:
    """A ZooKeeper's port that speaks TLS only and asks for a client's certificate."""
    port = free_port()
    stores = f"ssl.keyStore.location={certificates}/both.pem\nssl.trustStore.location={certificates}/ca.pem\n"
    server = ZooKeeperServer(
        f"secureClientPort={port}\n{stores}",
        ("-Dzookeeper.serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",),
    )
    yield port
    server.close()


async def test_tls_with_certificates_on_both_sides(tls_port: int, certificates: Path) -> None:
    files = f"ca={certificates}/ca.pem&cert={certificates}/client.pem&key={certificates}/client.key"
    registry = open_registry(f"zookeeper://localhost:{tls_port}?tls=yes&{files}", cluster="test", session_seconds=10.0)
    seen = Seen()
    await registry.start(seen.on_members, seen.on_session)
    await registry.join(worker("w"))
    await seen.until_ids("w@1")
    await registry.stop()


def test_tls_checks_who_the_server_is() -> None:
    client = new_client(parse_ensemble("localhost:2281", {"tls": "yes"}), 10.0)
    assert (client.use_ssl, client.verify_certs, client.check_hostname) == (True, True, True)
