"""Who is alive: one protocol; memory, database leases and ZooKeeper behind it."""

from dsfast.registry.base import Registry, Session, SessionWatcher, Watcher
from dsfast.registry.urls import open_registry

__all__ = ["Registry", "Session", "SessionWatcher", "Watcher", "open_registry"]
