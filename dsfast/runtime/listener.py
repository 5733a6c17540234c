"""The socket that a daemon listens on, bound before anything heavy is imported."""

from __future__ import annotations

import socket

from dsfast.config import Config, require_safe_bind
from dsfast.errors import Problem, UsageError

BACKLOG = 1024  # connections that the kernel holds for us: a cluster that dials all at once fits


def bind(config: Config, role: str) -> socket.socket:
    """A listening socket for this role. Raises UsageError when the address is taken, not ours, or not safe."""
    require_safe_bind(config, role)
    host, port = config.value(f"{role}.host"), config.value(f"{role}.port")
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server((str(address[0]), int(address[1])), family=family, backlog=BACKLOG)
    except OSError as error:
        hint = f"another {role} may be running; choose another port with --port" if port else None
        raise UsageError(Problem(f"cannot listen on {host}:{port}: {error.strerror or error}", hint=hint)) from None
