"""What every attempt that has processes shares: its log, how it is killed, and how its end becomes an Outcome."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Any, TypeVar

from dsfast.model import AttemptState, Outcome
from dsfast.tasks import outputs
from dsfast.tasks.base import Done, Job
from dsfast.tasks.logfile import AttemptLog
from dsfast.tasks.process import ExitStatus, Process

NOT_EXECUTABLE = 126  # the exit codes that shells give for a command that cannot be started
NOT_FOUND = 127
SIGNAL_BASE = 128  # an attempt ended by signal n has the exit code 128 + n, as in a shell
_T = TypeVar("_T")
SCAN_INLINE_BYTES_MAX = 1 << 20  # a larger log is searched for values in a thread: 1 MiB takes 0.1 ms


class Attempt:
    """One attempt; subclasses start its process and call `ended` or `conclude` once, when its tree is gone."""

    __slots__ = ("_done", "_killed", "_started_at", "job", "log", "process")

    def __init__(self, job: Job, done: Done) -> None:
        self.job = job
        self.log = AttemptLog(job.log, job.log_bytes_max)
        self.process: Process | None = None
        self._done = done
        self._killed: str | None = None
        self._started_at = time.time()

    @property
    def killed(self) -> bool:
        """Whether a kill decides how it ends."""
        return self._killed is not None

    @property
    def over(self) -> bool:
        """Whether its own end is known, though what it left behind may still have to die."""
        return self.process is None or self.process.status is not None

    def kill(self, grace: float, reason: str) -> None:
        """See `Execution.kill`. An attempt that is over already keeps its own end."""
        if self.process is None:
            return
        if self._killed is None and not self.over:
            self._killed = reason
        self.process.kill(grace)

    def ended(self, status: ExitStatus) -> None:
        """Its main process has ended in this way, and its tree is gone."""
        self.finish(exit_code(status), reason(status))

    def finish(self, code: int, sentence: str) -> None:
        """It has ended with this exit code: bring its log to its final length, collect its values, and report."""
        if self.log.look():
            self._in_thread(self.log.cut, lambda _: self._finish(code, sentence))
        else:
            self._finish(code, sentence)

    def _finish(self, code: int, sentence: str) -> None:
        if code != 0 or self.killed:
            self.conclude(AttemptState.FAILED, code, sentence)
        elif self.log.size <= SCAN_INLINE_BYTES_MAX:
            self._succeed(self._collect())
        else:
            self._in_thread(self._collect, self._succeed)

    def _in_thread(self, work: Callable[[], _T], then: Callable[[_T], None]) -> None:
        done = asyncio.get_running_loop().run_in_executor(None, work)
        done.add_done_callback(lambda worked: then(worked.result()))

    def fail(self, code: int | None, sentence: str) -> None:
        """It failed for a reason of its own that only we can tell: say so in the log as well."""
        self.log.say(sentence)
        self.conclude(AttemptState.FAILED, code, sentence)

    def conclude(self, state: AttemptState, code: int | None, sentence: str = "", values: bytes = b"") -> None:
        """Report the end; a kill that came before it decides what it is called."""
        if self._killed is not None:
            state, sentence, values = AttemptState.KILLED, self._killed, b""
            self.log.say(f"killed: {sentence}")
        self.process = None
        self._done(Outcome(state, code, sentence, values, self._started_at, time.time()))

    def result(self) -> dict[str, Any]:
        """Values that the task has handed over directly; they win over those in its log and file."""
        return {}

    def _collect(self) -> bytes | str:
        """The task's output values, or a sentence that says what is wrong with them."""
        try:
            return outputs.encode(outputs.collect(self.job.log, self.log.size, self.job.output) | self.result())
        except outputs.BadOutputs as error:
            return str(error)
        except OSError as error:
            return f"the task's output values cannot be read: {error}"

    def _succeed(self, values: bytes | str) -> None:
        if isinstance(values, str):
            self.fail(0, values)
        else:
            self.conclude(AttemptState.SUCCEEDED, 0, "", values)


def exit_code(status: ExitStatus) -> int:
    """The exit code that a shell would give."""
    return status if status >= 0 else SIGNAL_BASE - status


def reason(status: ExitStatus) -> str:
    """One short sentence on how a process ended; empty for success."""
    if status < 0:
        return f"killed by {signal_name(-status)}"
    if status == 0:
        return ""
    return f"exit code {status}{_hint(status)}"


def signal_name(number: int) -> str:
    """SIGKILL, SIGSEGV, or `signal 34` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _hint(status: int) -> str:
    if status == NOT_FOUND:
        return ": a command was not found"
    if status == NOT_EXECUTABLE:
        return ": a command could not be executed"
    if SIGNAL_BASE < status <= SIGNAL_BASE + 64:
        return f": a command was killed by {signal_name(status - SIGNAL_BASE)}"
    return ""
