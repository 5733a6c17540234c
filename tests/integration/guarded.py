"""A small worker under a guardian, for test_guardian.py: `python -m tests.integration.guarded ROOT SCRIPT`.

Says its port and process ids, runs the script as a shell task, says INT for each SIGINT, leaves with 7 on SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

from dsfast.runtime.guardian import guard
from dsfast.tasks import proc


async def work(root: Path, script: str, port: int) -> None:
    from tests.attempts import make_job, start

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, lambda: print("INT", flush=True))
    _execution, _outcome = start("shell", make_job("shell", root, script=script))
    inner = os.getppid()
    seen = proc.stat(inner)
    assert seen is not None
    told = {"port": port, "daemon": os.getpid(), "guardian": inner, "outer": seen.parent}
    print(json.dumps(told), flush=True)
    await stop.wait()


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    guard([listener])
    asyncio.run(work(Path(sys.argv[1]), sys.argv[2], listener.getsockname()[1]))
    os._exit(7)
