"""Named points at which a daemon can be made to die, stand still or fail, to see what its cluster makes of it.

Theory of operation. Points are places between two steps whose order is a promise ("after the commit, before the
answer"). A daemon that was started with `DSFAST_FAILPOINT` in its environment is armed when it starts: `reach` then
does what was ordered when its point is reached for the n-th time. In every other daemon `reach` looks at an empty
dictionary, and the points of a turn do not even exist: `runtime/points.py` puts them there for armed daemons only.

    DSFAST_FAILPOINT="M4=kill"          kill -9 of this process, the first time
    DSFAST_FAILPOINT="M4=stop@3"        SIGSTOP of this process, the third time
    DSFAST_FAILPOINT="M4=delay:5,W1=error"   5 s during which its loop stands still; an exception

An order is carried out once.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from dsfast.errors import UsageError

VARIABLE = "DSFAST_FAILPOINT"
DELAY_SECONDS_MAX = 3600.0  # longer than any lease: what is to stand still for good is stopped

POINTS = {
    "M1": "the commit of a submit is under way; whether it takes effect is not known",
    "M2": "a submit is durable, before its answer",
    "M3": "a task is assigned to a worker, before that is committed",
    "M4": "an assignment is durable, before the task is sent",
    "M5": "a task was sent, before the worker's first word about it",
    "M6": "a task's start is known, before that is committed",
    "M7": "a result is settled, before that is committed",
    "M8": "a result is durable, before its acknowledgement",
    "M9": "a result was acknowledged, before the tasks that it made ready are sent",
    "M10": "runs of a dead master are taken over, before they are read",
    "M11": "runs taken over are partly read",
    "M14": "a cancel is durable, before a kill is sent",
    "W1": "a task was received, before anything is made of it",
    "W2": "an attempt is held, before it is started",
    "W3": "before a process is started",
    "W4": "a process was started, before anything is noted of it",
    "W5": "a process runs, before that is said",
    "W6": "a process runs, and that was said",
    "W7": "a process has ended, before that is noted",
    "W8": "an end is noted, before the result is sent",
    "W9": "a result was sent, before its acknowledgement",
    "W10": "a result is acknowledged, before it is forgotten",
    "W11": "a process was asked to end and has not, before it is killed",
    "W12": "draining, and that was said",
    "A1": "a submit was sent to a master, before its answer",
    "A2": "a master has accepted a submit, before the client is answered",
}

_ORDER = re.compile(r"(?P<point>\w+)=(?P<action>kill|stop|error|delay:(?P<seconds>[\d.]+))(?:@(?P<nth>[1-9]\d*))?")


class Injected(RuntimeError):
    """The error of an order `POINT=error`."""


@dataclass(slots=True)
class _Order:
    action: str
    seconds: float
    left: int  # times the point is still passed before


_orders: dict[str, _Order] = {}


def arm(text: str) -> None:
    """Take orders, as in the variable; replaces earlier ones. Raises UsageError with what can be ordered."""
    _orders.clear()
    _orders.update(map(_read, filter(None, text.split(","))))


def armed(point: str | None = None) -> bool:
    """Whether an order for this point is still to be carried out; without a point, any."""
    return bool(_orders) if point is None else point in _orders


def reach(point: str) -> None:
    """Carry out the order for this point, if there is one. Raises Injected if that is the order."""
    if _orders and point in _orders:
        _count(point)


def _read(text: str) -> tuple[str, _Order]:
    found = _ORDER.fullmatch(text.strip())
    if found is None:
        how = "write POINT=kill, =stop, =error or =delay:SECONDS, and @N for the N-th time"
        raise UsageError(f"{VARIABLE}: {text!r} is no order: {how}")
    if found["point"] not in POINTS:
        raise UsageError(f"{VARIABLE}: there is no point {found['point']!r}; there are {', '.join(POINTS)}")
    seconds = float(found["seconds"] or 0)
    if seconds > DELAY_SECONDS_MAX:
        raise UsageError(f"{VARIABLE}: a delay is at most {DELAY_SECONDS_MAX:g} seconds")
    return found["point"], _Order(found["action"].partition(":")[0], seconds, int(found["nth"] or 1) - 1)


def _count(point: str) -> None:
    order = _orders[point]
    if order.left:
        order.left -= 1
        return
    del _orders[point]
    logging.getLogger("dsfast.failpoint").critical("reached point=%s action=%s", point, order.action)
    _ACTIONS[order.action](point, order)


def _error(point: str, order: _Order) -> None:
    raise Injected(f"{VARIABLE} ordered an error at {point}: {POINTS[point]}")


_ACTIONS: dict[str, Callable[[str, _Order], None]] = {
    "kill": lambda point, order: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda point, order: os.kill(os.getpid(), signal.SIGSTOP),
    "delay": lambda point, order: time.sleep(order.seconds),
    "error": _error,
}
