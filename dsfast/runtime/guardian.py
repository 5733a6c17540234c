"""The processes that outlive a daemon by a moment, to end what the daemon's tasks still run.

`guard` divides the program before anything heavy is loaded. The last child goes on as the daemon; its parent, and the
parent of that one, are its guardians and do nothing but wait. When the process that a guardian waits for ends, in
whatever way, everything below it becomes the guardian's, daemons of tasks with sessions of their own included: they are
killed and waited for, until there is none. Only then does the guardian close the listening socket, of which all have
held a copy. So a refused connection tells the masters that nothing of this worker runs any more, and replacements may
start.

    outer guardian --- inner guardian --- daemon --- tasks

Why two: any one of the three may be killed without warning, and any two at the same instant, and one is left that ends
the tasks before the port refuses. (Should both guardians be killed, it is the daemon: the kernel tells it to drain.)

    killed                                   then
    the daemon, with or without a guardian   a guardian ends the tasks, and the port refuses
    the inner guardian                       the outer ends the daemon and its tasks, and the port refuses
    the outer guardian                       the inner gets SIGTERM from the kernel and passes it on: the daemon drains

A daemon that stands still (stopped, starved, stuck) cannot end its tasks when its lease runs out. So it keeps telling
its guardians by when it has to move again, short of the moment at which masters would replace what it runs
(standstill.py). A guardian that sees this `Deadline` pass ends the daemon and all tasks. Ctrl-Z stops the daemon, and
the outer guardian for the sake of the shell, but not the inner one.

Signals: what a terminal sends (Ctrl-C, Ctrl-Z, hang-up) reaches the daemon directly, because all stay in one
process group; what is sent to a guardian by kill, a supervisor or an init is passed on.
"""

from __future__ import annotations

import math
import mmap
import os
import signal
import sys
import time
from collections.abc import Iterable
from typing import NoReturn, Protocol

from dsfast.tasks import proc

PASSED_ON = frozenset(
    {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}
)
WAITED_FOR = PASSED_ON | {signal.SIGCHLD, signal.SIGALRM}
LOOK_SECONDS = 1.0  # how often the deadline is looked at: less than the least that a daemon has left when it sets one
STOOD_STILL = 75  # the exit status then: EX_TEMPFAIL, start it again
SIGNAL_BASE = 128  # a daemon killed by signal n makes the guardian exit with 128 + n, as a shell would


class Held(Protocol):
    """What tells others that this worker is alive: a socket that listens, a lock."""

    def close(self) -> None: ...


class Deadline:
    """The moment, by time.monotonic(), by which the daemon has to move; in memory that it shares with its guardians."""

    def __init__(self) -> None:
        self._at = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d")
        self.set(math.inf)

    def set(self, at: float) -> None:
        """Put it off, or forward; inf is never."""
        self._at[0] = at  # eight aligned bytes, so nobody sees half of them

    def left(self) -> float:
        """Seconds until then."""
        return self._at[0] - time.monotonic()


def guard(held: Iterable[Held] = (), deadline: Deadline | None = None) -> None:
    """Return as the daemon, under guardians that keep what is `held` until all tasks are dead.

    The guardians themselves never return: they leave with the daemon's exit status. Call it in a single-threaded
    process, with the socket bound and listening. Raises OSError when the system has no process to spare.
    """
    held = list(held)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as some parents hand it down, the dead would vanish unseen
    proc.become_subreaper()
    sys.stdout.flush()
    sys.stderr.flush()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
    deadline = deadline or Deadline()
    _divide(held, deadline)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})
    _divide(held, deadline)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _divide(held: list[Held], deadline: Deadline) -> None:
    """Return as a child that is guarded by the process that called."""
    guardian = os.getpid()
    child = os.fork()
    if child:
        _stand_guard(child, held, deadline)
    proc.become_subreaper()
    proc.prctl(proc.PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != guardian:  # it died before we asked to be told
        os.kill(os.getpid(), signal.SIGTERM)


def _stand_guard(child: int, held: list[Held], deadline: Deadline) -> NoReturn:
    status = _wait_for(child, deadline)
    _end_everything()
    for each in held:
        each.close()
    os._exit(status)


def _wait_for(child: int, deadline: Deadline) -> int:
    """Pass signals on and reap whatever ends, until it is the child, or it has stood still; its exit status."""
    while (left := deadline.left()) > 0:
        # Not sigtimedwait: stopped and continued after its time, CPython's returns what happened to be in memory.
        signal.setitimer(signal.ITIMER_REAL, min(left, LOOK_SECONDS))
        info = signal.sigwaitinfo(WAITED_FOR)
        if info.si_signo == signal.SIGALRM:
            continue
        if info.si_signo == signal.SIGCHLD:
            status = _reap(child)
            if status is not None:
                return status
        elif info.si_code <= 0 and info.si_pid != child:  # sent by a process; the kernel's own codes are positive
            os.kill(child, info.si_signo)
    os.write(2, b"dsfast: the worker stood still for longer than masters wait for it; its tasks were ended with it\n")
    return STOOD_STILL


def _reap(child: int) -> int | None:
    """Reap what has ended, up to the child; its exit status if it is among them."""
    while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG):
        if ended.si_pid == child:
            return ended.si_status if ended.si_code == os.CLD_EXITED else SIGNAL_BASE + ended.si_status
    return None


def _end_everything() -> None:
    """Kill what is left below us until there is none. Each death is looked after: it may make orphans ours."""
    while True:
        proc.signal_all(list(proc.descendants([os.getpid()])), signal.SIGKILL)
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED)
        except ChildProcessError:
            return
