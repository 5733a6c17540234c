"""Ports of the loopback interface for servers that are started, stopped and started again on the same one."""

from __future__ import annotations

import random
import socket

PORTS = range(20_000, 32_000)  # below those that the kernel hands out: no client is given a stopped server's port

_given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on, and that this process was not given before."""
    while True:
        port = random.choice(PORTS)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
