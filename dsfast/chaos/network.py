"""Where servers and daemons are on the network, and how it is cut between them.

Theory of operation. `Namespaces` gives each of them a network namespace with one address, all joined by a router in
a namespace of its own; nothing of the machine's own network changes but one link into that router. A cut is a routing
rule there that swallows what goes from one address to another: one way, without a word to either, as packets are lost.
It needs root, `ip` and `nsenter`. `Loopback` is for where that is not to be had: everybody is on 127.0.0.1, nothing
can be cut. Namespaces that an earlier process could not remove are removed by the next.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import suppress
from typing import Protocol

from dsfast.errors import Unavailable

PREFIX = "198.18"  # 198.18.0.0/15 is set aside for tests of networks: nobody's machine is there
GATEWAY = 254
DRIVER = 1  # our own address
LOSS = "dsfast_loss"  # the table of packet filter rules in the router, while packets are lost
_OURS = re.compile(r"(?m)^(dsfast-(\d+)-\S+)")
_FORWARD = "echo 1 > ip_forward; echo 0 > conf/all/rp_filter; echo 0 > conf/default/rp_filter"


class Network(Protocol):
    """Addresses by name, and cuts between them."""

    kind: str
    can_cut: bool

    def join(self, name: str) -> None:
        """Give the name an address."""

    def address(self, name: str) -> str:
        """The address of who has joined."""

    def enter(self, name: str) -> tuple[str, ...]:
        """The words before a command that put it at this address."""

    def cut(self, source: str, target: str) -> None:
        """Lose everything that `source` sends to `target`, until it is mended."""

    def mend(self, source: str, target: str) -> None:
        """Let it through again."""

    def close(self) -> None:
        """Remove everything."""


class Loopback:
    """Everybody on 127.0.0.1."""

    kind = "loopback, without partitions"
    can_cut = False

    def join(self, name: str) -> None:
        """Nothing to do."""

    def address(self, name: str) -> str:
        return "127.0.0.1"

    def enter(self, name: str) -> tuple[str, ...]:
        return ()

    def cut(self, source: str, target: str) -> None:
        raise Unavailable("loopback cannot be cut")

    def mend(self, source: str, target: str) -> None:
        """Nothing was cut."""

    def close(self) -> None:
        """Nothing to remove."""


class Namespaces:
    """A network namespace for each name, and one that routes between them. Raises Unavailable where that fails."""

    kind = "network namespaces"
    can_cut = True

    def __init__(self) -> None:
        number = os.getpid()
        self._net = f"{PREFIX}.{number % 256}"
        self._label = f"dsfast-{number}"
        self._link = f"dsf{number}"
        self._router = f"{self._label}-router"
        self._numbers: dict[str, int] = {}
        self._cuts: set[tuple[str, str]] = set()
        remove_left_over()
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        ip("netns", "add", self._router)
        run("nsenter", f"--net=/run/netns/{self._router}", "sh", "-c", f"cd /proc/sys/net/ipv4; {_FORWARD}")
        ip("link", "add", "v1", "netns", self._router, "type", "veth", "peer", "name", self._link)
        self._connect(DRIVER, self._link, [])
        ip("route", "add", f"{self._net}.0/24", "via", self._at(GATEWAY), "dev", self._link)

    def join(self, name: str) -> None:
        number = self._numbers[name] = len(self._numbers) + 2
        space = self._space(name)
        ip("netns", "add", space)
        link = f"v{number}"
        ip("link", "add", link, "netns", self._router, "type", "veth", "peer", "name", "net0", "netns", space)
        ip("-n", space, "link", "set", "lo", "up")
        self._connect(number, "net0", ["-n", space])
        ip("-n", space, "route", "add", "default", "via", self._at(GATEWAY))

    def _connect(self, number: int, link: str, where: list[str]) -> None:
        """Both ends of a wire between the router and an address."""
        ip("-n", self._router, "addr", "add", f"{self._at(GATEWAY)}/32", "dev", f"v{number}")
        ip("-n", self._router, "link", "set", f"v{number}", "up")
        ip("-n", self._router, "route", "add", f"{self._at(number)}/32", "dev", f"v{number}")
        ip(*where, "addr", "add", f"{self._at(number)}/32", "dev", link)
        ip(*where, "link", "set", link, "up")
        ip(*where, "route", "add", self._at(GATEWAY), "dev", link)

    def address(self, name: str) -> str:
        return self._at(self._numbers[name])

    def enter(self, name: str) -> tuple[str, ...]:
        return ("nsenter", f"--net=/run/netns/{self._space(name)}", "--")

    def cut(self, source: str, target: str) -> None:
        if (source, target) not in self._cuts:
            self._cuts.add((source, target))
            self._rule("add", source, target)

    def mend(self, source: str, target: str) -> None:
        if (source, target) in self._cuts:
            self._cuts.discard((source, target))
            self._rule("del", source, target)

    def lose(self, percent: int) -> None:
        """Lose so many of all packets between any two, by chance. Raises Unavailable without `nft`."""
        self._nft(f"add table ip {LOSS}; add counter ip {LOSS} lost")
        self._nft(f"add chain ip {LOSS} passing {{ type filter hook forward priority 0; }}")
        self._nft(f"add rule ip {LOSS} passing numgen random mod 100 < {percent} counter name lost drop")

    def lose_no_more(self) -> int:
        """Let everything through again; how many packets were lost."""
        counted = self._nft(f"list counter ip {LOSS} lost")
        self._nft(f"delete table ip {LOSS}")
        return int(counted.partition("packets ")[2].split()[0])

    def _nft(self, words: str) -> str:
        if shutil.which("nft") is None:
            raise Unavailable("packets are lost by nft: apt-get install nftables")
        return run("nsenter", f"--net=/run/netns/{self._router}", "nft", words)

    def close(self) -> None:
        with suppress(Unavailable):
            ip("link", "del", self._link)
        for space in (self._router, *(self._space(name) for name in self._numbers)):
            with suppress(Unavailable):
                ip("netns", "del", space)

    def _rule(self, action: str, source: str, target: str) -> None:
        ends = ("from", self.address(source), "to", self.address(target))
        ip("-n", self._router, "rule", action, "pref", "100", *ends, "blackhole")

    def _space(self, name: str) -> str:
        return f"{self._label}-{name}"

    def _at(self, number: int) -> str:
        return f"{self._net}.{number}"


def best_network() -> tuple[Network, str]:
    """Namespaces if this machine allows them, else loopback; and why not, in words."""
    if os.geteuid() != 0:
        return Loopback(), "network namespaces need root"
    missing = [tool for tool in ("ip", "nsenter") if shutil.which(tool) is None]
    if missing:
        return Loopback(), f"network namespaces need {' and '.join(missing)}: apt-get install iproute2 util-linux"
    try:
        return Namespaces(), ""
    except Unavailable as error:
        return Loopback(), str(error)


def remove_left_over() -> None:
    """Remove namespaces whose process is gone: it was killed before it could."""
    for space, pid in _OURS.findall(run("ip", "netns", "list")):
        if not os.path.exists(f"/proc/{pid}"):
            with suppress(Unavailable):
                ip("netns", "del", space)


def ip(*words: str) -> None:
    """Run `ip`. Raises Unavailable with what it says."""
    run("ip", *words)


def run(*command: str) -> str:
    """What a command prints. Raises Unavailable with its complaint."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
