"""The work that goes on meanwhile: workflows of shell tasks, submitted until accepted, some of them cancelled.

A run is asked for under an idempotency key, again and again until somebody answers: what was answered is a promise. So
many runs are kept unfinished at a time; more would only wait. Runs differ in shape (single, chain, fan, diamond) and
their tasks in what they do, by the seed.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from dsfast.chaos.journal import Journal
from dsfast.chaos.witness import Witness
from dsfast.client import Client
from dsfast.errors import DsfastError, Unavailable, UsageError
from dsfast.ids import run_number, run_text
from dsfast.model import Retry, Task, Workflow, canonical

T = TypeVar("T")

CANCEL_SHARE = 0.05  # of runs
CANCEL_SECONDS_MAX = 4.0  # after they were accepted
TIMEOUT_SECONDS = 1.5  # of tasks that would take for ever
PAUSE_SECONDS = 0.1  # between two tries when nobody answers, and between two looks
LOOK_SECONDS = 0.5  # between two counts of what has ended


ONCE = Retry()


@dataclass(frozen=True, slots=True)
class Act:
    """What a task does: its script and how it is tried, how often a load chooses it, and whether it must fail."""

    share: int
    script: str
    fails: bool = False
    retry: Retry = ONCE
    timeout: float | None = None


ACTS = {
    "short": Act(30, "true"),
    "nap": Act(30, "sleep 0.$((RANDOM % 9 + 1))"),
    "long": Act(14, "sleep $((RANDOM % 4 + 2))"),
    "flaky": Act(8, "sleep 0.2; fail_once", retry=Retry(limit=1, delay=0.3)),
    "daemon": Act(8, "(setsid sh -c 'sleep 300 & sleep 300' >/dev/null 2>&1 &)\nsleep 0.5"),
    "stubborn": Act(2, "trap '' TERM INT; sleep 300 & wait; sleep 300", fails=True, timeout=TIMEOUT_SECONDS),
    "failing": Act(2, "sleep 0.1; exit 3", fails=True),
    "busy": Act(6, "for i in {1..20000}; do :; done"),
}


@dataclass(slots=True)
class Promise:
    """A run that somebody was promised: what it was asked for with, and what was asked of it since."""

    key: str
    run: int
    workflow: Workflow
    accepted_at: float
    cancelled_at: float | None = None

    @property
    def must_fail(self) -> bool:
        """Whether a task in it fails whatever happens."""
        return any(ACTS[task.name.partition("-")[0]].fails for task in self.workflow.tasks)


@dataclass(slots=True)
class Load:
    """Keeps `unfinished` runs going until it is told to stop."""

    client: Callable[[], Client]
    journal: Journal
    witness: Witness
    rng: random.Random
    unfinished: int
    promises: list[Promise] = field(default_factory=list)
    ended: int = 0
    tasks: int = 0
    refused: int = 0
    _token: str = field(default_factory=lambda: secrets.token_hex(4))  # keys of other times are not ours
    _doomed: list[tuple[float, Promise]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    error: Exception | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Submit nothing more; returns once what was under way is answered."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        looked = 0.0
        try:
            while not self._stop.is_set():
                if time.monotonic() - looked >= LOOK_SECONDS:
                    looked = time.monotonic()
                    self.look()
                self._cancel_some()
                if len(self.promises) - self.ended < self.unfinished:
                    self._submit()
                else:
                    self._stop.wait(PAUSE_SECONDS)
            for _, promise in self._doomed:
                self._cancel(promise)
        except Exception as error:  # noqa: BLE001 - raised again by whoever waits for this thread
            self.error = error

    def look(self) -> None:
        """Count what has ended, if the database answers."""
        try:
            self.ended, self.tasks = self.journal.progress()
        except Unavailable:
            self._stop.wait(PAUSE_SECONDS)

    def _submit(self) -> None:
        number = len(self.promises)
        workflow = make_workflow(self.rng, number, self.witness)
        body, key = msgspec.Raw(canonical(workflow)), f"chaos-{self._token}-{number}"
        run = self._insist(lambda client: client.submit(body, idempotency_key=key))
        promise = Promise(key, run_number(run.id), workflow, time.time())
        self.promises.append(promise)
        if self.rng.random() < CANCEL_SHARE:
            self._doomed.append((time.monotonic() + self.rng.uniform(0, CANCEL_SECONDS_MAX), promise))

    def _cancel_some(self) -> None:
        due = [each for each in self._doomed if each[0] <= time.monotonic()]
        for each in due:
            self._doomed.remove(each)
            self._cancel(each[1])

    def _cancel(self, promise: Promise) -> None:
        promise.cancelled_at = time.time()
        with suppress(UsageError):  # it has ended, or it is not there: the judge will see
            self._insist(lambda client: client.cancel(run_text(promise.run), "chaos"))

    def _insist(self, request: Callable[[Client], T]) -> T:
        """Ask until somebody answers; what a cluster in trouble says instead of an answer is counted."""
        while True:
            try:
                with self.client() as client:
                    return request(client)
            except UsageError:
                raise
            except DsfastError:
                self.refused += 1
                time.sleep(PAUSE_SECONDS)


def make_workflow(rng: random.Random, number: int, witness: Witness) -> Workflow:
    """A workflow by chance."""
    shape = rng.choice((_single, _chain, _fan, _diamond))
    tasks: list[Task] = []
    for needs in shape(rng):
        kind = rng.choices(list(ACTS), [act.share for act in ACTS.values()])[0]
        act = ACTS[kind]
        settings = msgspec.json.encode({"script": witness.script(act.script), "shell": "bash"})
        task = Task(
            name=f"{kind}-{len(tasks)}",
            type="shell",
            needs=tuple(tasks[need].name for need in needs),
            config=msgspec.Raw(settings),
            retry=act.retry,
            timeout=act.timeout,
            env=witness.environ,
        )
        tasks.append(task)
    return Workflow(name=f"chaos-{shape.__name__.strip('_')}-{number % 50}", tasks=tuple(tasks))


Shape = list[tuple[int, ...]]  # of each task, the positions of those that it needs


def _single(rng: random.Random) -> Shape:
    return [()]


def _chain(rng: random.Random) -> Shape:
    return [(at - 1,) if at else () for at in range(rng.randint(2, 5))]


def _fan(rng: random.Random) -> Shape:
    width = rng.randint(2, 5)
    return [(), *[(0,)] * width, tuple(range(1, width + 1))]


def _diamond(rng: random.Random) -> Shape:
    return [(), (0,), (0,), (1, 2), (3,)]
