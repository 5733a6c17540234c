"""Cancels and timeouts that meet a task's dispatch, start, end and retry: one outcome, and nothing runs afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dsfast.model import AttemptState, Retry, Workflow
from dsfast.views import RunView
from tests.integration.field import Field, accepted, ended, field
from tests.integration.nursery import Nursery
from tests.servers.postgres import PostgresServer

ROUNDS = 8  # of cancels at each moment
TIMED = 60  # tasks that end and time out at the same instant
INSTANT_SECONDS = 0.3
OPEN = f"SELECT count(*) FROM attempts WHERE state IN ({AttemptState.DISPATCHED:d}, {AttemptState.RUNNING:d})"


@pytest.fixture
def made(tmp_path: Path, postgres_server: PostgresServer, nursery: Nursery) -> Iterator[Field]:
    with field(tmp_path, postgres_server, nursery) as found:
        found.begin({"a1": ""}, {"w1": "", "w2": ""})
        yield found


def test_a_task_that_ends_as_its_time_runs_out_has_one_end(made: Field) -> None:
    work = f"sleep {INSTANT_SECONDS - 0.01:g}"  # with what its start takes it ends a little earlier, or later
    tasks = tuple(made.task(f"t{number}", work, timeout=INSTANT_SECONDS) for number in range(TIMED))
    run = accepted(made, Workflow(name="instant", tasks=tasks), "once")
    with made.client() as client:
        view = ended(made, client, run)
    made.judge(view)
    found = made.attempts(view)
    assert len(found) == TIMED
    assert {state for _, _, state, _ in found} <= {"succeeded", "failed"}


def before_it_starts(made: Field, run: RunView) -> bool:
    return True


def while_it_runs(made: Field, run: RunView) -> bool:
    return any(key.startswith(f"{run.id}.0.") for _, key in made.witnessed())


def as_it_ends(made: Field, run: RunView) -> bool:
    return ("end", f"{run.id}.0.1") in made.witnessed()


def as_it_is_tried_again(made: Field, run: RunView) -> bool:
    return ("start", f"{run.id}.1.2") in made.witnessed()


MOMENTS = (before_it_starts, while_it_runs, as_it_ends, as_it_is_tried_again)


def test_a_cancel_at_any_moment_has_one_outcome(made: Field) -> None:
    """Runs with a task that succeeds, one that fails and is tried again, and one that comes after."""
    first = made.task("first", "sleep 0.02")
    failing = made.task("failing", "exit 1", retry=Retry(limit=3))
    last = made.task("last", "sleep 0.02", needs=("first",))
    workflow = Workflow(name="cancelled", tasks=(first, failing, last))

    def play(number: int, moment: Callable[[Field, RunView], bool]) -> RunView:
        run = accepted(made, workflow, f"{number}")
        with made.client() as client:
            made.until(lambda: moment(made, run) or client.run(run.id).ended_at is not None)
            client.cancel(run.id)
            return ended(made, client, run)

    with ThreadPoolExecutor(len(MOMENTS)) as pool:
        views = list(pool.map(play, range(ROUNDS * len(MOMENTS)), MOMENTS * ROUNDS))
    assert {view.state for view in views} <= {"cancelled", "failed"}, made.story()
    assert made.server.sql(OPEN, made.database) == "0", made.story()
    keys = Counter(key for word, key in made.witnessed() if word == "start")
    assert set(keys.values()) == {1}, "an attempt was started twice"
    rows = {key: state for view in views for _, key, state, _ in made.attempts(view)}
    assert keys.keys() <= rows.keys(), "something ran that no row shows"
