"""The master engine alone, no I/O: what a task costs in decisions, in time and in memory.

A loopback stands for the workers: every dispatch of a turn comes back as its result in the next one. What the
runtime would add (frames, sockets, the database) is measured in other files. `us_per_task` and `bytes_per_task`
are in the extra info of each benchmark.
"""

from __future__ import annotations

import gc
import random
import time
import tracemalloc
from typing import Any

import pytest

from dsfast.engine import events as ev
from dsfast.engine.effects import MasterEffects
from dsfast.engine.master import MasterEngine, MasterSettings
from dsfast.engine.worker import WorkerEngine
from dsfast.model import AttemptState, Member, Outcome, canonical
from dsfast.wire import commands as cmd
from tests.workflows import chain, flat

pytestmark = pytest.mark.benchmark(timer=time.process_time)  # nothing here waits: neighbours do not count

WALL = 1_750_000_000.0
DONE = Outcome(AttemptState.SUCCEEDED, 0, "", b"", WALL, WALL)


class Loopback:
    """A master with workers that finish everything at once."""

    def __init__(self, workers: int = 4, credit: int = 256, policy: str = "least_loaded") -> None:
        self.engine = MasterEngine(Member("master", "m", "1"), MasterSettings(policy=policy), random.Random(1))
        self.turns = 0
        for number in range(workers):
            member = Member("worker", f"w{number}", "1", "host", 1, ("default",), credit, 100)
            granted = ev.Received(member.id, 0, cmd.Credit(credit))
            self.step([ev.Members((member,)), ev.LinkUp(member), granted])

    def step(self, events: list[Any]) -> MasterEffects:
        self.turns += 1
        return self.engine.step(events, float(self.turns), WALL + self.turns)

    def submit(self, body: bytes) -> MasterEffects:
        return self.step([ev.Received("client@1", 1, cmd.Submit(body))])

    def finish(self, fx: MasterEffects, *, starts: bool = False) -> None:
        """Answer dispatches with results until nothing is left to do."""
        while True:
            events: list[ev.Event] = []
            for peer, _, command in fx.sends:
                if isinstance(command, cmd.Execute):
                    key = (command.run_id, command.task, command.attempt)
                    if starts:
                        events.append(ev.Received(peer, 0, cmd.Started(*key, WALL)))
                    events.append(ev.Received(peer, 0, cmd.Result(*key, DONE)))
            if not events:
                return
            fx = self.step(events)


def run_whole(body: bytes, **how: Any) -> Loopback:
    loopback = Loopback(**how)
    loopback.finish(loopback.submit(body))
    assert not loopback.engine.core.runs
    return loopback


@pytest.mark.parametrize("policy", ["least_loaded", "round_robin", "smooth_weighted"])
def test_flat(benchmark: Any, policy: str) -> None:
    """10,000 independent tasks over 4 workers, about 1,000 in a turn: submit, dispatch, settle."""
    _per_task(benchmark, canonical(flat(10_000)), 10_000, policy=policy)


def test_chain(benchmark: Any) -> None:
    """1,000 tasks one after the other, one in a turn: the cost of a turn shows."""
    _per_task(benchmark, canonical(chain(1_000)), 1_000)


def test_chain_among_1000_workers(benchmark: Any) -> None:
    """The same with many workers: what a turn costs must not grow with the cluster by much."""
    _per_task(benchmark, canonical(chain(1_000)), 1_000, workers=1_000)


def test_many_small_runs(benchmark: Any) -> None:
    """2,000 submits of one workflow of 3 tasks, 20 in a turn: the cost of a run shows."""
    body = canonical(chain(3))

    def submits() -> None:
        loopback = Loopback()
        for _ in range(100):
            loopback.finish(loopback.step([ev.Received("client@1", 1, cmd.Submit(body)) for _ in range(20)]))

    benchmark.pedantic(submits, rounds=3, warmup_rounds=1)
    note_us(benchmark, "us_per_run", 2_000)


def test_worker(benchmark: Any) -> None:
    """The worker engine: 10,000 dispatches in turns of 256, each ending at once and acknowledged."""

    def attempts() -> None:
        engine = WorkerEngine(Member("worker", "w", "1", "host", 1, ("default",), 256, 100))
        engine.step([ev.LinkUp(Member("master", "m", "1"))], 0.0)
        for first in range(0, 10_000, 256):
            keys = [(1, at, 1) for at in range(first, first + 256)]
            engine.step([ev.Received("m@1", 0, cmd.Execute(*key, 1, "task", b"{}")) for key in keys], 1.0)
            engine.step([ev.AttemptEnded(key, DONE) for key in keys], 1.001)
            engine.step([ev.Received("m@1", 0, cmd.ResultAck(*key)) for key in keys], 1.002)
        assert not engine.held

    benchmark.pedantic(attempts, rounds=5, warmup_rounds=1)
    note_us(benchmark, "us_per_task", 10_000)


def test_memory(benchmark: Any) -> None:
    """A run of 100,000 tasks: what it holds once submitted (waiting, 16 live), and with everything live."""
    tasks = 10_000 if benchmark.disabled else 100_000
    body = canonical(flat(tasks))
    waiting = benchmark.pedantic(lambda: _held_bytes(body, credit=4), rounds=1)
    live = _held_bytes(body, credit=tasks // 4)
    benchmark.extra_info["bytes_per_task_waiting"] = round(waiting / tasks)
    benchmark.extra_info["bytes_per_task_live"] = round(live / tasks)
    assert live / tasks <= 1536, "a task may take 1.5 KB"


def _held_bytes(body: bytes, credit: int) -> int:
    """What a master keeps of this run after its first turn, whose effects are gone."""
    loopback = Loopback(credit=credit)
    gc.collect()
    tracemalloc.start()
    loopback.submit(body)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held


def _per_task(benchmark: Any, body: bytes, tasks: int, **how: Any) -> None:
    benchmark.pedantic(lambda: run_whole(body, **how), rounds=5, warmup_rounds=1)
    note_us(benchmark, "us_per_task", tasks)


def note_us(benchmark: Any, name: str, operations: int) -> None:
    """Keep the microseconds of one operation in the best round, if rounds were timed."""
    if benchmark.stats is not None:
        benchmark.extra_info[name] = round(benchmark.stats.stats.min / operations * 1e6, 2)
