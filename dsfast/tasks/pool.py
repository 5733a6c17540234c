"""Warm Python processes, and the attempts that run in them.

Starting Python takes 20 ms and more, so a process that has run an attempt and left nothing behind waits for the
next one that wants the same interpreter and path, and one more is started ahead. Each serves one attempt
at a time and is a session of its own, so an attempt is killed by killing its process, as any other.

The worker and the process speak lines of JSON over a socket pair (python_child.py has the other side). A process that
dies before it has taken an attempt up has not begun it, so another one is tried, once.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from dsfast.model import OUTPUTS_BYTES_MAX
from dsfast.tasks.attempt import Attempt, exit_code, reason
from dsfast.tasks.base import Done, Job, StartFailed
from dsfast.tasks.command import DEFAULT_PATH, explain, find_program
from dsfast.tasks.environment import WORKER, mark
from dsfast.tasks.process import ExitStatus, shortage, start_process

IDLE_SECONDS = 60.0  # how long a process waits for more work: longer than the pauses within one run
IDLE_MAX = 8  # processes that wait, of all kinds together: 10 MB each before users' packages are loaded
TASKS_PER_CHILD_MAX = 1000  # then a fresh one takes over, whatever libraries may have leaked
REPLY_BYTES_MAX = 2 * OUTPUTS_BYTES_MAX + (64 << 10)  # a result as JSON within JSON, and the rest of a reply
HANG_UP_SECONDS = 1.0  # between the end of a process's descriptors and its own: milliseconds per GB of memory
STARTS_MAX = 2  # processes tried for one attempt
CHILD = str(Path(__file__).with_name("python_child.py"))
_INHERITED = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TZ",
    WORKER,
)  # the rest comes per attempt

Kind = tuple[str, tuple[str, ...]]  # interpreter and path


class Reply(msgspec.Struct, frozen=True):
    """How an attempt ended, as its process tells it; `result` is JSON text."""

    exit_code: int
    clean: bool
    reason: str = ""
    result: str = ""


class PythonAttempt(Attempt):
    """One attempt of a python task."""

    __slots__ = ("_child", "_pool", "_reply", "_starts", "taken")

    def __init__(self, job: Job, done: Done, pool: Pool) -> None:
        super().__init__(job, done)
        self.taken = False  # whether a process has begun to run it
        self._pool = pool
        self._child: Child | None = None
        self._reply: Reply | None = None
        self._starts = 0

    def start(self) -> None:
        """Hand it to a process. Raises StartFailed."""
        self._starts += 1
        job, config = self.job, self.job.config
        interpreter = config.python or sys.executable
        try:
            output = self.log.open()
        except OSError as error:
            raise StartFailed(f"this worker cannot write the log of a task: {error}") from error
        try:
            os.stat(job.workdir)
            interpreter = find_program(interpreter, job.env.get("PATH", DEFAULT_PATH))
            path = tuple(os.path.abspath(os.path.join(job.workdir, entry)) for entry in config.path)
            child = self._pool.take((interpreter, path), fresh=not config.reuse, output=output, env=job.env)
        except (OSError, ValueError) as error:
            self.fail(*explain(error, interpreter, job.workdir))
        else:
            self._child, self.process = child, child.process
            child.serve(self, self._request())
        finally:
            os.close(output)

    @property
    def over(self) -> bool:
        return self._reply is not None or super().over

    def on_reply(self, reply: Reply) -> None:
        """Its process has said how it ended: let the process wait for more, or end it and what it left."""
        assert self._child is not None
        self._reply = reply
        if self._child.rest(reply.clean and self.job.config.reuse):
            self.process = None  # it may serve another attempt from now on
            self.finish(reply.exit_code, reply.reason)

    def on_child_ended(self, status: ExitStatus) -> None:
        """Its process and everything below it is gone."""
        if self._reply is not None:
            self.finish(self._reply.exit_code, self._reply.reason)
        elif self.killed:
            self.ended(status)
        elif self.taken:
            self._on_death(status)
        elif self._starts < STARTS_MAX:
            self._start_again()
        else:
            self.fail(exit_code(status), f"Python ended before it began the task: {_ending(status)}")

    def result(self) -> dict[str, Any]:
        """See `Attempt.result`."""
        if self._reply is None or not self._reply.result:
            return {}
        value = msgspec.json.decode(self._reply.result)
        return value if isinstance(value, dict) else {"result": value}

    def _on_death(self, status: ExitStatus) -> None:
        assert self._child is not None
        self.fail(exit_code(status), self._child.fault or f"the process ended before the task did: {_ending(status)}")

    def _start_again(self) -> None:
        try:
            self.start()
        except StartFailed as error:
            self.fail(None, str(error))

    def _request(self) -> bytes:
        job, config = self.job, self.job.config
        request = {
            "name": job.name,
            "call": config.call,
            "source": config.source,
            "args": config.args,
            "env": job.env,
            "workdir": job.workdir,
            "log": job.log,
            "result_bytes_max": OUTPUTS_BYTES_MAX,
        }
        return msgspec.json.encode(request) + b"\n"


class Pool:
    """The processes that wait, and the starting of new ones."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._idle: list[Child] = []

    def take(self, kind: Kind, fresh: bool, output: int, env: Mapping[str, str]) -> Child:
        """A process that waits, or a new one, whose first words go to `output`. Raises as `start_process` does."""
        fit = [child for child in self._idle if child.kind == kind and not (fresh and child.served)]
        if fit:
            child = fit[-1]
            self.leave(child)
        else:
            child = Child(self, kind, output, env)
        if len(fit) <= 1:
            self.loop.call_soon(self._start_ahead, kind, dict(env))
        return child

    def give_back(self, child: Child) -> bool:
        """Let the process wait; False if enough others do."""
        if len(self._idle) >= IDLE_MAX:
            return False
        self._idle.append(child)
        return True

    def leave(self, child: Child) -> None:
        """The process does not wait any more."""
        if child in self._idle:
            self._idle.remove(child)

    def close(self) -> None:
        """End the processes that wait."""
        while self._idle:
            self._idle.pop().end()

    def _start_ahead(self, kind: Kind, env: Mapping[str, str]) -> None:
        if len(self._idle) < IDLE_MAX and all(child.kind != kind for child in self._idle):
            output = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            try:
                Child(self, kind, output, env).rest(True)
            except (OSError, StartFailed):  # the attempt that needs it will meet the same, and say so
                return
            finally:
                os.close(output)


