"""Durable state: one protocol, SQLite and PostgreSQL behind it."""

from dsfast.store.open import open_store

__all__ = ["open_store"]
