"""A private ZooKeeper for tests and benchmarks: started on first use, ended with the session.

One server on a free loopback port with its data in a temporary directory. It acknowledges without fsync and grants
sessions from 0.4 to 60 seconds. The kernel ends it when the thread that started it ends, however that ends: start it
from the main thread.
"""

from __future__ import annotations

import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from kazoo.client import KazooClient

JAVA_HOME = Path("/usr/share/java")
JARS = [JAVA_HOME / name for name in ("zookeeper.jar", "netty-codec.jar", "netty-resolver.jar")]  # netty: for TLS
START_SECONDS_MAX = 60.0  # 2 s here; a busy CI machine may take ten times that
TICK_MS = 200  # ZooKeeper ends sessions at whole ticks
CLOSE_SESSION = -11  # the request's number in ZooKeeper's protocol

CONFIG = """
tickTime={tick}
minSessionTimeout=400
maxSessionTimeout=60000
dataDir={home}
clientPort={port}
clientPortAddress=127.0.0.1
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=ruok,srvr
"""


class ZooKeeperServer:
    """One server. `stop`, `start` and `restart` are for fault tests; its data outlive them."""

    def __init__(self, config: str = "", java_options: tuple[str, ...] = ()) -> None:
        self._java = _java()
        self._home = Path(tempfile.mkdtemp(prefix="dsfast-zookeeper-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        self.port = free_port()
        self._java_options = java_options
        (self._home / "zoo.cfg").write_text(CONFIG.format(tick=TICK_MS, home=self._home, port=self.port) + config)
        self.start()

    @property
    def hosts(self) -> str:
        """The address as ZooKeeper's clients take it."""
        return f"127.0.0.1:{self.port}"

    def new_url(self) -> str:
        """A URL for `open_registry`, with a chroot that nobody has used."""
        return f"zookeeper://{self.hosts}/test-{next(self._numbers)}"

    def start(self) -> None:
        """Start and wait until the server serves."""
        assert self._process is None
        main: list[str | Path] = ["org.apache.zookeeper.server.quorum.QuorumPeerMain", self._home / "zoo.cfg"]
        java: list[str | Path] = [
            self._java,
            "-Xmx128m",
            "-XX:+UseSerialGC",
            "-Dzookeeper.forceSync=no",
            *self._java_options,
        ]
        command = ["setpriv", "--pdeathsig", "KILL", *java, "-cp", ":".join(map(str, JARS)), *main]
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._home)
        deadline = time.monotonic() + START_SECONDS_MAX
        while self._ask(b"srvr").find(b"Mode:") < 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"ZooKeeper did not start:\n{(self._home / 'log').read_text()[-3000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server at once, as a crash does; sessions and nodes are found again at the next start."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Stop and start, on the same port with the same data."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop the server without closing any connection, as a partition does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def client(self) -> KazooClient:
        """A started client of the bare server, to look around and to make trouble with."""
        client = KazooClient(hosts=self.hosts, timeout=20.0)
        client.start(timeout=START_SECONDS_MAX)
        return client

    def expire(self, session: tuple[int, bytes]) -> None:
        """End somebody's session (id, password): a second client takes it over and closes it.

        The owner takes it back as soon as it can, so both requests go out together, until the session is gone.
        """
        number, password = session
        connect = struct.pack(">iqiqi16s?", 0, 0, 10_000, number, len(password), password, False)
        close = struct.pack(">ii", 1, CLOSE_SESSION)
        requests = b"".join(struct.pack(">i", len(request)) + request for request in (connect, close))
        deadline = time.monotonic() + START_SECONDS_MAX
        while (answer := self._ask(requests)) == b"" or struct.unpack_from(">iii", answer)[2] > 0:
            assert time.monotonic() < deadline, f"the session {number:#x} does not end"

    def close(self) -> None:
        """End the server and delete its data."""
        if self._process is not None:
            self.stop()
        shutil.rmtree(self._home)

    def _ask(self, command: bytes) -> bytes:
        try:
            # A server that is starting swallows one connection in ten without a word: hence so short a timeout.
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.5) as connection:
                connection.sendall(command)
                return b"".join(iter(lambda: connection.recv(4096), b""))
        except OSError:
            return b""


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


def _java() -> str:
    java = shutil.which("java")
    if java is None or not JARS[0].exists():
        raise pytest.UsageError("these tests need ZooKeeper's server: apt-get install zookeeper")
    return java


def free_port() -> int:
    """A loopback port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
