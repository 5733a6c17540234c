"""Run many seeds and list those that fail: python -m tests.simulation.hunt FIRST LAST [--story]."""

from __future__ import annotations

import sys
import time
import traceback

from tests.simulation.world import World


def main(first: int, last: int, *, story: bool) -> int:
    """Run the seeds first..last-1; the number that failed."""
    began, failed = time.monotonic(), 0
    for seed in range(first, last):
        try:
            World(seed).run()
        except Exception as error:  # noqa: BLE001 - every kind of error is a find
            failed += 1
            print(f"FAILED {seed}: {(str(error) or repr(error)).splitlines()[-1]}", flush=True)
            if story:
                traceback.print_exc()
    took = time.monotonic() - began
    print(f"{last - first} seeds from {first}: {failed} failed, {took / (last - first) * 1e3:.1f} ms each")
    return failed


if __name__ == "__main__":
    sys.exit(min(main(int(sys.argv[1]), int(sys.argv[2]), story="--story" in sys.argv), 1))
