"""Exit codes: scripts rely on them, so they never change meaning."""

from enum import IntEnum


class Exit(IntEnum):
    """What a command says to the shell."""

    OK = 0
    ERROR = 1
    USAGE = 2
    RUN_FAILED = 3
    RUN_CANCELLED = 4
    NOT_FOUND = 5
    TIMEOUT = 6
    UNREACHABLE = 7
    INTERRUPTED = 130


RUN_EXITS = {
    "succeeded": Exit.OK,
    "failed": Exit.RUN_FAILED,
    "cancelled": Exit.RUN_CANCELLED,
    "paused": Exit.RUN_CANCELLED,
}
