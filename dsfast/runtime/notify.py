"""Tells systemd that a daemon is ready, when systemd has asked to be told (Type=notify)."""

from __future__ import annotations

import os
import socket


def notify_ready() -> None:
    """Send READY=1 to $NOTIFY_SOCKET; nothing happens without one. The protocol is that of sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # a name in the abstract namespace
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        sock.send(b"READY=1")
