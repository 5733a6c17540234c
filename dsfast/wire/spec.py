"""The task in an Execute, as JSON: the part of it that equal tasks share, and that a worker decodes once."""

from __future__ import annotations

import msgspec


class TaskSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker must know to run a task; equal specs of a workflow share one encoded copy in the master."""

    type: str
    config: msgspec.Raw = msgspec.Raw(b"{}")
    env: dict[str, str] = {}
    workdir: str | None = None
    timeout: float | None = None
    runs_on: float | None = 0.0  # seconds without lease and link after which the worker ends it; None: it does not
