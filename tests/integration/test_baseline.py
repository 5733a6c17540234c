"""The baseline that benchmarks compare with: its workflows end right, and each step costs what its README says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.baseline.cluster import ROOT, Baseline, baseline, task
from benchmarks.baseline.queue import as_number, may_take, node_name, sort_key, task_of
from benchmarks.baseline.tables import State
from tests.servers.postgres import PostgresServer
from tests.servers.zookeeper import ZooKeeperServer

FAST: dict[str, Any] = {
    "poll_seconds": 0.05,
    "session_seconds": 4.0,
    "heartbeat_delay_seconds": 0.2,
    "heartbeat_seconds": 1.0,
    "weights_seconds": 0.3,
    "reserved_gb": 0.0,
}
ROW = re.compile(r"\| (?P<step>[a-z ]+) \| [^|]+ \| (?P<sql>\d[^|]*) \| (?P<zookeeper>\d[^|]*) \|")
RARE = {"resubmit", "kill waiting", "worker failover", "task failover", "master failover", "workflow failover"}

Make = Callable[..., Baseline]


@pytest.fixture
def make(tmp_path: Path, postgres_server: PostgresServer, zookeeper_server: ZooKeeperServer) -> Iterator[Make]:
    """Clusters with short sleeps, by mode."""
    with ExitStack() as stack:

        def made(mode: Any, **settings: Any) -> Baseline:
            folder = tmp_path / f"{mode}-{tmp_path.parent.name}-{tmp_path.name}"
            places = (folder, postgres_server.new_database(), zookeeper_server.hosts)
            return stack.enter_context(baseline(*places, mode, **(FAST | settings)))

        yield made


def documented(mode: str) -> dict[str, tuple[str, str]]:
    """The README's table: what each step may take."""
    text = (ROOT / "benchmarks/baseline/README.md").read_text()
    section = text.partition(f"### {mode} (")[2].partition("\n### ")[0]
    return {row["step"]: (row["sql"], row["zookeeper"]) for row in ROW.finditer(section)}


def allows(cell: str, count: int) -> bool:
    """Whether "3", "1 or 3" or "4 + 2n" allows this count."""
    for choice in cell.split(" or "):
        base, _, more = choice.partition(" + ")
        least, step = int(base), int(more.removesuffix("n") or 0)
        if count == least or (step and count > least and (count - least) % step == 0):
            return True
    return False


def check_calls(old: Baseline, mode: str) -> set[str]:
    """No step took what the README does not say; returns the steps that were seen."""
    table, calls = documented(mode), old.calls()
    wrong = [
        occurrence
        for occurrence in calls
        if occurrence[0] not in table
        or not all(allows(cell, count) for cell, count in zip(table[occurrence[0]], occurrence[1:], strict=True))
    ]
    assert not wrong, f"benchmarks/baseline/README.md says otherwise of {wrong}"
    return {step for step, _, _ in calls}


def states(old: Baseline, instance: int) -> list[tuple[str, State]]:
    return [(row["name"], State(row["state"])) for row in old.tasks(instance)]


@pytest.mark.parametrize("mode", ["queue", "tcp"])
def test_workflows_end_as_they_should_and_each_step_costs_what_is_documented(make: Make, mode: str) -> None:
    old = make(mode)
    old.start_all(masters=1, workers=2)
    done = old.run([task("a", "true"), task("b", "true", "a"), task("c", "false", "b", retries=1), task("d", "", "c")])
    assert State(done["state"]) is State.FAILURE
    bad = [("c", State.FAILURE)] * 2
    assert states(old, done["id"]) == [("a", State.SUCCESS), ("b", State.SUCCESS), *bad], "d needs c"
    assert State(old.run([task("a", "true")])["state"]) is State.SUCCESS
    stop_a_running_workflow(old)
    old.until(lambda: any(step == "heartbeat" for step, _, _ in old.calls()))
    assert check_calls(old, mode) == set(documented(mode)) - RARE


def stop_a_running_workflow(old: Baseline) -> None:
    definition = old.define([task("long", "echo started; sleep 60"), task("after", "true", "long")])
    old.submit(definition)
    old.until(lambda: any("started" in log.read_text() for log in old.folder.glob("tasks/*/task.log")))
    old.until(lambda: runs_somewhere(old, definition))
    old.stop_workflow(old.instances(definition)[0]["id"])
    done = old.ended(definition)[0]
    assert State(done["state"]) is State.STOP
    assert states(old, done["id"]) == [("long", State.KILL)]


