"""A whole cluster as people start it: `dsfast up` in a directory of its own, stopped at the end."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dsfast.chaos.cluster import clean_environ
from dsfast.chaos.ports import free_port
from dsfast.client import Client

__all__ = ["LocalCluster", "clean_environ", "local_cluster", "read_until", "run_dsfast"]

START_SECONDS = 30.0
STOP_SECONDS = 30.0
COMMAND_SECONDS = 60.0
SLOTS = 2


@dataclass(slots=True)
class LocalCluster:
    """A running `dsfast up`."""

    process: subprocess.Popen[str]
    environ: dict[str, str]
    folder: Path
    url: str

    @property
    def token(self) -> str:
        return (self.folder / "state" / "api.token").read_text().strip()

    @property
    def log(self) -> str:
        return (self.folder / "up.log").read_text()

    def client(self) -> Client:
        return Client(self.url, self.token)

    def dsfast(self, *args: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command against this cluster."""
        return run_dsfast(*args, environ=self.environ, folder=self.folder, stdin=stdin)

    def children(self) -> dict[str, int]:
        """Process ids by role."""
        found = {}
        for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            found[Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").rpartition("\0")[2]] = int(pid)
        return found

    def read_until(self, text: str) -> str:
        """What it prints to standard output up to this text."""
        return read_until(self.process, text)

    def stop(self) -> int:
        """Ctrl-C, and the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_SECONDS)


def run_dsfast(
    *args: str, environ: dict[str, str], folder: Path, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `dsfast` to its end in this folder."""
    return subprocess.run(
        [sys.executable, "-m", "dsfast", *args],
        env=environ,
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )


@contextmanager
def local_cluster(folder: Path, *args: str) -> Iterator[LocalCluster]:
    """`dsfast up` until it says that everything is ready."""
    environ = clean_environ(folder)
    port = free_port()
    environ |= {"DSFAST_MASTER_PORT": "0", "DSFAST_WORKER_PORT": "0", "DSFAST_API_PORT": str(port)}
    environ |= {"DSFAST_WORKER_DRAIN_SECONDS": "0"}  # a test that fails leaves tasks behind: nobody waits for them
    with (folder / "up.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "dsfast", "up", "--slots", str(SLOTS), *args],
            env=environ,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    cluster = LocalCluster(process, environ, folder, f"http://127.0.0.1:{port}")
    try:
        cluster.read_until("stop: Ctrl-C")
        yield cluster
    finally:
        if process.poll() is None:
            try:
                cluster.stop()
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        assert process.stdout is not None
        process.stdout.close()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What a process prints up to this text; fails if it ends first or takes longer than START_SECONDS."""
    assert process.stdout is not None
    lines = ""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while text not in lines:
            assert selector.select(START_SECONDS), f"{text!r} was not printed in time, only:\n{lines}"
            data = os.read(process.stdout.fileno(), 65536).decode()
            assert data, f"it ended before it printed {text!r}:\n{lines}"
            lines += data
    return lines
