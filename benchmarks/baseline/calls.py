"""Counts calls to the database and to ZooKeeper by the step that makes them.

A thread is in one step at a time; a step within a step counts for itself only. Each time that a step ends is noted with
what it took, so that one that takes more when it has to wait does not hide in an average.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

Occurrence = tuple[str, int, int]  # step, SQL statements, ZooKeeper calls


class Calls:
    """The counts of one daemon. BEGIN and COMMIT are not counted, as the sources do not count them either."""

    def __init__(self) -> None:
        self._steps: Counter[Occurrence] = Counter()
        self._lock = threading.Lock()
        self._open = threading.local()

    def sql(self) -> None:
        self._frames()[-1][0] += 1

    def zookeeper(self) -> None:
        self._frames()[-1][1] += 1

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        frames = self._frames()
        frames.append([0, 0])
        try:
            yield
        finally:
            sql, zookeeper = frames.pop()
            with self._lock:
                self._steps[name, sql, zookeeper] += 1

    def seen(self) -> list[tuple[Occurrence, int]]:
        """Each step with what it took, and how often it took that."""
        with self._lock:
            return sorted(self._steps.items())

    def _frames(self) -> list[list[int]]:
        if not hasattr(self._open, "frames"):
            self._open.frames = [[0, 0]]  # what is done outside any step: nobody asks for it
        frames: list[list[int]] = self._open.frames
        return frames
