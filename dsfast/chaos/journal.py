"""What the database says: triggers that note every durable change of a run or an attempt beside the change itself.

The notes are written by the transaction that changes the row, so they are complete and, for each row, in order; the
code under test knows nothing of them. They are a table of their own, with `psql` as the only client, and are removed
at the end. Questions that are asked while the database is being broken may fail: they raise Unavailable.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

import msgspec

from dsfast.errors import Problem, Unavailable, UsageError

ASK_SECONDS_MAX = 20.0  # a database that takes longer is out of reach

INSTALL = """
CREATE TABLE chaos_notes (
    seq bigserial PRIMARY KEY, at double precision NOT NULL DEFAULT extract(epoch FROM clock_timestamp()),
    what text NOT NULL, run_id bigint NOT NULL, task int, attempt int, state int NOT NULL,
    holder text, epoch bigint, reason text NOT NULL, exit_code bigint, tag text);
CREATE FUNCTION chaos_note_run() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'INSERT' OR NEW IS DISTINCT FROM OLD THEN
        INSERT INTO chaos_notes (what, run_id, state, holder, epoch, reason, tag)
        VALUES ('run', NEW.id, NEW.state, NEW.owner, NEW.epoch, NEW.reason, NEW.idempotency_key);
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION chaos_note_attempt() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'INSERT' OR NEW IS DISTINCT FROM OLD THEN
        INSERT INTO chaos_notes (what, run_id, task, attempt, state, holder, epoch, reason, exit_code)
        VALUES ('attempt', NEW.run_id, NEW.task, NEW.attempt, NEW.state, NEW.worker,
                (SELECT epoch FROM runs WHERE id = NEW.run_id), NEW.reason, NEW.exit_code);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_runs AFTER INSERT OR UPDATE ON runs FOR EACH ROW EXECUTE FUNCTION chaos_note_run();
CREATE TRIGGER chaos_attempts AFTER INSERT OR UPDATE ON attempts FOR EACH ROW EXECUTE FUNCTION chaos_note_attempt();
"""
REMOVE = """
DROP TRIGGER IF EXISTS chaos_runs ON runs; DROP TRIGGER IF EXISTS chaos_attempts ON attempts;
DROP FUNCTION IF EXISTS chaos_note_run; DROP FUNCTION IF EXISTS chaos_note_attempt; DROP TABLE IF EXISTS chaos_notes;
"""
CUT_OFF = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class Note(msgspec.Struct, frozen=True):
    """One durable change: of a run (`holder` owns it, `tag` is its idempotency key), or of an attempt (its worker)."""

    seq: int
    at: float
    what: str
    run_id: int
    state: int
    reason: str
    task: int | None = None
    attempt: int | None = None
    holder: str | None = None
    epoch: int | None = None
    exit_code: int | None = None
    tag: str | None = None


class Journal:
    """The notes of one database. Raises UsageError if it is none that can keep them."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if not parts.scheme.startswith("postgresql"):
            problem = Problem(
                f"chaos needs a PostgreSQL database, not {parts.scheme}", hint="it notes every change there"
            )
            raise UsageError(problem)
        self._before = (0, 0)
        self._environ = os.environ | {
            "PGHOST": parts.hostname or "127.0.0.1",
            "PGPORT": str(parts.port or 5432),
            "PGUSER": unquote(parts.username or ""),
            "PGPASSWORD": unquote(parts.password or ""),
            "PGDATABASE": parts.path.strip("/"),
            "PGCONNECT_TIMEOUT": "3",
        }

    def install(self) -> None:
        """Begin to note. What an earlier chaos has left is removed first.

        Raises UsageError if somebody else's runs are under way there, or there are no tables.
        """
        if self.ask("SELECT to_regclass('runs')").strip() != "runs":
            raise UsageError(Problem("the database has no tables", hint="dsfast db upgrade makes them"))
        if self.unfinished():
            raise UsageError(Problem("runs are under way in the database", hint="give chaos one for itself alone"))
        self._before = self._counts()
        self.remove()
        self.ask(INSTALL)

    def remove(self) -> None:
        """Remove every trace from the database."""
        self.ask(REMOVE)

    def notes(self) -> Iterator[Note]:
        """Everything noted, in the order of writing."""
        rows = self.ask("SELECT row_to_json(chaos_notes) FROM chaos_notes ORDER BY seq").splitlines()
        return (msgspec.json.decode(row, type=Note) for row in rows)

    def progress(self) -> tuple[int, int]:
        """How many runs and how many attempts have ended since we note."""
        runs, attempts = self._counts()
        return runs - self._before[0], attempts - self._before[1]

    def _counts(self) -> tuple[int, int]:
        runs = self.ask("SELECT count(*) FROM runs WHERE owner IS NULL")
        return int(runs), int(self.ask("SELECT count(*) FROM attempts WHERE ended_at IS NOT NULL"))

    def unfinished(self) -> list[int]:
        """The runs that have not ended."""
        return [int(line) for line in self.ask("SELECT id FROM runs WHERE owner IS NOT NULL ORDER BY id").split()]

    def cut_off(self) -> None:
        """End everybody's connections to the database."""
        self.ask(CUT_OFF)

    def ask(self, statement: str) -> str:
        """What psql prints. Raises Unavailable."""
        command = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement]
        try:
            done = subprocess.run(
                command, env=self._environ, capture_output=True, text=True, check=False, timeout=ASK_SECONDS_MAX
            )
        except FileNotFoundError:
            raise UsageError(Problem("there is no psql", hint="apt-get install postgresql-client")) from None
        except subprocess.TimeoutExpired:
            raise Unavailable("the database does not answer") from None
        if done.returncode != 0:
            raise Unavailable(f"the database does not answer: {done.stderr.strip()}")
        return done.stdout
