"""One daemon: `python -m benchmarks.baseline master|worker SETTINGS` (JSON).

It prints `ready`, then answers each line on standard input with what it has counted so far, as JSON; it leaves when
that ends. One that was judged dead says why, waits and ends.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time

import msgspec

from benchmarks.baseline.calls import Calls
from benchmarks.baseline.master import Master
from benchmarks.baseline.settings import Settings
from benchmarks.baseline.tcp_worker import TcpWorker
from benchmarks.baseline.worker import Worker

log = logging.getLogger("baseline")


def main(role: str, settings: Settings) -> None:
    logging.basicConfig(format="%(asctime)s %(name)s %(message)s", level=logging.WARNING)
    calls = Calls()

    def judged(reason: str) -> None:
        threading.Thread(target=end, args=(reason, settings.stop_seconds), daemon=True).start()

    worker = Worker if settings.mode == "queue" else TcpWorker
    daemon = (Master if role == "master" else worker)(settings, calls, judged)
    daemon.start()
    say(b"ready")
    for _ in sys.stdin:
        say(msgspec.json.encode(calls.seen()))
    daemon.close()
    os._exit(0)  # threads sleep in their loops


def end(reason: str, seconds: float) -> None:
    log.error("stop: %s", reason)
    time.sleep(seconds)
    os._exit(1)


def say(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1], msgspec.json.decode(sys.argv[2], type=Settings))
