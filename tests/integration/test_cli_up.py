"""`dsfast up` when things go wrong: nothing half-started stays, nothing outlives it."""

from __future__ import annotations

import os
import select
import signal
import socket
from pathlib import Path

from tests.integration.local_cluster import clean_environ, local_cluster, run_dsfast

END_SECONDS = 30.0


def test_a_role_that_cannot_start_takes_everything_down(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        environ = clean_environ(tmp_path) | {"DSFAST_MASTER_PORT": "0", "DSFAST_WORKER_PORT": "0"}
        done = run_dsfast("up", "--port", port, environ=environ, folder=tmp_path)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr
    assert "the api ended with exit code 2 before it was ready; stopping" in done.stderr
    assert "stop: Ctrl-C" not in done.stdout


def test_nothing_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with local_cluster(tmp_path) as cluster:
        pidfds = [os.pidfd_open(pid) for pid in cluster.children().values()]
        assert len(pidfds) == 3
        cluster.process.send_signal(signal.SIGKILL)
        cluster.process.wait(END_SECONDS)
        for pidfd in pidfds:
            ended, _, _ = select.select([pidfd], [], [], END_SECONDS)
            assert ended
            os.close(pidfd)


def test_a_worker_that_died_is_back_and_the_secrets_are_private(tmp_path: Path) -> None:
    with local_cluster(tmp_path) as cluster, cluster.client() as client:
        (before,) = client.workers()
        os.kill(cluster.children()["worker"], signal.SIGKILL)
        run = client.submit_yaml("name: n\ntasks:\n  a: {type: shell, script: 'true'}\n")
        view = client.wait(run.id, END_SECONDS)
        assert view is not None
        assert view.state == "succeeded"
        assert client.task(run.id, "a").history[-1].worker != before.id
        for name in ("cluster.key", "api.token", "dsfast.db"):
            assert (tmp_path / "state" / name).stat().st_mode & 0o077 == 0, name
        assert (tmp_path / "state").stat().st_mode & 0o077 == 0


def test_sources_in_the_working_directory_are_not_what_is_started(tmp_path: Path) -> None:
    (tmp_path / "dsfast").mkdir()
    (tmp_path / "dsfast" / "__init__.py").write_text("raise ImportError('sources without compiled kernels')\n")
    with local_cluster(tmp_path) as cluster:
        assert cluster.process.poll() is None
