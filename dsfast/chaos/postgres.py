"""A private PostgreSQL, for chaos, tests and benchmarks.

It runs on a free port with its data in a temporary directory, as the user `postgres` when we run as root (PostgreSQL
refuses root). It is as durable as in production: fsync and synchronous_commit are on. The kernel ends it when
our process dies, however that dies.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

from dsfast.chaos.ports import free_port
from dsfast.errors import Problem, UsageError
from dsfast.store.migrations import upgrade

USER = "dsfast"
PASSWORD = "correct horse"  # noqa: S105 - of a server that lives for minutes, on addresses of this machine
LOOPBACK = "127.0.0.1"
_IS_ROOT = os.geteuid() == 0
# As a user PostgreSQL accepts, and ended by the kernel together with this process.
_AS_POSTGRES = (
    *("setpriv", "--pdeathsig", "QUIT"),
    *(("--reuid", "postgres", "--regid", "postgres", "--clear-groups") if _IS_ROOT else ()),
)
START_SECONDS_MAX = 60.0  # initdb and the first start take 2 s here; a busy CI machine may take ten times that
SETTINGS = """
max_connections = 100
fsync = on
synchronous_commit = on
recovery_init_sync_method = syncfs  # after a crash: one call in place of an fsync for each of 300 files per database
"""
TEMPLATE = "dsfast_template"  # a migrated database that others are copied from


class PostgresServer:
    """One server and its databases. `stop`, `start` and `restart` are for fault tests.

    `enter` are the words before its command that put it where `host` is an address of its own; `variables`
    (NAME=value) are in the environment of the server itself.
    """

    def __init__(self, host: str = LOOPBACK, enter: tuple[str, ...] = (), variables: tuple[str, ...] = ()) -> None:
        self.host = host
        self._launch = (*enter, *_AS_POSTGRES, "env", *variables)
        self._bin = _binaries()
        self._home = Path(tempfile.mkdtemp(prefix="dsfast-postgres-"))
        self._data = self._home / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        # Outlives every test: the kernel ends the server with the thread that started it.
        self._spawner = ThreadPoolExecutor(1)
        self.port = free_port()
        self._initdb()
        self.start()

    def url(self, database: str, *, password: str = PASSWORD) -> str:
        """Where a database is, for `open_store`."""
        return f"postgresql://{USER}:{password.replace(' ', '%20')}@{self.host}:{self.port}/{database}"

    def new_database(self, *, template: str = "template0") -> str:
        """Make a database and return its URL."""
        name = f"test_{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def new_migrated_database(self) -> str:
        """Make a database with our tables, by copying one that was migrated once."""
        if TEMPLATE not in self.sql("SELECT datname FROM pg_database").split():
            self.sql(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
            self._spawner.submit(upgrade, self.url(TEMPLATE)).result()  # it has an event loop of its own
        return self.new_database(template=TEMPLATE)

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run statements as the administrator, in a database or at a URL; returns what psql prints."""
        url = database if "://" in database else self.url(database)
        command = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement, url]
        done = self._run(command)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def start(self) -> None:
        """Start and wait until connections are accepted."""
        assert self._process is None
        command = [f"{self._bin}/postgres", "-D", f"{self._data}", "-p", f"{self.port}", "-k", f"{self._home}"]
        command += ["-h", self.host]
        with (self._home / "log").open("ab") as log:
            self._process = self._spawner.submit(
                subprocess.Popen, [*self._launch, *command], stdout=log, stderr=log, cwd=self._home
            ).result()
        deadline = time.monotonic() + START_SECONDS_MAX
        while self._run(["pg_isready", "-q", "-h", self.host, "-p", f"{self.port}"]).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{(self._home / 'log').read_text()[-3000:]}")
            time.sleep(0.02)

    def stop(self, *, immediate: bool = False) -> None:
        """End the server; `immediate` is a crash: no checkpoint, clients are cut off in mid-transaction."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
        self._process.wait()
        self._process = None

    def restart(self, *, immediate: bool = False) -> None:
        """Stop and start, on the same port with the same data."""
        self.stop(immediate=immediate)
        self.start()

    def close(self) -> None:
        """End the server and delete its data."""
        if self._process is not None:
            self.stop(immediate=True)
        self._spawner.shutdown()
        shutil.rmtree(self._home)

    def _initdb(self) -> None:
        secret = self._home / "password"
        secret.write_text(PASSWORD)
        if _IS_ROOT:
            for path in (self._home, secret):
                shutil.chown(path, "postgres", "postgres")
        options = ["-U", USER, f"--pwfile={secret}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        done = self._run(["initdb", "-D", f"{self._data}", *options, "--no-sync"], prefix=_AS_POSTGRES)
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed:\n{done.stderr}")
        with (self._data / "postgresql.conf").open("a") as conf:
            conf.write(SETTINGS)
        with (self._data / "pg_hba.conf").open("a") as hba:
            hba.write(f"host all all {self.host}/24 scram-sha-256\n")

    def _run(self, command: list[str], prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        program, *arguments = command
        full = [*prefix, f"{self._bin}/{program}", *arguments]
        return subprocess.run(full, cwd=self._home, capture_output=True, text=True, check=False)


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    if on_path is None:
        raise UsageError(Problem("there is no PostgreSQL server on this machine", hint="apt-get install postgresql"))
    return Path(on_path).resolve().parent
