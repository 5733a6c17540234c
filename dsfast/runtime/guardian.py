"""The process that outlives a daemon by a moment, to end what the daemon's tasks still run.

`guard` splits the program in two before anything heavy is loaded. The child goes on as the daemon; the parent
is its guardian and does nothing but wait. When the daemon ends, in whatever way, everything below it becomes
the guardian's, daemons of tasks with sessions of their own included: they are killed and waited for, until
there is none. Only then does the guardian close the listening sockets, of which both have held a copy.
So a refused connection tells the masters that nothing of this worker runs any more, and replacements may start.

Signals: what a terminal sends (Ctrl-C, Ctrl-Z, hang-up) reaches the daemon directly, because both stay in one
process group; what is sent to the guardian by kill, a supervisor or an init is passed on. A guardian that is
killed itself takes the daemon along: the daemon gets SIGTERM from the kernel.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from typing import NoReturn, Protocol

from dsfast.tasks import proc

PASSED_ON = frozenset(
    {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}
)
SIGNAL_BASE = 128  # a daemon killed by signal n makes the guardian exit with 128 + n, as a shell would


class Listener(Protocol):
    """A socket that listens."""

    def close(self) -> None: ...


def guard(listeners: Iterable[Listener] = ()) -> None:
    """Return as the daemon, under a guardian that holds `listeners` until all tasks are dead.

    The guardian itself never returns: it leaves with the daemon's exit status. Call it in a single-threaded
    process, with the sockets bound and listening. Raises OSError when the system has no process to spare.
    """
    listeners = list(listeners)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as some parents hand it down, the dead would vanish unseen
    proc.become_subreaper()
    sys.stdout.flush()
    sys.stderr.flush()
    guardian = os.getpid()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, *PASSED_ON})
    daemon = os.fork()
    if daemon == 0:
        _become_daemon(guardian)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    else:
        _stand_guard(daemon, listeners)


def _become_daemon(guardian: int) -> None:
    proc.become_subreaper()
    proc.prctl(proc.PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != guardian:  # it died before we asked to be told
        os.kill(os.getpid(), signal.SIGTERM)


def _stand_guard(daemon: int, listeners: list[Listener]) -> NoReturn:
    status = _wait_for(daemon)
    _end_everything()
    for listener in listeners:
        listener.close()
    os._exit(status)


def _wait_for(daemon: int) -> int:
    """Pass signals on and reap whatever ends, until it is the daemon; its exit status."""
    while True:
        info = signal.sigwaitinfo({signal.SIGCHLD, *PASSED_ON})
        if info.si_signo == signal.SIGCHLD:
            status = _reap(daemon)
            if status is not None:
                return status
        elif info.si_code <= 0 and info.si_pid != daemon:  # sent by a process; the kernel's own codes are positive
            os.kill(daemon, info.si_signo)


def _reap(daemon: int) -> int | None:
    """Reap what has ended, up to the daemon; its exit status if it is among them."""
    while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG):
        if ended.si_pid == daemon:
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
