"""The nouns: workflow, task, run, attempt, member. Plain data, shared by every layer above.

Times ending in `_at` are wall clock, seconds since 1970 UTC; durations are seconds.
State codes are stored and sent: never renumber. They are DolphinScheduler's where it has the state.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgspec

NAME_LENGTH_MAX = 200  # characters of a workflow's or task's name: it is a key, a label and part of paths
TASKS_MAX = 1_000_000  # tasks in one workflow: what readiness arrays and one frame hold comfortably
BATCH_RUNS_MAX = 1_000  # runs submitted together: one turn of a master, some 50 ms in which it does nothing else
PARAMS_BYTES_MAX = 1 << 20  # a run's parameters as JSON: they travel with attempts, so files go by reference
DURATION_SECONDS_MAX = 10 * 366 * 86_400  # ten years: anything longer is milliseconds taken for seconds
RETRIES_MAX = 10_000  # an attempt's number; a task that fails this often will not succeed
BACKOFF_MAX = 100.0  # its 64th power is still a float
OUTPUTS_BYTES_MAX = 1 << 20  # an attempt's output values as JSON, for the same reason


class Priority(IntEnum):
    """How urgent a run or a task is; the lower number leaves the queue first."""

    HIGHEST = 0
    HIGH = 1
    MEDIUM = 2
    LOW = 3
    LOWEST = 4


class RunState(IntEnum):
    """Where a run stands. `READY_STOP` is a cancel that is durable but not yet complete."""

    SUBMITTED = 0
    RUNNING = 1
    READY_PAUSE = 2
    PAUSED = 3
    READY_STOP = 4
    STOPPED = 5
    FAILED = 6
    SUCCEEDED = 7

    @property
    def final(self) -> bool:
        return self in _FINAL_RUN


_FINAL_RUN = frozenset({RunState.PAUSED, RunState.STOPPED, RunState.FAILED, RunState.SUCCEEDED})


class AttemptState(IntEnum):
    """Where one try of a task stands."""

    SUBMITTED = 0
    RUNNING = 1
    FAILED = 6
    SUCCEEDED = 7
    FAILOVER = 8
    KILLED = 9
    DISPATCHED = 17

    @property
    def final(self) -> bool:
        return self in FINAL_ATTEMPT


FINAL_ATTEMPT = frozenset({AttemptState.FAILED, AttemptState.SUCCEEDED, AttemptState.FAILOVER, AttemptState.KILLED})


class OnFailure(IntEnum):
    """What a run does once a task has failed for good."""

    CONTINUE = 0  # finish everything that does not depend on it, then fail
    STOP = 1  # kill what runs, then fail


class Retry(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How often and how soon a failed task is tried again: the wait before retry n is delay * backoff**(n-1)."""

    limit: int = 0
    delay: float = 0.0
    backoff: float = 1.0
    delay_max: float = 3600.0

    def wait(self, failures: int) -> float:
        """Seconds to wait after the given number of failures (1 or more)."""
        return min(self.delay * self.backoff ** min(failures - 1, 64), self.delay_max)


class OnDisconnect(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What becomes of an attempt whose worker nobody can see: no lease, and no link to the master of its run.

    `stop_after` are the seconds that the worker lets it run on before it ends it; None is none, or without end where
    it is not replaced. Masters wait `replace_after` seconds, and never less than the worker needs to have ended it.
    Without `replace` they wait for the worker, or for proof that it is dead, however long that takes.
    """

    replace: bool = True
    stop_after: float | None = None
    replace_after: float = 0.0

    @property
    def runs_on(self) -> float | None:
        """Seconds that the worker lets the attempt run on; None is without end."""
        return 0.0 if self.stop_after is None and self.replace else self.stop_after


REPLACE = OnDisconnect()  # as soon as the worker must have ended it


class Task(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """One node of a workflow. `config` holds the settings of its type, as JSON.

    It holds nothing that could refer to it, so the garbage collector need not walk through a million of them.
    """

    name: str
    type: str
    needs: tuple[str, ...] = ()
    config: msgspec.Raw = msgspec.Raw(b"{}")
    retry: Retry = Retry()
    timeout: float | None = None
    delay: float = 0.0
    priority: Priority = Priority.MEDIUM
    group: str = "default"
    env: dict[str, str] = {}
    workdir: str | None = None
    enabled: bool = True
    on_disconnect: OnDisconnect | None = None  # None: as the cluster is configured


class Workflow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A workflow as it is stored and sent: `canonical(workflow)` is the only spelling of its JSON."""

    name: str
    tasks: tuple[Task, ...]
    description: str = ""
    params: dict[str, Any] = {}
    priority: Priority = Priority.MEDIUM
    on_failure: OnFailure = OnFailure.CONTINUE


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """How an attempt ended, as its worker saw it."""

    state: AttemptState
    exit_code: int | None = None
    reason: str = ""
    outputs: bytes = b""  # a JSON object, or nothing; not msgspec.Raw, which msgpack would splice in unframed
    started_at: float = 0.0
    ended_at: float = 0.0


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """A daemon as the registry knows it. A restart is a new member: the same name, another boot id."""

    role: str  # "master", "worker" or "api"
    name: str
    boot: str
    host: str = ""
    port: int = 0
    groups: tuple[str, ...] = ()
    slots: int = 0
    weight: int = 100
    started_at: float = 0.0

    @property
    def id(self) -> str:
        """Identity of this life of the daemon: what rows, epochs and links refer to."""
        return f"{self.name}@{self.boot}"


def canonical(workflow: Workflow) -> bytes:
    """The workflow as the JSON that is stored, hashed and sent."""
    return msgspec.json.encode(workflow)


def parse_canonical(body: bytes) -> Workflow:
    """The workflow behind its canonical JSON. Raises msgspec.ValidationError with the path of what is wrong."""
    return msgspec.json.decode(body, type=Workflow)
