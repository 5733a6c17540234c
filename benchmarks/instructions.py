"""How many instructions a task costs on the hot path: counted, so that a noisy machine cannot hide a slower one.

    python -m benchmarks.instructions check     compare with instructions.json; exit code 1 if a path grew by a fifth
    python -m benchmarks.instructions record    write instructions.json anew, after a change that is meant

Each path runs under valgrind (callgrind) with a count and with twice that count; the difference is what the work
costs without starting up. It is given in units of one round of plain Python, counted the same way, so another
build of the interpreter changes both. A path that grew by more than GROWTH_MAX fails; one that shrank by as much
asks to be recorded, since it would hide the next loss.
"""

from __future__ import annotations

import heapq
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

RECORDED = Path(__file__).with_suffix(".json")
GROWTH_MAX = 0.20  # of a path's recorded cost; two counts of one commit differ by less than 0.02
ROUND = "plain_python"


def plain_python(count: int) -> None:
    """The unit: a heap push and pop, a dict entry made and removed, a tuple, an attribute."""

    class Thing:
        value = 0

    heap: list[tuple[int, int]] = []
    table: dict[tuple[int, int], int] = {}
    thing, rng = Thing(), random.Random(1)
    for number in range(count):
        heapq.heappush(heap, (rng.randrange(100), number))
        key = heapq.heappop(heap)
        table[key] = number
        thing.value += table.pop(key)


def master_flat(count: int) -> None:
    """The master engine: dispatch and settle independent tasks, a thousand in a turn."""
    from benchmarks.bench_engine import run_whole
    from dsfast.model import canonical
    from tests.workflows import flat

    run_whole(canonical(flat(count)))


def master_chain(count: int) -> None:
    """The master engine: a turn for each task."""
    from benchmarks.bench_engine import run_whole
    from dsfast.model import canonical
    from tests.workflows import chain

    run_whole(canonical(chain(count)))


def worker(count: int) -> None:
    """The worker engine: accept, start, report, forget; a turn each."""
    from dsfast.engine import events as ev
    from dsfast.engine.worker import WorkerEngine
    from dsfast.model import AttemptState, Member, Outcome
    from dsfast.wire import commands as cmd

    engine = WorkerEngine(Member("worker", "w", "1", "w", 1, ("default",), 4))
    engine.step([ev.LinkUp(Member("master", "m", "1"))], 0.0)
    done = Outcome(AttemptState.SUCCEEDED, 0)
    for task in range(count):
        key = (1, task, 1)
        engine.step([ev.Received("m@1", 0, cmd.Execute(*key, 1, "t", b"{}"))], task)
        engine.step([ev.AttemptStarted(key, 1.0), ev.AttemptEnded(key, done)], task)
        engine.step([ev.Received("m@1", 0, cmd.ResultAck(*key))], task)


def wire(count: int) -> None:
    """Frames: encode and decode what travels for one task."""
    from dsfast._core.frame import FrameDecoder
    from dsfast.model import AttemptState, Outcome
    from dsfast.wire import commands as cmd
    from dsfast.wire.codec import decode, encode

    frames = FrameDecoder(1 << 20)
    done = Outcome(AttemptState.SUCCEEDED, 0)
    for task in range(count):
        key = (1, task, 1)
        sent = [cmd.Execute(*key, 1, "t", b"{}"), cmd.Result(*key, done), cmd.ResultAck(*key)]
        for kind, _, body in frames.feed(b"".join(encode(command, 0) for command in sent)):
            decode(kind, body)


def wire_burst(count: int) -> None:
    """Frames: the same for tasks that come and go sixty-four at a time."""
    from dsfast._core.frame import FrameDecoder
    from dsfast.model import AttemptState, Outcome
    from dsfast.wire import commands as cmd
    from dsfast.wire.codec import decode_many, encode_all

    frames, burst = FrameDecoder(1 << 20), 64
    done = Outcome(AttemptState.SUCCEEDED, 0)
    for first in range(0, count, burst):
        keys = [(1, task, 1) for task in range(first, first + burst)]
        sent: list[cmd.Command] = [cmd.Execute(*key, 1, "t", b"{}") for key in keys]
        sent += [cmd.Result(*key, done) for key in keys]
        sent += [cmd.ResultAck(*key) for key in keys]
        for _, _, body in frames.feed(encode_all([(command, 0) for command in sent])):
            decode_many(body)


PATHS: dict[str, tuple[Callable[[int], None], int]] = {
    ROUND: (plain_python, 5_000),
    "master_flat": (master_flat, 1_000),
    "master_chain": (master_chain, 400),
    "worker": (worker, 500),
    "wire": (wire, 1_000),
    "wire_burst": (wire_burst, 1_024),
}


def instructions(path: str, count: int) -> int:
    """What a whole process spends that walks this path so many times."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, "-m", __spec__.name]
    environ = os.environ | {"PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [*command, "walk", path, str(count)], env=environ, capture_output=True, text=True, check=False
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        raise SystemExit(f"counting {path} failed:\n{done.stdout}{done.stderr}")
    return int(found[1])


def measure() -> dict[str, float]:
    """The cost of one task on each path, in rounds of plain Python."""
    jobs = [(path, times * count) for path, (_, count) in PATHS.items() for times in (1, 2)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counted = dict(zip(jobs, pool.map(lambda job: instructions(*job), jobs), strict=True))
    each = {path: (counted[path, 2 * count] - counted[path, count]) / count for path, (_, count) in PATHS.items()}
    unit = each.pop(ROUND)
    print(f"{ROUND}: {unit:,.0f} instructions a round")
    return {path: round(cost / unit, 2) for path, cost in each.items()}


def check() -> int:
    """Compare with what is recorded; the exit code."""
    recorded, now = json.loads(RECORDED.read_text()), measure()
    wrong = 0
    for path, cost in now.items():
        change = cost / recorded[path] - 1
        verdict = "" if abs(change) <= GROWTH_MAX else "  TOO MUCH" if change > 0 else "  better: record it"
        wrong += bool(verdict)
        print(f"{path:14} {cost:8.2f} rounds, recorded {recorded[path]:8.2f} ({change:+.1%}){verdict}")
    return bool(wrong)


def main(arguments: list[str]) -> int:
    match arguments:
        case ["check"]:
            return check()
        case ["record"]:
            RECORDED.write_text(json.dumps(measure(), indent=2) + "\n")
            return 0
        case ["walk", path, count]:
            PATHS[path][0](int(count))
            return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
