"""A private MariaDB for tests and benchmarks: started on first use, ended with the session.

It runs on a free loopback port with its data in a temporary directory, as the user `mysql` when the session runs as
root. It is as durable as in production: every commit syncs the redo log. The kernel ends it when the test process
dies, however that dies.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pymysql
import pytest

from dsfast.chaos.ports import free_port

USER = "dsfast"
PASSWORD = "correct horse"
_IS_ROOT = os.geteuid() == 0
_AS_MYSQL = (
    *("setpriv", "--pdeathsig", "KILL"),
    *(("--reuid", "mysql", "--regid", "mysql", "--clear-groups") if _IS_ROOT else ()),
)
START_SECONDS_MAX = 60.0  # making the data directory and the first start take 2 s here; a busy machine takes longer
SETTINGS = """
[mysqld]
bind-address = 127.0.0.1
skip-name-resolve
max_allowed_packet = 256M
innodb_flush_log_at_trx_commit = 1
innodb_buffer_pool_size = 64M
innodb_log_file_size = 64M
performance_schema = off
"""


class MySqlServer:
    """One server and its databases. `stop`, `start` and `restart` are for fault tests."""

    def __init__(self) -> None:
        self._daemon = _daemon()
        self._home = Path(tempfile.mkdtemp(prefix="dsfast-mysql-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        # Outlives every test: the kernel ends the server with the thread that started it.
        self._spawner = ThreadPoolExecutor(1)
        self.port = free_port()
        self._install()
        self.start()

    def url(self, database: str, *, user: str = USER, password: str = PASSWORD) -> str:
        """Where a database is, for `open_store`."""
        return f"mysql://{user}:{password.replace(' ', '%20')}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Make a database and return its URL."""
        name = f"test_{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name}")
        return self.url(name)

    def new_migrated_database(self) -> str:
        """Make a database with our tables."""
        from dsfast.store.migrations import upgrade

        url = self.new_database()
        upgrade(url)
        return url

    def folder_of(self, url: str) -> Path:
        """Where the tables of a database lie."""
        return self._home / "data" / url.rpartition("/")[2]

    def connect(self, database: str = "mysql") -> Any:
        """A connection of the administrator to a database, or to that of a URL; statements commit by themselves."""
        name = database.rpartition("/")[2]
        return pymysql.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, database=name, autocommit=True
        )

    def sql(self, statement: str, database: str = "mysql", values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement as the administrator, in a database or at a URL; its rows."""
        with closing(self.connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def start(self) -> None:
        """Start and wait until connections are accepted."""
        assert self._process is None
        command = [self._daemon, f"--defaults-file={self._home}/my.cnf", f"--datadir={self._home}/data"]
        command += [f"--port={self.port}", f"--socket={self._home}/socket", f"--pid-file={self._home}/pid"]
        command += [f"--tmpdir={self._home}"]  # its temporary tables have names that other servers use, too
        with (self._home / "log").open("ab") as log:
            self._process = self._spawner.submit(
                subprocess.Popen, [*_AS_MYSQL, *command], stdout=log, stderr=log, cwd=self._home
            ).result()
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"MariaDB did not start:\n{(self._home / 'log').read_text()[-3000:]}")
            time.sleep(0.02)

    def stop(self, *, immediate: bool = False) -> None:
        """End the server; `immediate` is a crash: kill -9, clients are cut off in mid-transaction."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL if immediate else signal.SIGTERM)
        self._process.wait()
        self._process = None

    def restart(self, *, immediate: bool = False) -> None:
        """Stop and start, on the same port with the same data."""
        self.stop(immediate=immediate)
        self.start()

    def save(self) -> None:
        """Keep a copy of the data as they are now."""
        self.stop()
        subprocess.run(["cp", "-a", f"{self._home}/data", f"{self._home}/saved"], check=True)
        self.start()

    def go_back(self) -> None:
        """Crash, and come up with the copy that was kept."""
        self.stop(immediate=True)
        shutil.rmtree(self._home / "data")
        (self._home / "saved").rename(self._home / "data")
        self.start()

    def close(self) -> None:
        """End the server and delete its data."""
        if self._process is not None:
            self.stop(immediate=True)
        self._spawner.shutdown()
        shutil.rmtree(self._home)

    def _accepts(self) -> bool:
        try:
            self.connect().close()
        except pymysql.err.OperationalError:
            return False
        return True

    def _install(self) -> None:
        """Make the data directory, with our user in it before anybody can connect."""
        (self._home / "my.cnf").write_text(SETTINGS)
        accounts = self._home / "accounts.sql"
        accounts.write_text(
            f"FLUSH PRIVILEGES;\nGRANT ALL ON *.* TO '{USER}'@'%' IDENTIFIED BY '{PASSWORD}' WITH GRANT OPTION;\n"
        )
        if _IS_ROOT:
            shutil.chown(self._home, "mysql", "mysql")
        options = [f"--defaults-file={self._home}/my.cnf", f"--datadir={self._home}/data", "--skip-test-db"]
        command = ["mariadb-install-db", *options, f"--extra-file={accounts}"]
        done = subprocess.run([*_AS_MYSQL, *command], cwd=self._home, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"mariadb-install-db failed:\n{done.stdout}{done.stderr}")


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[MySqlServer]:
    """The session's MariaDB. A test that stops it starts it again."""
    server = MySqlServer()
    yield server
    server.close()


@pytest.fixture
def mysql_url(mysql_server: MySqlServer) -> str:
    """A fresh database with our tables."""
    return mysql_server.new_migrated_database()


@cache
def _daemon() -> str:
    found = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin:/usr/local/sbin")
    if found is None or shutil.which("mariadb-install-db") is None:
        raise pytest.UsageError("these tests need MariaDB's server: apt-get install mariadb-server")
    return found
