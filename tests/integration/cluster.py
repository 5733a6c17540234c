"""A cluster of separate processes that ends with the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dsfast.chaos.cluster import LOOK_SECONDS, READY_SECONDS, STOP_SECONDS, Cluster, guarded_pids

__all__ = ["LOOK_SECONDS", "READY_SECONDS", "STOP_SECONDS", "Cluster", "cluster", "guarded_pids"]


@contextmanager
def cluster(folder: Path, store_url: str, registry_url: str) -> Iterator[Cluster]:
    """A cluster without daemons; those started in it end with it."""
    made = Cluster(folder, store_url, registry_url)
    try:
        yield made
    finally:
        made.stop()
