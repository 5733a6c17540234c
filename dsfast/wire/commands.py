"""Every command that crosses a socket. The number is the wire's kind: never reuse or renumber one.

Bodies are msgpack arrays in field order; a field may be added at the end with a default, never moved.
A new command needs: a number here, a handler in an engine or a role, a row in docs/wire.md, a test.
Commands about an attempt carry (run_id, task, attempt) and the epoch of the run's owner, so that a late,
repeated or outdated one can be recognised by the receiver and changes nothing.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from dsfast.model import Member, Outcome, Priority


class Command(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all commands."""

    KIND: ClassVar[int] = 0


# -- the link itself: handshake and heartbeat (runtime/handshake.py, runtime/links.py) ----------------


class Hello(Command, frozen=True):
    """First frame of the dialling side: who it is, and a nonce to prove the listener's key with."""

    KIND: ClassVar[int] = 1
    cluster: str
    member: Member
    nonce: bytes


class Challenge(Command, frozen=True):
    """The listener's answer: who it is, its nonce, and its proof that it holds the cluster key."""

    KIND: ClassVar[int] = 2
    member: Member
    nonce: bytes
    proof: bytes


class Proof(Command, frozen=True):
    """The dialling side's proof; after it both sides speak commands."""

    KIND: ClassVar[int] = 3
    proof: bytes


class Welcome(Command, frozen=True):
    """The listener has accepted the proof."""

    KIND: ClassVar[int] = 4


class Ping(Command, frozen=True):
    """Heartbeat; `load` is running attempts for a worker, live runs for a master."""

    KIND: ClassVar[int] = 5
    load: int = 0


class Pong(Command, frozen=True):
    """Answer to Ping."""

    KIND: ClassVar[int] = 6
    load: int = 0


# -- master to worker ---------------------------------------------------------------------------------


class Execute(Command, frozen=True):
    """Run this attempt. `spec` is a `TaskSpec` as JSON; `inputs` a JSON object of what templates use, or nothing."""

    KIND: ClassVar[int] = 16
    run_id: int
    task: int
    attempt: int
    epoch: int
    name: str
    spec: bytes
    inputs: bytes = b""


class StartedAck(Command, frozen=True):
    """The start is known (and durable, or overtaken by a durable end): no need to say it again."""

    KIND: ClassVar[int] = 17
    run_id: int
    task: int
    attempt: int


class ResultAck(Command, frozen=True):
    """The result is durable: the worker may forget the attempt."""

    KIND: ClassVar[int] = 18
    run_id: int
    task: int
    attempt: int


class Kill(Command, frozen=True):
    """End this attempt: SIGTERM to its group, `grace` seconds, SIGKILL to its whole tree. Repeated until answered."""

    KIND: ClassVar[int] = 19
    run_id: int
    task: int
    attempt: int
    epoch: int
    grace: float
    reason: str = ""


class Adopt(Command, frozen=True):
    """This master owns these runs (run id, epoch): report to it, and say what you hold of them."""

    KIND: ClassVar[int] = 20
    runs: tuple[tuple[int, int], ...]
    serial: int = 0


class Demand(Command, frozen=True):
    """Whether this master has tasks waiting for this worker's credit."""

    KIND: ClassVar[int] = 21
    hungry: bool


class Disown(Command, frozen=True):
    """Answer to Recheck: this master does not own the run (any more)."""

    KIND: ClassVar[int] = 22
    run_id: int


class Owned(Command, frozen=True):
    """Answer to Recheck: the store has confirmed, since it was asked, that this master owns the run."""

    KIND: ClassVar[int] = 23
    run_id: int
    asked_at: float


# -- worker to master ---------------------------------------------------------------------------------


class Started(Command, frozen=True):
    """The attempt's process runs. Repeated until StartedAck or until overtaken by the Result."""

    KIND: ClassVar[int] = 32
    run_id: int
    task: int
    attempt: int
    started_at: float


class Result(Command, frozen=True):
    """The attempt has ended. Repeated until ResultAck.

    `life` is the member id of the life of this worker under which it ran, if that was a former one.
    """

    KIND: ClassVar[int] = 33
    run_id: int
    task: int
    attempt: int
    outcome: Outcome
    life: str = ""


class KillAnswer(Command, frozen=True):
    """Whether the worker knows the attempt it was told to kill; if so its Result follows when the tree is gone."""

    KIND: ClassVar[int] = 34
    run_id: int
    task: int
    attempt: int
    known: bool


class Credit(Command, frozen=True):
    """The most unfinished attempts this master may have at this worker, until the next Credit."""

    KIND: ClassVar[int] = 35
    limit: int


class Holding(Command, frozen=True):
    """Answer to Adopt: the attempts (run id, task, attempt) held of the runs named there, ended ones included.

    Sent after any Result and Started that are repeated for them, so an attempt that was sent before the question and
    is missing here never ran. `serial` is that of the question.
    """

    KIND: ClassVar[int] = 36
    runs: tuple[int, ...]
    attempts: tuple[tuple[int, int, int], ...]
    serial: int = 0


