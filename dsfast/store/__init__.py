"""Durable state: one protocol, SQLite, PostgreSQL and MySQL behind it."""

from dsfast.store.open import open_store

__all__ = ["open_store"]
