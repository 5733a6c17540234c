"""Master and worker in one process over one SQLite file: what `dsfast run` runs on.

It is the same master and worker that make a cluster, linked over loopback under a key of their own that nobody
else knows, with membership kept in memory. Other `dsfast run` processes may use the same file at the same time:
each master owns its own runs and claims nobody else's.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Awaitable
from types import TracebackType
from typing import Self, TypeVar

from dsfast.config import Config
from dsfast.engine import events as ev
from dsfast.engine.progress import Progress, progress
from dsfast.errors import UsageError
from dsfast.model import Priority
from dsfast.registry.memory import MemoryHub, MemoryRegistry
from dsfast.rows import AttemptRow, Batch, RunRow
from dsfast.runtime import heap
from dsfast.runtime.logs import LogDir
from dsfast.runtime.master import Master
from dsfast.runtime.wiring import Surroundings, build_master, build_worker
from dsfast.runtime.worker import Worker
from dsfast.store import open_store
from dsfast.wire import commands as cmd

KEY_BYTES = 32
CLIENT = "embedded"  # the peer id under which this process asks its own master

T = TypeVar("T")


class Embedded:
    """A whole dsfast inside this process; use it as an async context manager."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.store = open_store(config.store.url, create=True, shared=True)
        self.logs = LogDir(config.worker.log_dir)
        self._client = Client()
        self._ended: dict[int, RunRow] = {}
        self._waiting: dict[int, asyncio.Future[None]] = {}  # by the run whose end they wait for
        self._attempts: dict[int, dict[cmd.Attempt, AttemptRow]] = {}
        self._news: dict[int, dict[cmd.Attempt, AttemptRow]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._master: Master
        self._worker: Worker

    async def __aenter__(self) -> Self:
        await self.store.open()
        key, hub = secrets.token_bytes(KEY_BYTES), MemoryHub()
        log = logging.getLogger("dsfast.run")
        worker_side, master_side = (
            Surroundings(self._config, (key,), MemoryRegistry(hub), log, in_one_process=True) for _ in range(2)
        )
        self._worker = await build_worker(worker_side)
        self._master = await build_master(master_side, self.store, alone=True)
        self._master.local = self._client.take
        self._master.on_durable = self._note
        await self._worker.start()
        await self._master.start()
        heap.settle()
        self._tasks = [asyncio.create_task(self._master.serve()), asyncio.create_task(self._worker.serve())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        master_task, worker_task = self._tasks
        self._worker.stop(0.0)
        await asyncio.wait([worker_task, master_task], return_when=asyncio.FIRST_COMPLETED)
        self._master.stop()
        await self._worker.close()
        await asyncio.wait([master_task])
        await self._master.close()

    def _note(self, batch: Batch) -> None:
        """Remember what was written: whoever runs a workflow here wants to see all of it, without asking the file."""
        for key, attempt in batch.attempts.items():
            self._attempts.setdefault(key[0], {})[key] = attempt
            self._news.setdefault(key[0], {})[key] = attempt
        for row in batch.runs.values():
            if row.state.final:
                self._ended[row.id] = row
                if (waiting := self._waiting.pop(row.id, None)) is not None and not waiting.done():
                    waiting.set_result(None)

    async def submit(self, body: bytes, params: bytes, priority: Priority | None = None) -> int:
        """Start a run of canonical JSON; its id. Raises UsageError if the workflow or a parameter is wrong."""
        answer = await self._ask(cmd.Submit(body, params, priority=priority))
        assert isinstance(answer, cmd.Submitted)
        return answer.run_id

    def progress(self, run_id: int) -> Progress | None:
        """How far the run is; None once it has ended."""
        run = self._master.engine.core.runs.get(run_id)
        return progress(run) if run is not None else None

    def attempts(self, run_id: int) -> list[AttemptRow]:
        """All attempts of a run submitted here, by task and attempt."""
        found = self._attempts.get(run_id, {})
        return [found[key] for key in sorted(found)]

    def news(self, run_id: int) -> list[AttemptRow]:
        """The attempts that have changed since the last call, in the order of their first change."""
        return list(self._news.pop(run_id, {}).values())

    async def changed(self) -> None:
        """Return after the next turn of the master."""
        await self._or_failure(self._master.turn_after(self._master.turns))

    async def wait(self, run_id: int) -> RunRow:
        """The run, submitted here, as it ended durably."""
        if run_id not in self._ended:
            waiting = self._waiting.setdefault(run_id, asyncio.get_running_loop().create_future())
            await self._or_failure(asyncio.shield(waiting))
        return self._ended[run_id]

    async def cancel(self, run_id: int, reason: str, *, grace: float | None = None) -> None:
        """Stop a run; calling again with `grace=0` kills at once. Nothing happens if it has ended."""
        await self._ask(cmd.Cancel(run_id, reason, grace), tolerate="not_owner")

    async def explain(self, run_id: int) -> cmd.Explained | None:
        """Why unfinished tasks do not run; None once the run has ended."""
        answer = await self._ask(cmd.Explain(run_id), tolerate="not_owner")
        return answer if isinstance(answer, cmd.Explained) else None

    async def _ask(self, command: cmd.Command, tolerate: str = "") -> cmd.Command:
        request_id, answer = self._client.expect()
        self._master.inbox.put(ev.Received(CLIENT, request_id, command))
        found = await self._or_failure(answer)
        if isinstance(found, cmd.Failed) and found.code != tolerate:
            raise UsageError(found.message)
        return found

    async def _or_failure(self, awaitable: Awaitable[T]) -> T:
        """Wait for this, or raise what has ended the master or the worker."""
        waiting = asyncio.ensure_future(awaitable)
        await asyncio.wait([waiting, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in self._tasks:
            if task.done():
                waiting.cancel()
                task.result()
        return await waiting


class Client:
    """The commands a master sends to the program around it instead of over a link."""

    def __init__(self) -> None:
        self._answers: dict[int, asyncio.Future[cmd.Command]] = {}
        self._numbers = itertools.count(1)

    def expect(self) -> tuple[int, asyncio.Future[cmd.Command]]:
        """A fresh request id, and what will hold its answer."""
        request_id = next(self._numbers)
        answer = self._answers[request_id] = asyncio.get_running_loop().create_future()
        return request_id, answer

    def take(self, request_id: int, command: cmd.Command) -> None:
        answer = self._answers.pop(request_id)
        if not answer.cancelled():
            answer.set_result(command)
