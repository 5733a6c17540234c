"""Links over TLS: the cluster's key vouches for the certificate, so nobody can sit in between."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import cast

import pytest

from dsfast.config import load_config
from dsfast.engine.events import LinkUp
from dsfast.errors import Unavailable, UsageError
from dsfast.runtime.tls import Tls, load_tls, tls_of
from dsfast.wire.commands import Execute
from tests.integration.linking import Node, member, nodes


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate signed by itself, and its key, as PEM files."""
    if shutil.which("openssl") is None:
        pytest.fail("openssl is missing: apt-get install openssl")
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name}"
    extra = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *extra], check=True, capture_output=True)
    return cert, key


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("tls")
    return {name: certificate(folder, name) for name in ("w", "m", "x")}


async def test_a_link_over_tls_works_with_certificates_that_nobody_has_signed(
    files: dict[str, tuple[Path, Path]],
) -> None:
    worker, master = Node("worker", "w", tls=load_tls(*files["w"])), Node("master", "m", tls=load_tls(*files["m"]))
    async with nodes(worker, master):
        await worker.listen()
        master.links.dial(worker.me)
        await master.expect(LinkUp)
        await worker.expect(LinkUp)
        big = Execute(1, 2, 3, 4, "n", bytes(2_000_000))
        master.links.send(worker.me.id, big)
        master.links.flush()
        assert await worker.received(Execute) == big


async def test_somebody_in_between_with_a_certificate_of_his_own_gets_no_link(
    files: dict[str, tuple[Path, Path]],
) -> None:
    """He ends TLS on both sides and passes every byte on, as far as he can."""
    worker, master = Node("worker", "w", tls=load_tls(*files["w"])), Node("master", "m", tls=load_tls(*files["m"]))
    async with nodes(worker, master):
        port = await worker.listen()
        his = load_tls(*files["x"])
        passed_on: list[bytes] = []
        server = await asyncio.get_running_loop().create_server(
            lambda: Relay(port, his, passed_on), "127.0.0.1", 0, ssl=his.server
        )
        between = member("worker", "w", "1", server.sockets[0].getsockname()[1])
        with pytest.raises(Unavailable, match="does not hold this cluster's key"):
            await master.links.connect(between, 0.5)
        assert len(passed_on) >= 2  # Hello one way and Challenge the other did get through
        assert worker.events.empty()
        server.close()


async def test_plain_bytes_do_not_open_a_tls_port_nor_tls_a_plain_one(files: dict[str, tuple[Path, Path]]) -> None:
    tls = load_tls(*files["w"])
    encrypted, plain = Node("worker", "w", tls=tls), Node("worker", "v")
    with_tls, without = Node("master", "m", tls=tls), Node("master", "n")
    async with nodes(encrypted, plain, with_tls, without):
        await encrypted.listen()
        await plain.listen()
        with pytest.raises(Unavailable):
            await without.links.connect(encrypted.me, 0.3)
        with pytest.raises(Unavailable):
            await with_tls.links.connect(plain.me, 0.3)
        assert encrypted.events.empty()
        assert plain.events.empty()


async def test_an_authority_can_be_demanded_as_well(files: dict[str, tuple[Path, Path]]) -> None:
    worker = Node("worker", "w", tls=load_tls(*files["w"]))
    trusting = Node("master", "m", tls=load_tls(*files["m"], authority=files["w"][0]))
    strict = Node("master", "n", tls=load_tls(*files["m"], authority=files["x"][0]))
    async with nodes(worker, trusting, strict):
        await worker.listen()
        assert await trusting.links.connect(worker.me, 10) == "w@1"
        with pytest.raises(Unavailable, match="certificate verify failed"):
            await strict.links.connect(worker.me, 0.3)


def test_older_tls_is_not_spoken(files: dict[str, tuple[Path, Path]]) -> None:
    tls = load_tls(*files["w"])
    assert tls.server.minimum_version == tls.client.minimum_version == ssl.TLSVersion.TLSv1_3


def test_the_configuration_turns_tls_on_and_off(files: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    paths = {"cluster.tls_certificate": str(files["w"][0]), "cluster.tls_key": str(files["w"][1])}
    encrypted = load_config(flags={"state_dir": str(tmp_path), "cluster.tls": "on", **paths}, environ={})
    assert tls_of(encrypted.cluster) is not None
    plain = load_config(flags={"state_dir": str(tmp_path), **paths}, environ={})
    assert tls_of(plain.cluster) is None
    missing = load_config(flags={"state_dir": str(tmp_path), "cluster.tls": "on"}, environ={})
    with pytest.raises(UsageError, match=r"tls\.crt .*No such file"):
        tls_of(missing.cluster)


def test_a_private_key_that_others_can_read_is_refused(files: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    key = tmp_path / "open.key"
    key.write_bytes(files["w"][1].read_bytes())
    key.chmod(0o644)
    with pytest.raises(UsageError, match=r"private key of the certificate \(mode 0644\) \(chmod 600 .*open\.key"):
        load_tls(files["w"][0], key)


@pytest.mark.parametrize("content", ["", "no certificate", "-----BEGIN CERTIFICATE-----\n"])
def test_files_that_are_no_certificates_are_refused(
    content: str, tmp_path: Path, files: dict[str, tuple[Path, Path]]
) -> None:
    broken = tmp_path / "broken.crt"
    broken.write_text(content)
    with pytest.raises(UsageError, match=r"TLS files .*broken\.crt.* cannot be used"):
        load_tls(broken, files["w"][1])
    with pytest.raises(UsageError, match="cannot be used"):
        load_tls(tmp_path / "missing.crt", files["w"][1])
    with pytest.raises(UsageError, match="cannot be used"):
        load_tls(files["w"][0], files["m"][1])  # somebody else's key


class Relay(asyncio.Protocol):
    """One side of a man in the middle; the other is a Relay too, towards the real listener."""

    def __init__(self, port: int, tls: Tls, passed_on: list[bytes], other: Relay | None = None) -> None:
        self.port, self.tls, self.passed_on, self.other = port, tls, passed_on, other
        self.early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.other is None:
            self.reaching = asyncio.ensure_future(self.reach())

    async def reach(self) -> None:
        _, self.other = await asyncio.get_running_loop().create_connection(
            lambda: Relay(self.port, self.tls, self.passed_on, self), "127.0.0.1", self.port, ssl=self.tls.client
        )
        self.other.transport.write(self.early)

    def data_received(self, data: bytes) -> None:
        self.passed_on.append(data)
        if self.other is None:
            self.early += data
        else:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.abort()
