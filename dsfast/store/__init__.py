"""Durable state: one protocol, SQLite and PostgreSQL behind it."""
