"""The schema as SQLite's DDL, so that `dsfast run` can make a database without importing SQLAlchemy (0.14 s).

Printed from `schema.py`; a test fails when the two differ and prints what belongs here.
"""

from __future__ import annotations

SQLITE = """
CREATE TABLE attempts ( run_id INTEGER NOT NULL, task INTEGER NOT NULL, attempt INTEGER NOT NULL, state SMALLINT NOT
    NULL, worker TEXT, dispatched_at DOUBLE, started_at DOUBLE, ended_at DOUBLE, exit_code BIGINT, reason TEXT NOT
    NULL, outputs BLOB, PRIMARY KEY (run_id, task, attempt) ) WITHOUT ROWID;
CREATE TABLE crashes ( run_id INTEGER NOT NULL, count INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (run_id) );
CREATE TABLE definitions ( digest TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, body BLOB NOT NULL,
    created_at DOUBLE NOT NULL, PRIMARY KEY (digest) );
CREATE UNIQUE INDEX definitions_by_name ON definitions (name, version);
CREATE TABLE dsfast_revision ( version_num VARCHAR(32) NOT NULL, CONSTRAINT dsfast_revision_pkc PRIMARY KEY
    (version_num) );
CREATE TABLE runs ( id INTEGER NOT NULL, workflow TEXT NOT NULL, digest TEXT NOT NULL, state SMALLINT NOT NULL,
    owner TEXT, epoch BIGINT NOT NULL, priority SMALLINT NOT NULL, params BLOB NOT NULL, created_at DOUBLE NOT NULL,
    idempotency_key TEXT, started_at DOUBLE, ended_at DOUBLE, reason TEXT NOT NULL, tasks INTEGER NOT NULL, outcome
    SMALLINT GENERATED ALWAYS AS (CASE WHEN owner IS NULL THEN state END) STORED, PRIMARY KEY (id) );
CREATE UNIQUE INDEX runs_by_key ON runs (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX runs_by_outcome ON runs (outcome, id) WHERE outcome IS NOT NULL;
CREATE INDEX runs_by_owner ON runs (owner) WHERE owner IS NOT NULL;
CREATE INDEX runs_by_workflow ON runs (workflow, id);
"""
