"""Addresses of names, from the system's resolver, which may take long over a name and must hold up nothing else.

The event loop would ask in its own few threads: six names that nobody answers for fill them, tries that were given up
queue up behind one another, and the process cannot end before all have been made. Here each name is asked for once at a
time, in a thread that nobody has to wait for; whoever asks meanwhile waits for the same answer.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from contextlib import suppress
from functools import partial

Address = tuple[socket.AddressFamily, str]


class Names:
    """Looks names up."""

    def __init__(self) -> None:
        self._asking: dict[str, asyncio.Future[Address]] = {}

    async def address(self, host: str) -> Address:
        """The first address of a name, or the one that this is. Raises OSError with the resolver's words."""
        with suppress(ValueError):
            version = ipaddress.ip_address(host).version
            return (socket.AF_INET if version == 4 else socket.AF_INET6), host
        return await asyncio.shield(self._asking.get(host) or self._ask(host))

    def _ask(self, host: str) -> asyncio.Future[Address]:
        asking = self._asking[host] = asyncio.get_running_loop().create_future()
        asking.add_done_callback(partial(self._answered, host))
        try:
            threading.Thread(target=_look_up, args=(host, asking), name=f"name {host}", daemon=True).start()
        except RuntimeError as error:  # the machine has no thread left
            asking.set_exception(OSError(f"{host} cannot be looked up: {error}"))
        return asking

    def _answered(self, host: str, asking: asyncio.Future[Address]) -> None:
        del self._asking[host]
        if not asking.cancelled():
            asking.exception()  # whoever asked may have given up


def _look_up(host: str, asking: asyncio.Future[Address]) -> None:
    try:
        family, _, _, _, place = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
        settle = partial(asking.set_result, (family, str(place[0])))
    except (OSError, UnicodeError) as error:
        trouble = error if isinstance(error, OSError) else OSError(f"{host!r} is no host name")
        settle = partial(asking.set_exception, trouble)
    with suppress(RuntimeError):  # the loop has ended: nobody waits
        asking.get_loop().call_soon_threadsafe(settle)
