"""What stores on database servers share: how long they wait, when they try again, and whose error an error is."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dsfast.errors import DsfastError, Unavailable

CONNECT_SECONDS_MAX = 10.0  # a server that has not answered by then is taken as unreachable
COMMAND_SECONDS_MAX = 30.0  # a commit that takes longer hangs on a silent network; the connection is given up
LOCK_WAIT_SECONDS = 10  # for a row that another master is just writing: its transaction takes milliseconds
TRIES_MAX = 6  # for transactions that lost a conflict: with the pauses below, about a second in all
PAUSE_SECONDS = 0.02  # before the second try, doubled for each one after it, with jitter of half
PEOPLE_CONNECTIONS_MAX = 4  # per process; a server usually allows 100 in all
PEOPLE_SECONDS_MAX = 30  # for one question; the server gives up on it then


class Conflict(Unavailable):
    """A transaction found that another is doing the same: nothing was written, and trying again will tell."""


def pause_seconds(failures: int) -> float:
    """How long to wait before a transaction is tried again that has lost so many conflicts."""
    return PAUSE_SECONDS * 2.0 ** (failures - 1) * random.uniform(0.5, 1.5)


@contextmanager
def explained(explain: Callable[[BaseException], DsfastError | None]) -> Iterator[None]:
    """Turns what the driver raised, perhaps wrapped by SQLAlchemy, into ours; what `explain` has no word for stays."""
    try:
        yield
    except DsfastError:
        raise
    except Exception as error:
        ours = next((said for each in _causes(error) if (said := explain(each)) is not None), None)
        if ours is None:
            raise
        raise ours from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
