"""Masters that die, that are taken for dead while they live, and that are all gone for a while: nothing is thrown away.

What runs is adopted and runs on, results wait at the workers, and whoever has been replaced can neither write nor
start anything. Tasks are witnesses of themselves (see `field`).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dsfast.client import Client
from dsfast.model import Task, Workflow
from dsfast.views import RunView
from tests.integration.field import Field, accepted, ended, field
from tests.integration.nursery import Nursery
from tests.servers.postgres import PostgresServer

MANY = 2_000
DELAY_SECONDS = 8.0  # longer than it takes until a master whose link is healthy is given up
SHARED = 12  # runs, so that none of two heirs gets no share: one in two thousand

# The registry forgets a master and will not have it back, though it lives and all its links are healthy.
HIDE = """
CREATE FUNCTION hide() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER hide BEFORE INSERT OR UPDATE ON dsfast_members
    FOR EACH ROW WHEN (NEW.name = '{name}') EXECUTE FUNCTION hide();
DELETE FROM dsfast_members WHERE name = '{name}';
"""


@pytest.fixture
def made(tmp_path: Path, postgres_server: PostgresServer, nursery: Nursery) -> Iterator[Field]:
    with field(tmp_path, postgres_server, nursery) as found:
        yield found


def gated(made: Field, name: str = "gated") -> Workflow:
    """A task that waits for the gate, and one that needs it."""
    waiting = made.task(f"{name}-waiting", made.waiting)
    return Workflow(name="gated", tasks=(waiting, made.task(f"{name}-after", "true", needs=(waiting.name,))))


def running(made: Field, client: Client, runs: list[RunView]) -> None:
    made.until(lambda: all(client.run(run.id).counts.get("running") for run in runs))


def all_well(made: Field, client: Client, runs: list[RunView]) -> None:
    """All have succeeded, each task with its first attempt, which ran once."""
    views = [ended(made, client, run) for run in runs]
    assert {view.state for view in views} == {"succeeded"}, made.story()
    assert {task.attempts for view in views for task in view.tasks or ()} == {1}, made.story()
    made.judge(*views)


def owners(made: Field) -> list[tuple[str, int]]:
    """(name of the owner, epoch) of every run that has not ended."""
    rows = made.server.sql("SELECT owner || '@' || epoch FROM runs WHERE owner IS NOT NULL", made.database)
    split = [row.split("@") for row in rows.splitlines()]
    return [(name, int(epoch)) for name, _, epoch in split]


def test_of_two_masters_that_believe_to_own_a_run_the_later_one_does(made: Field) -> None:
    """The registry says of a living master that it is gone. What it was about to start, only its heir starts."""
    made.begin({"a1": ""}, {"w1": "", "w2": ""})
    known = accepted(made, gated(made), "known")
    later = made.task("later", "true", delay=DELAY_SECONDS)  # no worker knows of it, and could tell the old owner
    unknown = accepted(made, Workflow(name="later", tasks=(later,)), "unknown")
    with made.client() as client:
        running(made, client, [known])
        made.start("master", "b2")
        made.until_complete(2, 2)
        assert owners(made) == [("a1", 1)] * 2
        made.server.sql(HIDE.format(name="a1"), made.database)
        made.until(lambda: owners(made) == [("b2", 2)] * 2)
        made.until(lambda: f"runs_lost runs={known.id}" in made.log("a1"))
        made.open_gate()
        all_well(made, client, [known, unknown])
        made.until(lambda: f"runs_lost runs={unknown.id}" in made.log("a1"))  # its own write told it
    assert "master_stopped" not in made.log("a1")


def test_two_masters_share_the_runs_of_a_third(made: Field) -> None:
    made.begin({"a1": ""}, {"w1": "", "w2": ""})
    runs = [accepted(made, gated(made, f"r{number}"), str(number)) for number in range(SHARED)]
    made.start("master", "b2")
    made.start("master", "c3")
    made.until_complete(3, 2)
    made.until(lambda: "link_up peer=c3" in made.log("b2") and "link_up peer=b2" in made.log("c3"))
    made.until(lambda: len(made.witnessed()) == 4)
    made.kill("a1")
    made.until(lambda: {name for name, _ in owners(made)} == {"b2", "c3"})
    assert len(owners(made)) == SHARED
    made.open_gate()
    with made.client() as client:
        all_well(made, client, runs)


def test_results_wait_while_all_masters_are_dead(made: Field) -> None:
    made.begin({"a1": "", "b2": ""}, {"w1": "", "w2": ""})
    runs = [accepted(made, gated(made, f"r{number}"), str(number)) for number in range(4)]
    with made.client() as client:
        running(made, client, runs)
        made.kill("a1")
        made.kill("b2")
        made.open_gate()
        made.until(lambda: [word for word, _ in made.witnessed()].count("end") == 4)
        made.start("master", "c3")
        all_well(made, client, runs)


def test_a_cancel_that_was_accepted_holds_though_its_master_dies(made: Field) -> None:
    """Cancels of many runs meet the death of their master at any moment; none is half done."""
    made.begin({"a1": "", "b2": ""}, {"w1": "", "w2": ""})
    runs = [accepted(made, gated(made, f"r{number}"), str(number)) for number in range(8)]
    made.until(lambda: len(made.witnessed()) == 4)
    with ThreadPoolExecutor(len(runs)) as pool:
        cancels = [pool.submit(cancelled, made, run) for run in runs]
        made.until(lambda: any(cancel.done() for cancel in cancels))
        made.kill("a1")
        for cancel in cancels:
            cancel.result()
    with made.client() as client:
        views = [ended(made, client, run) for run in runs]
    assert {view.state for view in views} == {"cancelled"}, made.story()
    made.judge(*views)
    assert "end" not in {word for word, _ in made.witnessed()}


def cancelled(made: Field, run: RunView) -> None:
    """Cancel until that is accepted."""

    def try_again() -> bool:
        with made.client() as client:
            client.cancel(run.id)
        return True

    made.until(try_again)


def test_the_only_master_comes_back_to_thousands_of_tasks(made: Field) -> None:
    """Four run and go on, the others wait for their slots and get them."""
    made.begin({"a1": ""}, {"w1": "", "w2": ""})
    first = [made.task(f"first{number}", made.waiting) for number in range(4)]
    waiting = accepted(made, Workflow(name="first", tasks=tuple(first)), "first")
    with made.client() as client:
        made.until(lambda: client.run(waiting.id).counts.get("running") == 4)
        rest = [Task(name=f"t{number}", type="noop") for number in range(MANY)]
        queued = accepted(made, Workflow(name="queued", tasks=tuple(rest)), "queued")
        made.kill("a1")
        made.start("master", "a1")
        made.open_gate()
        views = [ended(made, client, run) for run in (waiting, queued)]
        assert {view.state for view in views} == {"succeeded"}, made.story()
        assert client.run(queued.id, tasks=False).counts == {"succeeded": MANY}
        made.judge(views[0])
    tries = "SELECT count(*), max(attempt) FROM attempts"
    assert made.server.sql(tries, made.database) == f"{MANY + 4}|1", made.story()
