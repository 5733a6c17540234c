"""The client and a connection that ends when it should not; everything else about it is tested on a real api."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from io import BufferedReader

import msgspec
import pytest

from dsfast.client import Client
from dsfast.views import RunView

RUN = RunView(
    id="0123456789abc",
    workflow="w",
    state="submitted",
    priority="medium",
    params={},
    created_at="2026-11-29T00:00:00.000Z",
    started_at=None,
    ended_at=None,
    duration_seconds=None,
    reason="",
    tasks_total=1,
    counts={"waiting": 1},
)


class Fickle:
    """A server that answers one request of each connection, and closes it when the next one has come."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.keys: list[str] = []  # of all requests that came, answered or not
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as incoming:
                if self._read(incoming):
                    body = msgspec.json.encode(RUN)
                    connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                    self._read(incoming)

    def _read(self, incoming: BufferedReader) -> bool:
        """Take a request in; whether one came. They all have a length."""
        size = 0
        for line in incoming:
            name, _, value = line.decode().partition(":")
            if name.lower() == "idempotency-key":
                self.keys.append(value.strip())
            if name.lower() == "content-length":
                size = int(value)
            if line == b"\r\n":
                incoming.read(size)
                return True
        return False


@pytest.fixture
def fickle() -> Iterator[Fickle]:
    with closing(Fickle()) as server:
        yield server


def test_a_submit_whose_answer_was_lost_is_repeated_under_the_same_key(fickle: Fickle) -> None:
    with Client(fickle.url, "token") as client:
        client.submit_yaml("a")
        client.submit_yaml("b")
    first, lost, repeated = fickle.keys
    assert lost == repeated
    assert first != lost, "two submits are two runs"


def test_a_key_that_is_given_is_the_one_that_is_sent(fickle: Fickle) -> None:
    with Client(fickle.url, "token") as client:
        client.submit_yaml("a", idempotency_key="mine")
    assert fickle.keys == ["mine"]
