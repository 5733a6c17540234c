"""A name service that does not answer: who can be dialled without it is, and is worked with, as ever."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dsfast.chaos.cluster import STOP_SECONDS, Cluster
from dsfast.chaos.network import Loopback
from dsfast.model import Workflow, canonical
from tests.integration.local_cluster import run_dsfast
from tests.integration.witness import Witness

SILENT = "127.198.18.53"  # an address of this machine's loopback that nobody else uses
PORT = 53
RUN_SECONDS = 60.0
NAMELESS = 6  # members whose names nobody can tell: more than there are threads that look names up


class Nameless(Loopback):
    """One daemon has /etc/resolv.conf to itself."""

    def __init__(self, name: str, resolver: Path) -> None:
        self._name = name
        self._resolver = resolver

    def enter(self, name: str) -> tuple[str, ...]:
        script = f'mount --bind {self._resolver} /etc/resolv.conf && exec "$@"'
        return ("unshare", "--mount", "sh", "-c", script, "sh") if name == self._name else ()


@pytest.fixture
def silence() -> Iterator[socket.socket]:
    """A name server that takes every question and answers none."""
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        try:
            silent.bind((SILENT, PORT))
        except PermissionError:
            pytest.skip("only root may listen where name servers do, and mount over /etc/resolv.conf")
        yield silent


def test_a_silent_name_service_blocks_no_loop_and_no_other_link(silence: socket.socket, tmp_path: Path) -> None:
    resolver = tmp_path / "resolv.conf"
    resolver.write_text(f"nameserver {SILENT}\n")
    database, registry = f"sqlite:///{tmp_path}/db", f"database+sqlite:///{tmp_path}/registry.db"
    nodes, witness = Cluster(tmp_path, database, registry, network=Nameless("m1", resolver)), Witness(tmp_path)
    assert run_dsfast("db", "upgrade", environ=nodes.environ, folder=tmp_path).returncode == 0
    try:
        for number in range(NAMELESS):
            nodes.start_worker(f"n{number}", advertise=f"n{number}.dsfast.test", groups="nameless")
        nodes.start("master", "m1")
        nodes.start("api", "api")
        nodes.until(lambda: nodes.complete(1, NAMELESS))
        assert silence.recv(512), "it asks"
        nodes.start_worker("w1")
        with nodes.client() as client:
            tasks = tuple(witness.task(f"t{number}", "gate") for number in range(4))
            run = client.submit(msgspec.Raw(canonical(Workflow(name="w", tasks=tasks))))
            nodes.until(lambda: witness.lines(run.id)["start"] >= 2)
            nodes.until(
                lambda: (tmp_path / "m1.log").read_text().count("no answer to the attempt to connect") >= NAMELESS
            )
            witness.open("gate")
            ended = client.wait(run.id, RUN_SECONDS)
            assert ended is not None, nodes.story()
            assert ended.state == "succeeded"
            assert {task.attempts for task in client.tasks(run.id)} == {1}
        assert "link_down peer=w1" not in (tmp_path / "m1.log").read_text(), "heartbeats went on all the time"
        nodes.daemons["m1"].terminate()
        assert nodes.daemons["m1"].wait(STOP_SECONDS) == 0, "it does not wait for answers either"
    finally:
        nodes.stop()
