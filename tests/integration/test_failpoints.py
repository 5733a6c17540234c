"""A daemon dies, or stands still for longer than its lease and goes on, at every point between two of its steps.

Whatever the point: every run that was accepted ends as its tasks have earned, no attempt starts twice, no two attempts
of a task run at a time, nothing of it is left running; and who stood still changes nothing when it goes on.

Cases are clusters of their own, played several at a time: each of them mostly waits for a lease to end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from dsfast.client import Client
from dsfast.errors import Unavailable
from dsfast.failpoint import POINTS
from dsfast.model import AttemptState, Workflow
from dsfast.views import RunView
from tests.integration.field import Field, accepted, ended, field, submit
from tests.integration.nursery import Nursery
from tests.servers.postgres import PostgresServer

AT_A_TIME = 5
FIRST = 4  # tasks that need nothing; as many as there are slots
ACTIONS = ("kill", "stop")
LAST_ACK = f"@{FIRST}"  # the acknowledgement in whose turn the last task is assigned
ANSWER_SECONDS = 3.0  # a client's patience with an api that stands still
IMPATIENT = "trap '' TERM; sleep 30 & wait; wait"

Play = Callable[[Field, str, str], None]


@pytest.fixture(scope="module")
def played(
    request: pytest.FixtureRequest,
    postgres_server: PostgresServer,
    nursery: Nursery,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Future[None]]]:
    """The cases that were asked for, under way."""
    folder = tmp_path_factory.mktemp("failpoints")
    wanted = [re.fullmatch(r"test_at\[(\w+)-(\w+)\]", item.name) for item in request.session.items]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {
            f"{found[1]}-{found[2]}": pool.submit(
                play, found[1], found[2], folder / f"{found[1]}-{found[2]}", postgres_server, nursery
            )
            for found in wanted
            if found is not None
        }


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("point", POINTS)
def test_at(point: str, action: str, played: dict[str, Future[None]]) -> None:
    played[f"{point}-{action}"].result()


def play(point: str, action: str, folder: Path, server: PostgresServer, nursery: Nursery) -> None:
    with field(folder, server, nursery) as made:
        PLAYS.get(point, BY_ROLE[point[0]])(made, point, action)


def story(made: Field, work: str = "sleep 0.2") -> Workflow:
    """Tasks that use all slots, and one that needs them all."""
    first = [made.task(f"first{number}", work) for number in range(FIRST)]
    last = made.task("last", "true", needs=tuple(task.name for task in first))
    return Workflow(name="story", tasks=(*first, last))


def running(made: Field, client: Client, run: RunView) -> None:
    made.until(lambda: client.run(run.id).counts.get("running") == FIRST)


# -- masters -------------------------------------------------------------------------------------------------


def play_master(made: Field, point: str, action: str) -> None:
    """The other master goes on with the run, and no task needs a second attempt."""
    nth = LAST_ACK if point == "M9" else ""
    made.begin({"a1": f"{point}={action}{nth}", "b2": ""}, {"w1": "", "w2": ""})
    with made.client() as client:
        run = accepted(made, story(made), "once")
        see_master_through(made, client, run, point, action, "succeeded")


def play_cancel(made: Field, point: str, action: str) -> None:
    made.begin({"a1": f"{point}={action}", "b2": ""}, {"w1": "", "w2": ""})
    with made.client() as client:
        run = accepted(made, story(made, "sleep 30"), "once")
        running(made, client, run)
        client.cancel(run.id)
        see_master_through(made, client, run, point, action, "cancelled")


def play_claim(made: Field, point: str, action: str) -> None:
    """The only heir of a dead master is lost while it takes over; a third one takes all."""
    made.begin({"a0": "", "a1": f"{point}={action}"}, {"w1": "", "w2": ""})
    with made.client() as client:
        run = accepted(made, story(made, made.waiting), "once")
        running(made, client, run)
        made.kill("a0")
        made.until(lambda: made.reached("a1", point))
        made.start("master", "b2")
        if action == "stop":
            made.until(lambda: "runs_claimed" in made.log("b2"))
            made.wake("a1")  # while the run goes on under another master
            made.until(lambda: back(made))
        made.open_gate()
        view = ended(made, client, run)
    assert view.state == "succeeded", made.story()
    assert {task.attempts for task in view.tasks or ()} == {1}, made.story()
    assert not any("daemon_failed" in made.log(name) for name in made.daemons), made.story()
    made.judge(view)


def see_master_through(made: Field, client: Client, run: RunView, point: str, action: str, state: str) -> None:
    made.until(lambda: made.reached("a1", point))
    view = ended(made, client, run)
    assert view.state == state, made.story()
    assert {task.attempts for task in view.tasks or ()} <= {0, 1}, made.story()
    made.judge(view)
    assert made.server.sql("SELECT count(*) FROM runs", made.database) == "1", "a submit that was repeated made two"
    if action == "stop":
        rows = made.rows()
        made.until(
            lambda: "a1" not in {member.name for member in client.masters()}
        )  # a short run ends before its lease
        made.wake("a1")
        made.until(lambda: back(made) and (point in NEVER_ITS or "runs_lost" in made.log("a1")))
        assert made.rows() == rows, f"it wrote after it had been deposed\n{made.story()}"
        made.judge(view)


NEVER_ITS = {"M1", "M3"}  # its insert may come second, and is then refused: the run has never been its own


def back(made: Field) -> bool:
    """Whether the master that stood still is a member again."""
    return made.log("a1").count("state=connected") >= 2


# -- workers -------------------------------------------------------------------------------------------------


def play_worker(made: Field, point: str, action: str) -> None:
    """What the worker had is done elsewhere; nothing else is done again, and no task has failed."""
    made.begin({"a1": "", "b2": ""}, {"w1": f"{point}={action}", "w2": ""})
    with made.client() as client:
        run = accepted(made, story(made), "once")
        see_worker_through(made, client, run, point, action, "succeeded")


def play_running(made: Field, point: str, action: str) -> None:
    """Tasks run on until they have been replaced: they end before that."""
    made.begin({"a1": "", "b2": ""}, {"w1": f"{point}={action}", "w2": ""})
    with made.client() as client:
        run = accepted(made, story(made, made.waiting), "once")
        made.until(lambda: replaced(made, "w1"))
        made.open_gate()
        see_worker_through(made, client, run, point, action, "succeeded")


def replaced(made: Field, name: str) -> bool:
    """Whether all that a worker had has been lost with it: one task or two, as many as had come before it fell."""
    each = f"SELECT state = {AttemptState.FAILOVER:d} FROM attempts WHERE worker LIKE '{name}@%'"
    return set(made.server.sql(each, made.database).split()) == {"t"}


def play_drain(made: Field, point: str, action: str) -> None:
    made.begin({"a1": "", "b2": ""}, {"w1": f"{point}={action}", "w2": ""})
    with made.client() as client:
        run = accepted(made, story(made, made.waiting), "once")
        running(made, client, run)
        made.daemons["w1"].terminate()
        made.until(lambda: made.reached("w1", point))
        made.open_gate()
        see_worker_through(made, client, run, point, action, "succeeded")


def play_escalation(made: Field, point: str, action: str) -> None:
    """Tasks ignore SIGTERM, and their worker is lost before it insists."""
    made.begin({"a1": "", "b2": ""}, {"w1": f"{point}={action}", "w2": ""})
    with made.client() as client:
        run = accepted(made, story(made, IMPATIENT), "once")
        running(made, client, run)
        client.cancel(run.id)
        see_worker_through(made, client, run, point, action, "cancelled")


def see_worker_through(made: Field, client: Client, run: RunView, point: str, action: str, state: str) -> None:
    made.until(lambda: made.reached("w1", point))
    view = ended(made, client, run)
    assert view.state == state, made.story()
    made.judge(view)
    lost = [attempt for attempt in made.attempts(view) if attempt[2] == "failover"]
    assert {worker for *_, worker in lost} <= {"w1"}, made.story()
    assert lost or point in MAY_LOSE_NOTHING, made.story()
    if action == "stop":
        rows = made.rows()
        if made.stopped("w1") is not None:  # nothing ran when it stopped; else its guardians have ended it
            made.wake("w1")
            made.daemons["w1"].terminate()
        made.until(lambda: made.daemons["w1"].poll() is not None)
        assert made.rows() == rows, f"what it said late was believed\n{made.story()}"
        made.judge(view)


MAY_LOSE_NOTHING = {"W9", "W10", "W11"}  # the master may have the result already; a cancelled run needs none


# -- apis ------------------------------------------------------------------------------------------------------


def play_api(made: Field, point: str, action: str) -> None:
    """A client that repeats its submit under the same key gets the run that the first try has started."""
    made.begin({"a1": "", "b2": ""}, {"w1": "", "w2": ""}, f"{point}={action}")
    token = (made.folder / "state" / "api.token").read_text().strip()
    with (
        Client(f"http://127.0.0.1:{made.port}", token, timeout=ANSWER_SECONDS) as client,
        pytest.raises(Unavailable),
    ):
        submit(client, story(made), "once")
    made.until(lambda: made.reached("api", point))
    if action == "stop":
        made.wake("api")
    else:
        made.start("api", "api")
        made.until_complete(2, 2)
    run = accepted(made, story(made), "once")
    with made.client() as client:
        view = ended(made, client, run)
    assert view.state == "succeeded", made.story()
    assert {task.attempts for task in view.tasks or ()} == {1}, made.story()
    assert made.server.sql("SELECT count(*) FROM runs", made.database) == "1"
    made.judge(view)


BY_ROLE: dict[str, Play] = {"M": play_master, "W": play_worker, "A": play_api}
PLAYS: dict[str, Play] = {
    "W6": play_running,
    "M10": play_claim,
    "M11": play_claim,
    "M14": play_cancel,
    "W11": play_escalation,
    "W12": play_drain,
}
