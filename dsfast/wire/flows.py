"""Who says what to whom: the commands that each role may send to each other role.

Links refuse everything else, so a worker cannot act as a master and a client cannot act as a worker,
whatever an engine would make of it. docs/wire.md shows the same table.
"""

from __future__ import annotations

from dsfast.wire.codec import COMMANDS
from dsfast.wire.commands import Failed, LogChunk, LogRead

FLOWS: dict[str, range] = {
    "link": range(1, 16),
    "master to worker": range(16, 32),
    "worker to master": range(32, 48),
    "client to master": range(48, 56),
    "master to client": range(56, 64),
    "client to worker": range(64, 65),
    "worker to client": range(65, 66),
    "master to master": range(72, 80),
}
"""Kinds are numbered by who speaks. A client is the api role, a command line, or a master on behalf of one."""


def flow(kind: int) -> str:
    """The name of the flow that a kind belongs to. Raises AssertionError for a kind outside of all ranges."""
    names = [name for name, kinds in FLOWS.items() if kind in kinds]
    assert names, f"kind {kind} belongs to no flow: number it by who says it, or add a range to FLOWS"
    return names[0]


def _kinds(*flows: str) -> frozenset[int]:
    return frozenset(kind for kind in COMMANDS if flow(kind) in flows)


_ALLOWED: dict[tuple[str, str], frozenset[int]] = {
    ("master", "worker"): _kinds("master to worker") | {LogRead.KIND},
    ("worker", "master"): _kinds("worker to master") | {LogChunk.KIND, Failed.KIND},
    ("api", "master"): _kinds("client to master"),
    ("master", "api"): _kinds("master to client"),
    ("api", "worker"): _kinds("client to worker"),
    ("worker", "api"): _kinds("worker to client") | {Failed.KIND},
    ("master", "master"): _kinds("client to master", "master to client", "master to master"),
}


def allowed(sender: str, receiver: str) -> frozenset[int]:
    """The kinds that a peer of one role may send to a peer of another, once both are known to each other."""
    return _ALLOWED.get((sender, receiver), frozenset())