class Refused(Command, frozen=True):
    """The worker will not run this attempt (draining, outdated epoch, unknown task type); it never started."""

    KIND: ClassVar[int] = 37
    run_id: int
    task: int
    attempt: int
    reason: str
    retry_here: bool = False


class Draining(Command, frozen=True):
    """The worker takes nothing new and leaves when what it runs has ended."""

    KIND: ClassVar[int] = 38


class Deposed(Command, frozen=True):
    """Another master has proved this higher epoch for the run: what you believe of it is out of date."""

    KIND: ClassVar[int] = 39
    run_id: int
    epoch: int


class Recheck(Command, frozen=True):
    """The worker has lost its lease: make sure that these runs are still yours, and say which are and which are not."""

    KIND: ClassVar[int] = 40
    runs: tuple[int, ...]
    asked_at: float = 0.0  # on the worker's own monotonic clock, for the answer


# -- client to master, and the answers (same request id) ------------------------------------------------


class Submit(Command, frozen=True):
    """Start a run of this workflow (canonical JSON), with values for its parameters (a JSON object)."""

    KIND: ClassVar[int] = 48
    workflow: bytes
    params: bytes = b"{}"
    idempotency_key: str | None = None
    priority: Priority | None = None


class Cancel(Command, frozen=True):
    """Stop a run: a durable intent, answered when it is durable. `grace` in seconds overrides the master's own."""

    KIND: ClassVar[int] = 49
    run_id: int
    reason: str = ""
    grace: float | None = None


class Explain(Command, frozen=True):
    """Why do the unfinished tasks of this run not run?"""

    KIND: ClassVar[int] = 50
    run_id: int
    limit: int = 1000


class Bury(Command, frozen=True):
    """A person knows that no life of this worker runs any more: start elsewhere what is bound to it."""

    KIND: ClassVar[int] = 51
    worker: str  # its name


class Order(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One run of a SubmitBatch; `workflow` is a place in its list of workflows."""

    workflow: int = 0
    params: bytes = b"{}"
    idempotency_key: str | None = None
    priority: Priority | None = None


class SubmitBatch(Command, frozen=True):
    """Start many runs, all in one turn: each is taken or refused by itself. A workflow that repeats is there once."""

    KIND: ClassVar[int] = 52
    workflows: tuple[bytes, ...]
    runs: tuple[Order, ...]


class Watch(Command, frozen=True):
    """Say when this run has ended, however long that takes."""

    KIND: ClassVar[int] = 53
    run_id: int


class Submitted(Command, frozen=True):
    """Answer to Submit: the run is durable. `repeated` if the idempotency key was known; `created_at` is then 0."""

    KIND: ClassVar[int] = 56
    run_id: int
    repeated: bool = False
    created_at: float = 0.0


class Done(Command, frozen=True):
    """Answer to Cancel; `changed` is False when the run had ended already."""

    KIND: ClassVar[int] = 57
    run_id: int
    changed: bool = True


class Explained(Command, frozen=True):
    """Answer to Explain: (task, state word, reason) for tasks that have not ended."""

    KIND: ClassVar[int] = 58
    tasks: tuple[tuple[int, str, str], ...]
    reason: str = ""


class Failed(Command, frozen=True):
    """Answer to any request that could not be done. `code` is one of usage, not_found, not_owner, unavailable."""

    KIND: ClassVar[int] = 59
    code: str
    message: str


class Buried(Command, frozen=True):
    """Answer to Bury: how many attempts were lost with the worker."""

    KIND: ClassVar[int] = 60
    attempts: int


class Verdict(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What became of one run of a SubmitBatch: it is durable, or `refused` says why there is none (`run_id` 0)."""

    run_id: int = 0
    repeated: bool = False
    refused: str = ""


class SubmittedBatch(Command, frozen=True):
    """Answer to SubmitBatch: a verdict for each run, in their order."""

    KIND: ClassVar[int] = 61
    verdicts: tuple[Verdict, ...]


class Ended(Command, frozen=True):
    """Answer to Watch: the run has reached its final state, and that is durable."""

    KIND: ClassVar[int] = 62
    run_id: int


# -- client to worker ---------------------------------------------------------------------------------


class LogRead(Command, frozen=True):
    """Bytes of an attempt's log from `offset`; never a path. A negative offset counts from the end."""

    KIND: ClassVar[int] = 64
    run_id: int
    task: int
    attempt: int
    offset: int = 0
    limit: int = 65536


class LogChunk(Command, frozen=True):
    """Answer to LogRead. `size` is the log's size; `ended` whether the attempt no longer writes to it."""

    KIND: ClassVar[int] = 65
    offset: int
    data: bytes
    size: int
    ended: bool


# -- master to master (beside what one passes on for a client) ------------------------------------------


class Probe(Command, frozen=True):
    """Does the store answer you? Asked by a master that it does not answer."""

    KIND: ClassVar[int] = 72


class Reached(Command, frozen=True):
    """Answer to Probe: the store has answered since it was asked."""

    KIND: ClassVar[int] = 73


Attempt = tuple[int, int, int]  # run, task, attempt
