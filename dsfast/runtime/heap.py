"""How often a daemon looks for garbage in cycles.

What a turn makes (events, commands, rows) is freed by its count, and most of it cannot be in a cycle at all. Python
would still look through the young after every 700 new containers and now and then through everything: in a run of
100,000 tasks a fifth of the processor's time, and pauses of 80 ms.
"""

from __future__ import annotations

import gc

YOUNG_OBJECTS_MAX = 50_000  # containers made and not freed before the young are looked through: some 10 ms of work
YOUNG_ROUNDS, MIDDLE_ROUNDS = 20, 10  # of the younger before the older: a leaked cycle waits for minutes, not for ever


def settle() -> None:
    """Call once everything is loaded: modules and what they made are never looked through again."""
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX, YOUNG_ROUNDS, MIDDLE_ROUNDS)
