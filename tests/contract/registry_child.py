"""A daemon that is nothing but a member: `registry_child.py URL CLUSTER NAME SESSION`; prints its session's states."""

from __future__ import annotations

import asyncio
import sys

from dsfast.model import Member
from dsfast.registry import open_registry


async def main(url: str, cluster: str, name: str, session: float) -> None:
    registry = open_registry(url, cluster=cluster, session_seconds=session)
    await registry.start(lambda members: None, lambda state: print(state.value, flush=True))
    await registry.join(Member("worker", name, "1"))
    print("joined", flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    _, url, cluster, name, session = sys.argv
    asyncio.run(main(url, cluster, name, float(session)))