class Child:
    """One process and the socket that leads to it."""

    def __init__(self, pool: Pool, kind: Kind, output: int, env: Mapping[str, str]) -> None:
        self.kind = kind
        self.served = 0
        self.fault = ""  # why it was ended, if it was to blame
        self._pool = pool
        self._attempt: PythonAttempt | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._received = b""
        self._unsent = b""
        self._mark = f"DSFAST_POOL_CHILD={os.getpid()}.{next(_numbers)}"
        name, _, value = self._mark.partition("=")
        inherited = {key: env[key] for key in _INHERITED if key in env}
        self._socket, theirs = _socket_pair()
        try:
            argv = [kind[0], "-I", "-X", "utf8", CHILD, *kind[1]]
            environment = {**inherited, name: value}
            self.process = start_process(
                argv, environment, "/", output, self._on_ended, (self._mark,), extra=(theirs.fileno(),)
            )
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()
        pool.loop.add_reader(self._socket, self._on_readable)

    def serve(self, attempt: PythonAttempt, request: bytes) -> None:
        """Run this attempt."""
        if self._timer is not None:
            self._timer.cancel()
        self.served += 1
        self._attempt = attempt
        self.process.work((self._mark, *mark(attempt.job.env)))
        self.process.watch(attempt.log)
        self._unsent = request
        self._on_writable()

    def rest(self, fit: bool) -> bool:
        """Wait for more work, if fit for it; else False, and it is ended with everything it has started."""
        self.process.watch(None)
        fit = fit and self.served < TASKS_PER_CHILD_MAX and self.process.rest() and self._pool.give_back(self)
        if fit:
            self._attempt = None
            self._timer = self._pool.loop.call_later(IDLE_SECONDS, self.end)
        else:
            self.process.kill(0)
        return fit

    def end(self) -> None:
        """End it now."""
        self._pool.leave(self)
        self._hang_up()
        self.process.kill(0)

    def _on_readable(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._on_hang_up()
            return
        self._received += data
        *lines, self._received = self._received.split(b"\n")
        if len(self._received) > REPLY_BYTES_MAX or not all(map(self._on_line, lines)):
            self._end_for_fault()

    def _on_hang_up(self) -> None:
        """The process is ending. If it is not, it has closed a descriptor that was not its own."""
        self._hang_up()
        self._timer = self._pool.loop.call_later(HANG_UP_SECONDS, self._end_for_fault)

    def _end_for_fault(self) -> None:
        if self.process.status is None:
            self.fault = "the task's code has closed or used descriptor 3, which belongs to dsfast"
            self.end()

    def _on_line(self, line: bytes) -> bool:
        """Take in what the process says; False if it does not make sense."""
        attempt = self._attempt
        if attempt is None:
            return False
        if line == b"+":
            attempt.taken = True
            return True
        try:
            reply = msgspec.json.decode(line, type=Reply)
        except msgspec.DecodeError:
            return False
        attempt.on_reply(reply)
        return True

    def _on_writable(self) -> None:
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:  # the process is dead, and its end will be reported
            self._unsent = b""
        if self._unsent:
            self._pool.loop.add_writer(self._socket, self._on_writable)
        else:
            self._pool.loop.remove_writer(self._socket)

    def _hang_up(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._socket.fileno() >= 0:
            self._pool.loop.remove_reader(self._socket)
            self._pool.loop.remove_writer(self._socket)
            self._socket.close()

    def _on_ended(self, status: ExitStatus) -> None:
        self._pool.leave(self)
        self._hang_up()
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.on_child_ended(status)


_numbers = itertools.count(1)


def _ending(status: ExitStatus) -> str:
    return reason(status) or "exit code 0"


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    """A socket for us, which never blocks, and one for the process. Raises StartFailed."""
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:
        raise shortage(error) from error
    ours.setblocking(False)
    return ours, theirs
