"""What requests may say: bodies and queries, checked by type before a handler sees them.

What answers say is in `dsfast.views`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from dsfast.model import BATCH_RUNS_MAX
from dsfast.views import RUN_WORDS

PAGE_RUNS_MAX = 500  # rows of one page: a screen or two, and bounded work for one request
PAGE_TASKS_MAX = 10_000  # a page of tasks is up to some 3 MB
INLINE_TASKS_MAX = 10_000  # a run's own answer carries no more tasks than that; more are paged
WAIT_SECONDS_MAX = 60.0  # proxies tend to close quieter connections
LOG_BYTES_MAX = 1 << 20  # of one answer; a reader asks again from where it ends
LOG_BYTES_DEFAULT = 64 << 10
IDEMPOTENCY_KEY_LENGTH_MAX = 200  # characters: it is a column with an index

PriorityWord = Literal["highest", "high", "medium", "low", "lowest"]
StateWord = Annotated[str, Meta(pattern="^(" + "|".join(RUN_WORDS.values()) + ")$")]

GivenLater = msgspec.Raw | msgspec.UnsetType  # may be left out, or null
Key = Annotated[str, Meta(min_length=1, max_length=IDEMPOTENCY_KEY_LENGTH_MAX)]
FileName = Annotated[str, Meta(max_length=4096)]
Number = Annotated[int, Meta(ge=1)]


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request whose misspelt fields are errors."""


class Nothing(Strict, frozen=True):
    """No query at all."""


class Submission(Strict, frozen=True):
    """A workflow to run: as an object (the canonical JSON) or as the text of a YAML file."""

    workflow: Annotated[msgspec.Raw, Meta(description="The workflow as an object, or the text of its YAML file.")]
    params: Annotated[dict[str, Any], Meta(description="Values over the workflow's defaults.")] = {}
    priority: Annotated[PriorityWord | None, Meta(description="Instead of the workflow's own.")] = None
    source: Annotated[FileName | None, Meta(description="A file name to use in messages.")] = None


class BatchOrder(Strict, frozen=True):
    """One run of a batch."""

    workflow: Annotated[GivenLater, Meta(description="As in a single submission; else the batch's.")] = msgspec.UNSET
    params: Annotated[dict[str, Any], Meta(description="Values over the workflow's defaults.")] = {}
    priority: Annotated[PriorityWord | None, Meta(description="Instead of the workflow's own.")] = None
    idempotency_key: Annotated[Key | None, Meta(description="As the header of a single submission.")] = None
    source: Annotated[FileName | None, Meta(description="A file name to use in messages about `workflow`.")] = None


class BatchSubmission(Strict, frozen=True):
    """Many runs to start at once; `workflow` is that of all which do not bring their own."""

    runs: Annotated[list[BatchOrder], Meta(min_length=1, max_length=BATCH_RUNS_MAX)]
    workflow: Annotated[GivenLater, Meta(description="Of runs that have none of their own.")] = msgspec.UNSET
    source: Annotated[FileName | None, Meta(description="A file name to use in messages about `workflow`.")] = None


class LooseBatch(Strict, frozen=True):
    """A batch some of whose runs are malformed: each is looked at by itself."""

    runs: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=BATCH_RUNS_MAX)]
    workflow: GivenLater = msgspec.UNSET
    source: FileName | None = None


class CancelOrder(Strict, frozen=True):
    """Why a run is stopped, for those who look at it later."""

    reason: Annotated[str, Meta(max_length=1000)] = ""


class YamlQuery(Strict, frozen=True):
    """With a body of type application/yaml, what else a submission says."""

    params: Annotated[str, Meta(description="For a YAML body: parameters as a JSON object.")] = "{}"
    priority: Annotated[PriorityWord | None, Meta(description="For a YAML body: instead of the workflow's own.")] = None
    source: Annotated[FileName | None, Meta(description="For a YAML body: a file name to use in messages.")] = None


class RunsQuery(Strict, frozen=True):
    """Which runs to list."""

    state: Annotated[list[StateWord], Meta(description="Only runs in one of these states; may be repeated.")] = []
    workflow: Annotated[str | None, Meta(description="Only runs of this workflow.")] = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_RUNS_MAX, description="Size of the page.")] = 50
    before: Annotated[str | None, Meta(description="Runs older than this run: `next` of the page before.")] = None


class RunQuery(Strict, frozen=True):
    """How much of a run to show, and whether to wait for news of it."""

    tasks: Annotated[bool, Meta(description="Whether to list its tasks.")] = True
    wait: Annotated[
        float,
        Meta(
            ge=0,
            le=WAIT_SECONDS_MAX,
            description="Seconds to wait until the run has ended, or, with If-None-Match, until it has changed.",
        ),
    ] = 0.0


class TasksQuery(Strict, frozen=True):
    """Which tasks of a run to list."""

    after: Annotated[int, Meta(ge=0, description="`next` of the page before.")] = 0
    limit: Annotated[int, Meta(ge=1, le=PAGE_TASKS_MAX, description="Size of the page.")] = 1000


class LogQuery(Strict, frozen=True):
    """Which bytes of which attempt's log."""

    attempt: Annotated[Number | None, Meta(description="The latest if not given.")] = None
    offset: Annotated[int, Meta(description="First byte; a negative one counts from the end.")] = 0
    limit: Annotated[int, Meta(ge=1, le=LOG_BYTES_MAX, description="Most bytes of the answer.")] = LOG_BYTES_DEFAULT
    follow: Annotated[bool, Meta(description="Keep sending what is written until the attempt has ended.")] = False
