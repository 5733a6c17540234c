"""A private ZooKeeper, one server or an ensemble, for chaos, tests and benchmarks.

A server listens on a free port with its data in a temporary directory. It acknowledges without fsync and grants
sessions from 0.4 to 60 seconds. The kernel ends it when the thread that started it ends, however that ends: start it
from the main thread.
"""

from __future__ import annotations

import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from dsfast.chaos.ports import free_port
from dsfast.errors import Problem, UsageError

JAVA_HOME = Path("/usr/share/java")
JARS = [JAVA_HOME / name for name in ("zookeeper.jar", "netty-codec.jar", "netty-resolver.jar")]  # netty: for TLS
START_SECONDS_MAX = 60.0  # 2 s here; a busy CI machine may take ten times that
TICK_MS = 200  # ZooKeeper ends sessions at whole ticks
LOOPBACK = "127.0.0.1"
PASSWORD_SEED = 0xB3415C00  # of ZooKeeper, for the passwords of sessions
CLOSE_SESSION = -11  # the request's number in ZooKeeper's protocol

CONFIG = """
tickTime={tick}
minSessionTimeout=400
maxSessionTimeout=60000
dataDir={home}
clientPort={port}
clientPortAddress={host}
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=ruok,srvr,dump
initLimit=50
syncLimit=10
"""


class ZooKeeperServer:
    """One server. `stop`, `start` and `restart` are for fault tests; its data outlive them.

    `enter` are the words before its command that put it where `host` is an address of its own.
    """

    def __init__(
        self,
        config: str = "",
        java_options: tuple[str, ...] = (),
        *,
        host: str = LOOPBACK,
        enter: tuple[str, ...] = (),
        number: int | None = None,
    ) -> None:
        self._java = _java()
        self.host = host
        self._enter = enter
        self._home = Path(tempfile.mkdtemp(prefix="dsfast-zookeeper-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        self.port = free_port()
        self._java_options = java_options
        settings = CONFIG.format(tick=TICK_MS, home=self._home, host=host, port=self.port)
        (self._home / "zoo.cfg").write_text(settings + config)
        if number is None:
            self.start()
        else:  # one of an ensemble, which serves only once most of its servers are there
            (self._home / "myid").write_text(f"{number}\n")
            self.launch()

    @property
    def hosts(self) -> str:
        """The address as ZooKeeper's clients take it."""
        return f"{self.host}:{self.port}"

    def new_url(self) -> str:
        """A URL for `open_registry`, with a chroot that nobody has used."""
        return f"zookeeper://{self.hosts}/test-{next(self._numbers)}"

    def start(self) -> None:
        """Start and wait until the server serves."""
        self.launch()
        self.wait()

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._process is not None

    def launch(self) -> None:
        """Start without waiting."""
        assert self._process is None
        main: list[str | Path] = ["org.apache.zookeeper.server.quorum.QuorumPeerMain", self._home / "zoo.cfg"]
        java: list[str | Path] = [
            self._java,
            "-Xmx64m",
            "-XX:+UseSerialGC",
            "-Dzookeeper.forceSync=no",
            *self._java_options,
        ]
        command = [*self._enter, "setpriv", "--pdeathsig", "KILL", *java, "-cp", ":".join(map(str, JARS)), *main]
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._home)

    def wait(self) -> None:
        """Wait until the server serves."""
        assert self._process is not None
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

    @property
    def leads(self) -> bool:
        """Whether it is the leader of an ensemble."""
        return b"Mode: leader" in self._ask(b"srvr")

    def sessions(self, part: str) -> list[tuple[int, bytes]]:
        """(id, password) of the sessions that own a node whose path has this part; only a leader knows them."""
        owners = re.split(r"(?m)^(0x[0-9a-f]+):$", self._ask(b"dump").decode())
        named = zip(owners[1::2], owners[2::2], strict=True)
        return [(int(number, 16), session_password(int(number, 16))) for number, paths in named if part in paths]

    def close(self) -> None:
        """End the server and delete its data."""
        if self._process is not None:
            self.stop()
        shutil.rmtree(self._home)

    def _ask(self, command: bytes) -> bytes:
        try:
            # A server that is starting swallows one connection in ten without a word: hence so short a timeout.
            with socket.create_connection((self.host, self.port), timeout=0.5) as connection:
                connection.sendall(command)
                return b"".join(iter(lambda: connection.recv(4096), b""))
        except OSError:
            return b""


class Ensemble:
    """Servers that agree by majority; `places` are (host, enter) of each, where faults are to reach them apart."""

    def __init__(self, places: Sequence[tuple[str, tuple[str, ...]]], java_options: tuple[str, ...] = ()) -> None:
        peers = [(host, free_port(), free_port()) for host, _ in places]
        lines = [f"server.{n}={host}:{one}:{two}" for n, (host, one, two) in enumerate(peers, 1)]
        config = "".join(f"{line}\n" for line in lines)
        self.servers: list[ZooKeeperServer] = []
        try:
            for number, (host, enter) in enumerate(places, 1):
                self.servers.append(ZooKeeperServer(config, java_options, host=host, enter=enter, number=number))
            for server in self.servers:
                server.wait()
        except BaseException:
            self.close()
            raise

    def url(self, chroot: str) -> str:
        """A URL for `open_registry` that names all servers."""
        return f"zookeeper://{','.join(server.hosts for server in self.servers)}/{chroot}"

    def expire(self, part: str) -> bool:
        """End the session that owns a node whose path has this part; False if no leader knows of one."""
        for server in self.servers:
            for session in server.sessions(part) if server.running else ():
                server.expire(session)
                return True
        return False

    def close(self) -> None:
        """End all servers and delete their data."""
        for server in self.servers:
            server.close()


def session_password(number: int) -> bytes:
    """The password that ZooKeeper derives from a session's id: 16 bytes of Java's generator, seeded with it."""
    state = (number ^ PASSWORD_SEED ^ 0x5DEECE66D) & ((1 << 48) - 1)
    words = []
    for _ in range(4):
        state = (state * 0x5DEECE66D + 0xB) & ((1 << 48) - 1)
        words.append(state >> 16)
    return struct.pack("<4I", *words)


def _java() -> str:
    java = shutil.which("java")
    if java is None or not JARS[0].exists():
        raise UsageError(Problem("there is no ZooKeeper server on this machine", hint="apt-get install zookeeper"))
    return java
