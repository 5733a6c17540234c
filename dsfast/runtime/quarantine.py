"""Commands over which masters have ended: they are turned away on arrival, so that they end no more of them.

A run that ends its masters is known by its id. A command that is about no run of theirs, such as a workflow whose
compilation meets a bug of ours, is known by a mark: a negative number, so that both are counted in one table. A mark
stands for what was said, by whom, and for our release, since the next one may not have the bug. A request has no
sender: whoever asks for the same meets the same bug, and an api has another name in each of its lives.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b

import msgspec

from dsfast import __version__
from dsfast.engine.events import Event, Received
from dsfast.log import log_event
from dsfast.wire import commands as cmd

PASSING = {"idempotency_key": None, "serial": 0, "asked_at": 0.0}  # what differs each time the same thing is said
KIND_BITS = 8  # the lowest bits of a mark, so that commands of other kinds need not be looked at
DIGEST_BYTES = 7  # with the kind 63 bits, which every database has for a number


def mark_of(said: Received) -> int:
    """The number by which this command is known from now on, in all masters of this release."""
    passing = {name: value for name, value in PASSING.items() if hasattr(said.command, name)}
    sender = "" if said.request_id else said.peer_id.partition("@")[0]
    body = msgspec.msgpack.encode((__version__, sender, msgspec.structs.replace(said.command, **passing)))
    digest = int.from_bytes(blake2b(body, digest_size=DIGEST_BYTES).digest(), "big") >> 1
    return -(digest << KIND_BITS | said.command.KIND)


class Quarantine:
    """The commands that are turned away; False while there are none, so that a turn need not ask."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._stories: dict[int, str] = {}  # by mark, what the last master said
        self._kinds: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self._stories)

    def learn(self, crashed: Mapping[int, str]) -> None:
        """From now on these: runs and marks over which masters have ended, of which runs are others' business."""
        self._stories = {mark: story for mark, story in crashed.items() if mark < 0}
        self._kinds = frozenset(-mark & (1 << KIND_BITS) - 1 for mark in self._stories)

    def admit(self, events: Iterable[Event], answer: Callable[[str, int, cmd.Command], None]) -> list[Event]:
        """The events without what is turned away; who asked is answered."""
        admitted = []
        for event in events:
            if isinstance(event, Received) and (story := self._story(event)) is not None:
                self._turn_away(event, story, answer)
            else:
                admitted.append(event)
        return admitted

    def _story(self, said: Received) -> str | None:
        return self._stories.get(mark_of(said)) if said.command.KIND in self._kinds else None

    def _turn_away(self, said: Received, story: str, answer: Callable[[str, int, cmd.Command], None]) -> None:
        name = type(said.command).__name__
        log_event(self._log, "command_quarantined", level=logging.ERROR, peer=said.peer_id, command=name, error=story)
        if said.request_id:
            sentence = f"quarantined: masters have ended over this very {name}, the last one with: {story}"
            advice = "ask for something else, or install a release without that bug"
            answer(said.peer_id, said.request_id, cmd.Failed("usage", f"{sentence}; {advice}"))
