"""The one way a process is started and ended.

Each process is started in a session of its own and watched by its pidfd, so an exit is an event and nothing
polls. This operating system process is a subreaper: whatever a task leaves behind when its main process exits
(background children, daemons that forked twice and called setsid) becomes a direct child of ours at that
moment. So one look at our own children, three microseconds for a few of them, proves that nothing is left; only when
something is left does the rest of this module run: it is ended, waited for and looked for again, until
there is none, and only then is the end reported.

A child of ours that nobody started here is an orphan, and belongs to the process whose session it is in, or whose
mark is in its environment. One that has shed both belongs to all processes that ran before it appeared and
is ended with the last of them. A child in our own session, or older than everything started here, was made
by other code in this program and is left alone.

A process id cannot be used again before its owner is reaped: a main process stays a zombie until its tree is
gone, which keeps its group and session safe to signal. Descendants that are not our children yet are
signalled through a pidfd, after a second look at who their parent is.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from dsfast.failpoint import reach
from dsfast.tasks import proc
from dsfast.tasks.base import StartFailed
from dsfast.tasks.logfile import AttemptLog
from dsfast.tasks.oom import Offered
from dsfast.tasks.spawn import spawn

REAP_SECONDS = 1.0  # how long the zombies of a task that forks twice may lie about while it runs
RETRY_SECONDS = 0.05  # when there is no descriptor left to watch a dying process with: look again
SHORTAGES = frozenset(
    {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}
)
STATUS_LOST = 255  # other code of this program has reaped our child, and its exit code with it

ExitStatus = int  # an exit code, or minus the number of the signal that ended it
_HERTZ = os.sysconf("SC_CLK_TCK")


class Process:
    """A process and everything that descends from it."""

    __slots__ = (
        "_asked", "_ended", "_fd", "_finished", "_insisting", "_kill_at", "_kill_timer", "_log_timer", "_loop",
        "_settling", "_watched", "marks", "pid", "status", "working_since",
    )  # fmt: skip

    def __init__(self, pid: int, fd: int, marks: Iterable[str], ended: Callable[[ExitStatus], None]) -> None:
        self.pid = pid
        self.status: ExitStatus | None = None  # of the main process, as soon as it is known
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._fd = fd
        self._insisting = False
        self._settling = False
        self._finished = False
        self._kill_at: float | None = None
        self._kill_timer: asyncio.TimerHandle | None = None
        self._asked: set[int] = set()
        self._watched: dict[int, int] = {}  # what it left behind: pid -> pidfd
        self._log_timer: asyncio.TimerHandle | None = None
        self.work(marks)
        self._loop.add_reader(fd, self._on_exit)

    def work(self, marks: Iterable[str]) -> None:
        """From now on it runs users' code; `marks` are `NAME=value` pairs that only its tree's environment carries."""
        self.marks = frozenset(mark.encode() for mark in marks)
        self.working_since: float = _ticks()

    def rest(self) -> bool:
        """It waits for more work: nothing that appears from now on is its. False if it is not fit to: end it."""
        try:
            if self._kill_at is not None or self.status is not None:
                return False
            if _children.left_by(self) or proc.children(self.pid):
                return False
        except OSError:  # we cannot look, so we cannot know
            return False
        self.marks, self.working_since = frozenset(), math.inf
        _children.disown(self)
        return True

    def kill(self, grace: float) -> None:
        """Ask it to end, and after `grace` seconds end it; called again, the earlier of the two moments counts."""
        at = self._loop.time() + grace
        if self._finished or self._insisting or (self._kill_at is not None and at >= self._kill_at):
            return
        first, self._kill_at = self._kill_at is None, at
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        if grace <= 0:
            self._insist()
            return
        self._kill_timer = self._loop.call_later(grace, self._insist)
        if first and self.status is None:
            _signal_group(self.pid, signal.SIGTERM)
            _signal_group(self.pid, signal.SIGCONT)  # one that is stopped could not follow

    def watch(self, log: AttemptLog | None) -> None:
        """Keep this log under its cap while the process runs; None ends that."""
        if self._log_timer is not None:
            self._log_timer.cancel()
        self._log_timer = self._loop.call_later(log.look_seconds, self._look, log) if log is not None else None

    def _look(self, log: AttemptLog) -> None:
        if log.look():
            self._loop.run_in_executor(None, log.cut)
        _children.reap_now_and_then(self._loop.time())
        self.watch(log)

    def _insist(self) -> None:
        reach("W11")
        self._insisting = True
        if self.status is None:
            _signal_group(self.pid, signal.SIGKILL)
            with suppress(OSError):  # what is missed for want of descriptors surfaces when the main process is dead
                proc.signal_all(list(proc.descendants([self.pid])), signal.SIGKILL)
        else:
            self._settle_soon()

    def _on_exit(self) -> None:
        try:
            exited = os.waitid(os.P_PIDFD, self._fd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            self.status = STATUS_LOST
        else:
            if exited is None:
                return
            self.status = exited.si_status if exited.si_code == os.CLD_EXITED else -exited.si_status
        self._loop.remove_reader(self._fd)  # before it is closed: the number may be given out again at once
        os.close(self._fd)
        if self._kill_at is None:
            self._insisting = True  # nobody asked for it to be gentle with what the process has left behind
        self._settle()

    def _settle(self) -> None:
        """The main process is dead: end what it left, or report the end when there is nothing (more)."""
        self._settling = False
        try:
            left = _children.left_by(self)
            self._end(left)
        except OSError as error:
            if error.errno not in SHORTAGES:
                raise
            self._settling = True
            self._loop.call_later(RETRY_SECONDS, self._settle)
            return
        if not left:
            self._finish()

    def _settle_soon(self) -> None:
        if not self._settling and not self._finished:  # many may end in one turn of the loop
            self._settling = True
            self._loop.call_soon(self._settle)

    def _end(self, left: list[int]) -> None:
        if self._insisting:
            _signal_trees(left, signal.SIGKILL)
        else:
            _signal_trees([pid for pid in left if pid not in self._asked], signal.SIGTERM)
            self._asked.update(left)
        for pid in left:
            if pid not in self._watched:
                fd = self._watched[pid] = os.pidfd_open(pid)
                self._loop.add_reader(fd, self._on_left_exit, pid)

    def _on_left_exit(self, pid: int) -> None:
        self._unwatch(pid)
        self._settle_soon()

    def _unwatch(self, pid: int) -> None:
        fd = self._watched.pop(pid)
        self._loop.remove_reader(fd)
        os.close(fd)

    def _finish(self) -> None:
        assert self.status is not None
        self._finished = True
        for timer in (self._kill_timer, self._log_timer):
            if timer is not None:
                timer.cancel()
        for pid in list(self._watched):
            self._unwatch(pid)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        _children.forget(self)
        self._ended(self.status)


def start_process(
    argv: Sequence[str],
    env: Mapping[str, str],
    workdir: str,
    output: int,
    ended: Callable[[ExitStatus], None],
    marks: Iterable[str] = (),
    extra: Sequence[int] = (),
) -> Process:
    """Start argv[0] (a path) with stdin empty, stdout and stderr to `output`, and `extra` as descriptors 3 and up.

    `ended` is called once, on this loop, when the process and all its descendants are gone. Raises
    StartFailed for a shortage on this machine, OSError and ValueError for what is wrong with the command.
    """
    try:
        _children.prepare()
        since = _ticks()
        reach("W3")
        with _children.offered:
            pid = spawn(argv, env, workdir, (_children.null, output, output, *extra))
        reach("W4")
    except OSError as error:
        raise shortage(error) from error
    fd = -1
    try:
        fd = os.pidfd_open(pid)
        process = Process(pid, fd, marks, ended)
    except OSError as error:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if fd >= 0:
            os.close(fd)
        raise shortage(error) from error
    process.working_since = since  # before its own start, so that nothing it starts can be older
    _children.mains[pid] = process
    return process


def shortage(error: OSError) -> Exception:
    """StartFailed if the error means that this machine is short of something, else the error itself."""
    if error.errno in SHORTAGES:
        return StartFailed(f"this worker cannot start a process at the moment: {error}")
    return error


class _Children:
    """The direct children of this operating system process: it has one set of them, so there is one of these."""

    offered: Offered

    def __init__(self) -> None:
        self.mains: dict[int, Process] = {}
        self.null = -1
        self._listing = -1
        self._orphans: dict[int, set[Process]] = {}  # pid -> the processes it may descend from
        self._foreign: set[int] = set()
        self._prepared = 0  # the process id for which it is done: a fork has to do it again
        self._reaped_at = 0.0

    def prepare(self) -> None:
        """Become the parent of orphans, once per operating system process. Raises OSError."""
        if self._prepared == os.getpid():
            self._know_others()
            return
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:  # as inherited; the dead would vanish unseen
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        proc.become_subreaper()
        self.null = os.open("/dev/null", os.O_RDWR)
        while self.null < 3:  # descriptors 0 to 2 are not free for other uses in a process that starts others
            self.null = os.dup(self.null)
        self.offered = Offered()
        self._listing = proc.open_children()
        self._prepared = os.getpid()
        self._know_others()

    def _know_others(self) -> None:
        """While nothing of ours works, whatever children there are were made by other code."""
        if all(process.working_since == math.inf for process in self.mains.values()):
            self._sort()

    def left_by(self, process: Process) -> list[int]:
        """The orphans that can only be this process's, after reaping the dead ones."""
        while True:
            self._sort()
            left = [pid for pid, owners in self._orphans.items() if len(owners) == 1 and process in owners]
            dead = [pid for pid in left if self._reap(pid)]
            if not dead:
                return left

    def forget(self, process: Process) -> None:
        """The process is reaped."""
        del self.mains[process.pid]
        self.disown(process)

    def disown(self, process: Process) -> None:
        """Orphans that may be this process's, or another's, are the other's."""
        for owners in self._orphans.values():
            owners.discard(process)

    def reap_now_and_then(self, now: float) -> None:
        """Reap orphans that died while their task runs on."""
        if now - self._reaped_at >= REAP_SECONDS:
            self._reaped_at = now
            self._sort()
            for pid in list(self._orphans):
                self._reap(pid)

    def _sort(self) -> None:
        """Tell our children apart. When there are none but main processes, this is one read and one count."""
        listed = proc.listed_children(self._listing)
        if not self._orphans and not self._foreign and listed.count(b" ") == len(self.mains):
            return
        pids = set(map(int, listed.split()))
        self._foreign &= pids
        for pid in self._orphans.keys() - pids:  # reaped by other code of this program
            del self._orphans[pid]
        for pid in pids - self.mains.keys() - self._orphans.keys() - self._foreign:
            owners = self._owners(pid)
            if owners:
                self._orphans[pid] = owners
            else:
                self._foreign.add(pid)

    def _owners(self, pid: int) -> set[Process]:
        seen = proc.stat(pid)
        if seen is None or seen.session == os.getsid(0):
            return set()
        if seen.session in self.mains:
            return {self.mains[seen.session]}
        environment = proc.environment(pid)
        marked = {process for process in self.mains.values() if not environment.isdisjoint(process.marks)}
        return marked or {process for process in self.mains.values() if process.working_since <= seen.started}

    def _reap(self, pid: int) -> bool:
        try:
            gone = os.waitpid(pid, os.WNOHANG)[0] == pid
        except ChildProcessError:
            gone = True
        if gone:
            del self._orphans[pid]
        return gone


_children = _Children()


def _ticks() -> int:
    """Now, as the kernel counts the starts of processes."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _HERTZ)


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except PermissionError:  # all of it runs as another user by now: whoever let it must end it
        return


def _signal_trees(roots: list[int], number: signal.Signals) -> None:
    """Signal these children of ours and everything below them."""
    below = list(proc.descendants(roots))
    for pid in roots:
        with suppress(PermissionError):
            os.kill(pid, number)
    proc.signal_all(below, number)