def runs_somewhere(old: Baseline, definition: int) -> bool:
    """Whether a task of the first workflow runs by what the database knows: host and, in 1.2.0, process."""
    rows = [row for instance in old.instances(definition)[:1] for row in old.tasks(instance["id"])]
    return any(row["state"] == State.RUNNING and (row["pid"] or ":" in row["host"]) for row in rows)


@pytest.mark.parametrize("mode", ["queue", "tcp"])
def test_what_a_killed_worker_and_a_killed_master_had_is_done_by_others(make: Make, mode: str) -> None:
    old = make(mode, session_seconds=3.0)
    old.start_all(masters=2, workers=2)
    gate = old.folder / "gate"
    gated = f"until [ -e {gate} ]; do sleep 0.05; done"
    definition = old.define([task("gated", gated), task("after", "true", "gated")])
    old.submit(definition)
    old.until(lambda: runs_somewhere(old, definition))
    instance = old.instances(definition)[0]
    first = old.tasks(instance["id"])[0]
    old.kill(old.at(first["host"]))
    old.until(lambda: len(old.tasks(instance["id"])) == 2 and runs_somewhere(old, definition))
    old.kill(old.at(instance["host"]))
    old.until(lambda: any(step == "resubmit" for step, _, _ in old.calls()))
    gate.touch()
    done = old.ended(definition)[0]
    assert State(done["state"]) is State.SUCCESS, old.story()
    lost, again, _ = old.tasks(instance["id"])
    assert State(lost["state"]) is State.NEED_FAULT_TOLERANCE
    assert old.at(again["host"]) != old.at(lost["host"])
    assert states(old, instance["id"])[1:] == [("gated", State.SUCCESS), ("after", State.SUCCESS)]
    assert {"worker failover", "master failover", "workflow failover"} <= check_calls(old, mode)


def test_a_worker_takes_what_comes_first_and_may_run_on_it() -> None:
    late, early = node_name(2, 10, 2, 100, []), node_name(2, 9, 2, 99, ["127.0.0.2", "127.0.0.3"])
    urgent, elsewhere = node_name(0, 11, 2, 101, ["127.0.0.2"]), node_name(2, 1, 2, 1, ["127.0.0.30"])
    mine = [name for name in (late, elsewhere, early, urgent) if may_take(name, str(as_number("127.0.0.2")))]
    assert sorted(mine, key=sort_key) == [urgent, early, late], "by number: 9 before 10"
    assert [task_of(name) for name in mine] == [100, 99, 101]


@pytest.mark.parametrize("keep_race", [True, False], ids=["as_shipped", "mended"])
def test_a_node_that_comes_before_its_row(make: Make, keep_race: bool, zookeeper_server: ZooKeeperServer) -> None:
    """1.2.0 drops it, if it is not the first of the worker's life; the mended worker waits for the row."""
    old = make("queue", keep_race=keep_race)
    old.start_all(masters=1, workers=1)
    instance = old.run([task("first", "true")])["id"]
    client = zookeeper_server.client()
    try:
        number = old.tasks(instance)[0]["id"] + 1
        node = f"/{old.folder.name}/dolphinscheduler/tasks_queue/2_{instance}_2_{number}_-1"
        client.create(node)
        if keep_race:
            old.until(lambda: client.exists(node) is None)
            assert f"task {number} is null" in old.story()
        else:
            insert_like(old, instance, number)
            old.until(lambda: old.tasks(instance)[-1]["state"] == State.SUCCESS)
            assert f"task {number} is null" not in old.story()
    finally:
        client.stop()
        client.close()


def insert_like(old: Baseline, instance: int, number: int) -> None:
    """A row such as the first one was when it was submitted."""
    columns = "name, process_definition_id, process_instance_id, task_json"
    source = f"SELECT $2, {columns}, $3::int FROM task_instance WHERE process_instance_id = $1"
    old.database.execute(
        f"INSERT INTO task_instance (id, {columns}, state) {source}", instance, number, State.SUBMITTED
    )
