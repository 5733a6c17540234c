"""What strangers may cost: connections that have proved nothing are few, and the log of them is short.

Every refusal is counted under its code; a code is logged at most once a second, with the number of refusals
that were not. The refused peer learns nothing but that the connection is closed.
"""

from __future__ import annotations

import logging
from collections import Counter

from dsfast.log import log_event
from dsfast.runtime.limits import LinkLimits

LOG_EVERY_SECONDS = 1.0  # per code: enough to see what goes on, too little to fill a disk


class Gate:
    """Counts half-open connections, in all and by address, and refusals by code."""

    def __init__(self, limits: LinkLimits, logger: logging.Logger) -> None:
        self._limits = limits
        self._logger = logger
        self._inside: Counter[str] = Counter()
        self._logged_at: dict[str, float] = {}
        self._unlogged: Counter[str] = Counter()
        self.half_open = 0
        self.refused: Counter[str] = Counter()

    def has_room(self, address: str) -> bool:
        """Whether one more half-open connection from this address may stay."""
        limits = self._limits
        return self.half_open < limits.half_open_max and self._inside[address] < limits.half_open_per_address_max

    def enter(self, address: str) -> None:
        """A connection is half open now; `leave` must follow."""
        self._inside[address] += 1
        self.half_open += 1

    def leave(self, address: str) -> None:
        """It has proved itself, or it is gone."""
        self.half_open -= 1
        self._inside[address] -= 1
        if not self._inside[address]:
            del self._inside[address]

    def refuse(self, code: str, address: str, reason: str, now: float) -> None:
        """Count a refusal, and log it unless the same code was logged just now."""
        self.refused[code] += 1
        if now - self._logged_at.get(code, now - LOG_EVERY_SECONDS) < LOG_EVERY_SECONDS:
            self._unlogged[code] += 1
            return
        self._logged_at[code] = now
        more = self._unlogged.pop(code, None)
        log_event(
            self._logger, "link_refused", level=logging.WARNING, code=code, address=address, reason=reason, more=more
        )
