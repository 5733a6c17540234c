"""The HTTP API over a real cluster: master, worker and api as processes, SQLite, links."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from dsfast.api.app import build_app
from dsfast.api.guard import BODY_BYTES_MAX
from dsfast.api.openapi import document
from dsfast.api.operations import API, OPERATIONS
from dsfast.client import Client, RunOrder
from dsfast.config import load_config
from dsfast.engine.credit import PREFETCH_MAX
from dsfast.errors import NotFound, Unavailable, UsageError
from dsfast.ids import run_number
from dsfast.model import RunState, Workflow, canonical
from dsfast.rows import RunRow
from dsfast.runtime.api import Gateway
from dsfast.views import RunView
from dsfast.wire.commands import Submit
from tests.integration.local_cluster import SLOTS, LocalCluster, local_cluster

QUICK = """
name: quick
params: {day: monday}
tasks:
  a: {type: shell, script: 'echo "it is $DSFAST_PARAM_DAY"; echo second line'}
  b: {type: noop, needs: [a]}
"""
NOOP = "name: nothing\ntasks:\n  only: {type: noop}\n"
SLOW_TASKS = SLOTS + PREFETCH_MAX + 10  # some stay in the queue, however fast tasks were before
SLOW = "name: slow\ntasks:\n" + "".join(f"  t{n}: {{type: sleep, seconds: 60}}\n" for n in range(SLOW_TASKS))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with local_cluster(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with cluster.client() as connected:
        yield connected


def ended(client: Client, run: RunView) -> RunView:
    view = client.wait(run.id, 30)
    assert view is not None, f"run {run.id} did not end"
    return client.run(run.id)


def ask(
    cluster: LocalCluster, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], Any]:
    """One request without the client: status, headers, decoded body."""
    connection = http.client.HTTPConnection(str(urlsplit(cluster.url).netloc), timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body, {"Authorization": f"Bearer {cluster.token}"} | named)
        answer = connection.getresponse()
        data = answer.read()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, found, json.loads(data) if "json" in found.get("content-type", "") else data
    finally:
        connection.close()


def test_a_submitted_run_is_durable_and_runs_to_its_end(cluster: LocalCluster, client: Client) -> None:
    status, headers, run = ask(
        cluster, "POST", f"{API}/runs?source=quick.yaml", QUICK.encode(), Content_Type="application/yaml"
    )
    assert status == 201
    assert headers["location"] == f"{API}/runs/{run['id']}"
    assert "tasks" not in run
    assert run["tasks_total"] == 2
    view = client.wait(run["id"], 30)
    assert view is not None
    assert (view.state, view.counts) == ("succeeded", {"succeeded": 2})
    tasks = client.run(run["id"]).tasks
    assert isinstance(tasks, list)
    assert [(task.name, task.type, task.state, task.attempts) for task in tasks] == [
        ("a", "shell", "succeeded", 1),
        ("b", "noop", "succeeded", 1),
    ]
    assert tasks[0].exit_code == 0
    assert [task.name for task in client.tasks(run["id"])] == ["a", "b"]
    history = client.task(run["id"], "a")
    assert [attempt.state for attempt in history.history] == ["succeeded"]


URGENT = """
name: urgent
priority: high
params:
  day: {type: date, default: 2026-11-20}
tasks:
  a: {type: noop}
"""


@pytest.mark.parametrize("priority", [None, "lowest"])
def test_a_submit_is_answered_with_what_was_written(client: Client, priority: str | None) -> None:
    """The api does not read it back, so both must say the same."""
    answer = client.submit_yaml(URGENT, {"day": "2026-11-29"}, priority=priority)
    assert (answer.state, answer.counts, answer.started_at) == ("submitted", {"waiting": 1}, None)
    read = client.wait(answer.id, 30)
    assert read is not None
    for name in ("id", "workflow", "priority", "params", "created_at", "tasks_total"):
        assert getattr(answer, name) == getattr(read, name), name
    assert answer.priority == (priority or "high")


def test_a_repeated_submit_is_answered_with_how_the_run_is_now(client: Client) -> None:
    first = client.submit_yaml(NOOP, idempotency_key="now")
    assert client.wait(first.id, 30)
    assert client.submit_yaml(NOOP, idempotency_key="now").state == "succeeded"


def test_the_same_idempotency_key_starts_one_run(cluster: LocalCluster, client: Client) -> None:
    body = json.dumps({"workflow": NOOP}).encode()
    headers = {"Idempotency_Key": "once", "Content_Type": "application/json"}
    first, _, run = ask(cluster, "POST", f"{API}/runs", body, **headers)
    second, _, again = ask(cluster, "POST", f"{API}/runs", body, **headers)
    assert (first, second) == (201, 200)
    assert run["id"] == again["id"]
    assert client.submit_yaml(NOOP).id != run["id"]


def test_a_batch_starts_what_it_can_and_says_of_the_rest_why_not(client: Client) -> None:
    orders = [
        RunOrder(params={"day": "friday"}),
        RunOrder(params={"dya": "friday"}),
        RunOrder(workflow="name: x\ntasks:\n  a: {type: nop}\n", source="my.yaml"),
        RunOrder(workflow=NOOP, idempotency_key="batched"),
        RunOrder(priority="huge"),
        RunOrder(workflow=NOOP, idempotency_key="batched"),
    ]
    quick, param, wrong, noop, priority, again = client.submit_batch(orders, QUICK)
    assert quick.id is not None
    assert noop.id is not None
    view = ended(client, client.run(quick.id))
    assert (view.workflow, view.state, view.params) == ("quick", "succeeded", msgspec.Raw(b'{"day":"friday"}'))
    assert ended(client, client.run(noop.id)).workflow == "nothing"
    assert (again.id, noop.repeated, again.repeated) == (noop.id, False, True)
    for entry, says in ((param, "dya"), (wrong, "my.yaml:3"), (priority, "priority")):
        assert entry.id is None
        assert entry.error is not None
        assert says in entry.error.message
    assert wrong.error is not None
    assert wrong.error.problems[0].line == 3


def test_the_same_keys_again_start_nothing_new(client: Client) -> None:
    orders = [RunOrder(idempotency_key=f"twice-{number}") for number in range(3)]
    first, second = client.submit_batch(orders, NOOP), client.submit_batch(orders, NOOP)
    assert [entry.id for entry in first] == [entry.id for entry in second]
    assert [entry.repeated for entry in first + second] == [False] * 3 + [True] * 3


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "body"),
        (b'{"workflow": {}}', "runs"),
        (b'{"runs": []}', "runs"),
        (b'{"runs": [' + b"{}," * 1000 + b"{}]}", "1000"),
        (b'{"rusn": [{}]}', "rusn"),
        (b"[" * 100_000, "body"),
    ],
)
def test_a_malformed_batch_starts_nothing(cluster: LocalCluster, body: bytes, says: str) -> None:
    status, _, answer = ask(cluster, "POST", f"{API}/runs/batch", body, Content_Type="application/json")
    assert (status, answer["error"]["code"]) == (400, "usage")
    assert says in answer["error"]["message"]


def test_a_batch_has_no_key_of_its_own(cluster: LocalCluster) -> None:
    body = json.dumps({"runs": [{"workflow": NOOP}]}).encode()
    headers = {"Idempotency_Key": "whole", "Content_Type": "application/json"}
    status, _, answer = ask(cluster, "POST", f"{API}/runs/batch", body, **headers)
    assert status == 400
    assert "idempotency_key" in answer["error"]["message"]


def test_every_mistake_of_a_workflow_is_answered_with_its_line(client: Client) -> None:
    with pytest.raises(UsageError) as caught:
        client.submit_yaml("name: x\ntasks:\n  a: {type: noop, neds: [b]}\n  b: {type: nop}\n", source="my.yaml")
    problems = caught.value.problems
    assert {(problem.file, problem.line) for problem in problems} == {("my.yaml", 3), ("my.yaml", 4)}


def test_an_unknown_parameter_is_refused(client: Client) -> None:
    with pytest.raises(UsageError, match="dya"):
        client.submit_yaml(QUICK, {"dya": "friday"})


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "body"),
        (b'{"workflow": {"name": "x"}}', "tasks"),
        (b'{"workflow": 7}', "workflow"),
        (b'{"wrokflow": {}}', "wrokflow"),
        (b"[" * 100_000, "body"),
        (b'{"workflow": "name: x", "priority": "huge"}', "priority"),
        (b"\xff", "body"),
    ],
)
def test_a_malformed_submission_is_the_clients_fault(cluster: LocalCluster, body: bytes, says: str) -> None:
    status, _, answer = ask(cluster, "POST", f"{API}/runs", body, Content_Type="application/json")
    assert status == 400
    assert answer["error"]["code"] == "usage"
    assert says in answer["error"]["message"]


def test_runs_are_listed_newest_first_and_paged(client: Client) -> None:
    made = [client.submit_yaml("name: paged\ntasks:\n  only: {type: noop}\n").id for _ in range(5)]
    for run in made:
        assert client.wait(run, 30) is not None
    listed: list[str] = []
    before: str | None = None
    while before is not None or not listed:
        page = client.runs(workflow="paged", states=["succeeded"], limit=2, before=before)
        listed += [run.id for run in page.runs]
        before = page.next
    assert listed == made[::-1]
    assert client.runs(workflow="paged", states=["failed"]).runs == []


def test_a_run_is_found_by_the_beginning_of_its_id_and_as_the_last(client: Client) -> None:
    run = client.submit_yaml(NOOP)
    assert client.run("last").id == run.id
    assert client.run(run.id[:-1]).id == run.id
    with pytest.raises(UsageError, match="beginning of several runs"):
        client.run(run.id[:4])
    with pytest.raises(NotFound):
        client.run("0" * 13)
    with pytest.raises(NotFound):
        client.run("00000")
    with pytest.raises(UsageError):
        client.run("not-a-run")


def test_a_task_that_waits_says_what_for_and_a_cancel_ends_it_all(client: Client) -> None:
    run = client.submit_yaml(SLOW)
    for view in client.changes(run.id):
        if view.counts.get("running") == SLOTS:
            break
    assert isinstance(view.tasks, list)
    queued = [task for task in view.tasks if task.state == "queued"]
    assert queued
    assert f"{SLOTS} slots" in queued[0].reason
    answer = client.cancel(run.id, "enough")
    assert answer.changed
    last = ended(client, run)
    assert last.state == "cancelled"
    assert last.counts["killed"] >= SLOTS
    assert last.counts["killed"] + last.counts["skipped"] == SLOW_TASKS
    assert last.reason == "enough"
    assert not client.cancel(run.id).changed


def test_the_end_of_a_run_is_told_and_not_looked_for(cluster: LocalCluster, client: Client, tmp_path: Path) -> None:
    """Nobody looks here: without a word from its master this would wait for an hour."""
    flag = tmp_path / "flag"
    script = f"until [ -e {flag} ]; do sleep 0.01; done"
    run = client.submit_yaml(f"name: held\ntasks:\n  a: {{type: shell, script: '{script}'}}\n")

    async def watch() -> RunRow:
        async with Gateway(load_config(flags={}, environ=cluster.environ)) as gateway:
            number = run_number(run.id)
            told = asyncio.ensure_future(gateway.ended(await gateway.run(number), 3600))
            await gateway.submit(Submit(canonical(Workflow(name="later", tasks=()))))  # the watch is registered by now
            assert not told.done()
            flag.touch()
            assert await asyncio.wait_for(told, 30)
            return await gateway.run(number)

    assert asyncio.run(watch()).state is RunState.SUCCEEDED


def test_waiting_ends_when_time_is_up(cluster: LocalCluster, client: Client) -> None:
    run = client.submit_yaml(SLOW)
    assert client.wait(run.id, 0.2) is None
    _, headers, _ = ask(cluster, "GET", f"{API}/runs/{run.id}")
    client.cancel(run.id)
    ended(client, run)
    status, _, _ = ask(cluster, "GET", f"{API}/runs/{run.id}?wait=30", If_None_Match=headers["etag"])
    assert status == 200
    _, headers, _ = ask(cluster, "GET", f"{API}/runs/{run.id}")
    status, _, _ = ask(cluster, "GET", f"{API}/runs/{run.id}", If_None_Match=headers["etag"])
    assert status == 304


def test_logs_are_read_by_offset(client: Client) -> None:
    run = ended(client, client.submit_yaml(QUICK, {"day": "friday"}))
    whole = b"it is friday\nsecond line\n"
    part = client.log(run.id, "a")
    assert (part.data, part.offset, part.size, part.ended, part.attempt) == (whole, 0, len(whole), True, 1)
    assert client.log(run.id, "a", offset=6, limit=6).data == b"friday"
    assert client.log(run.id, "a", offset=-5).data == b"line\n"
    assert client.log(run.id, "a", offset=1000).data == b""
    with pytest.raises(NotFound, match="no attempt 7"):
        client.log(run.id, "a", attempt=7)
    with pytest.raises(NotFound, match="no task 'nobody'"):
        client.log(run.id, "nobody")
    for path in ("../../api.token", "..", "%2e%2e", "a\0"):
        with pytest.raises(NotFound):
            client.log(run.id, path)


def test_a_log_is_followed_until_its_attempt_has_ended(cluster: LocalCluster, client: Client) -> None:
    gate = cluster.folder / "gate"
    os.mkfifo(gate)
    run = client.submit_yaml(
        f"name: chatty\ntasks:\n  a: {{type: shell, script: 'echo first; read line < {gate}; echo $line'}}\n"
    )
    for view in client.changes(run.id):
        if view.counts.get("running"):
            break
    parts = client.follow_log(run.id, "a")
    assert next(parts) == b"first\n"
    gate.write_text("second\n")
    assert b"".join(parts) == b"second\n"


def test_who_is_alive(client: Client) -> None:
    (worker,), (master,) = client.workers(), client.masters()
    assert (worker.slots, worker.groups, worker.role) == (SLOTS, ["default"], "worker")
    assert master.role == "master"
    assert worker.load is not None


# -- who may ask, and how ------------------------------------------------------------------------------------


def concrete(path: str) -> str:
    return path.replace("{run}", "last").replace("{task}", "a")


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: f"{each.method} {each.path}")
def test_only_health_is_told_to_those_without_the_token(cluster: LocalCluster, operation: Any) -> None:
    token = cluster.token
    for given in (
        "",
        "Bearer",
        "Bearer ",
        "Bearer nothing",
        token,
        f"bearer {token}",
        f"Bearer  {token}",
        f"Basic {token}",
    ):
        status, headers, _ = ask(cluster, operation.method, concrete(operation.path), Authorization=given)
        assert (status == 401) is not operation.open, given
        assert headers["x-content-type-options"] == "nosniff"


def test_a_token_that_is_there_twice_is_not_a_token(cluster: LocalCluster) -> None:
    connection = http.client.HTTPConnection(str(urlsplit(cluster.url).netloc), timeout=30)
    connection.putrequest("GET", f"{API}/runs")
    for token in (cluster.token, "other"):
        connection.putheader("Authorization", f"Bearer {token}")
    connection.endheaders()
    assert connection.getresponse().status == 401
    connection.close()


def test_unknown_paths_are_not_told_to_strangers_either(cluster: LocalCluster) -> None:
    assert ask(cluster, "GET", "/nowhere", Authorization="")[0] == 401
    status, _, answer = ask(cluster, "GET", "/nowhere")
    assert (status, answer["error"]["code"]) == (404, "not_found")
    assert ask(cluster, "DELETE", f"{API}/runs", Content_Type="application/json")[0] == 405


def test_a_page_that_rebinds_its_name_to_loopback_gets_nothing(cluster: LocalCluster) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", ""):
        assert ask(cluster, "GET", "/healthz", Host=host)[0] == 421, host
    for host in ("localhost", "127.0.0.1:1", "[::1]:80", "LOCALHOST"):
        assert ask(cluster, "GET", "/healthz", Host=host)[0] == 200, host


def test_pages_of_other_sites_get_nothing_even_with_the_token(cluster: LocalCluster) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}):
        status, found, _ = ask(cluster, "GET", f"{API}/runs", **headers)
        assert status == 403
        assert "access-control-allow-origin" not in found
    assert ask(cluster, "GET", f"{API}/runs", Origin=cluster.url)[0] == 200


def test_what_a_form_could_send_changes_nothing(cluster: LocalCluster) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        assert ask(cluster, "POST", f"{API}/runs", b"{}", Content_Type=kind)[0] == 415


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(cluster: LocalCluster) -> None:
    connection = http.client.HTTPConnection(str(urlsplit(cluster.url).netloc), timeout=30)
    for length in (str(BODY_BYTES_MAX + 1), "9" * 30):
        connection.putrequest("POST", f"{API}/runs")
        connection.putheader("Content-Length", length)
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status in (400, 413)  # httptools refuses lengths beyond 64 bits by itself
        connection.close()


def test_a_body_without_a_length_is_cut_off(cluster: LocalCluster) -> None:
    connection = http.client.HTTPConnection(str(urlsplit(cluster.url).netloc), timeout=60)
    connection.putrequest("POST", f"{API}/runs")
    for name, value in (
        ("Transfer-Encoding", "chunked"),
        ("Authorization", f"Bearer {cluster.token}"),
        ("Content-Type", "application/json"),
    ):
        connection.putheader(name, value)
    connection.endheaders()
    chunk = b"%x\r\n%s\r\n" % (1 << 20, b" " * (1 << 20))
    sender = threading.Thread(target=send_until_refused, args=(connection, chunk), daemon=True)
    sender.start()
    assert connection.getresponse().status == 413
    connection.close()
    sender.join(30)
    assert not sender.is_alive()


def send_until_refused(connection: http.client.HTTPConnection, chunk: bytes) -> None:
    try:
        for _ in range((BODY_BYTES_MAX >> 20) + 64):
            connection.send(chunk)
    except OSError:
        return


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=501", "limit=many", "state=weird", "limt=3", "limit=1&limit=2", "before=zz"]
)
def test_a_wrong_query_is_named(cluster: LocalCluster, query: str) -> None:
    status, _, answer = ask(cluster, "GET", f"{API}/runs?{query}")
    assert status == 400
    assert answer["error"]["problems"]


# -- its description -----------------------------------------------------------------------------------------


def test_openapi_describes_every_route_and_no_other(cluster: LocalCluster) -> None:
    status, _, served = ask(cluster, "GET", f"{API}/openapi.json")
    assert status == 200
    assert served == json.loads(json.dumps(document()))
    described = {(method.upper(), path) for path, methods in served["paths"].items() for method in methods}
    guard = build_app(None, tokens=["x" * 43], hosts=None)  # type: ignore[arg-type]
    routes = {
        (method, route.path)
        for route in guard._app.routes  # type: ignore[attr-defined]
        for method in route.methods - {"HEAD"}
    }
    assert routes == described | {("GET", f"{API}/openapi.json")}


def test_every_reference_in_openapi_leads_somewhere() -> None:
    text = json.dumps(document())
    names = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= document()["components"]["schemas"].keys()
    assert {"RunView", "TaskView", "ErrorView", "Submission"} <= names


def test_the_page_of_the_api_names_every_operation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    for operation in OPERATIONS:
        assert f"`{operation.method} {operation.path}`" in page
    assert f"`GET {API}/openapi.json`" in page


# -- when parts are missing (last, since it disturbs the cluster) -----------------------------------------------


def test_runs_are_shown_while_the_master_is_gone_and_go_on_with_the_next_one(
    cluster: LocalCluster, client: Client
) -> None:
    run = client.submit_yaml(SLOW)
    for view in client.changes(run.id):
        if view.counts.get("running") == SLOTS:
            break
    os.kill(cluster.children()["master"], signal.SIGKILL)
    assert client.run(run.id).state == "running"
    assert client.cancel(run.id).changed  # waits until the next master owns the run
    assert ended(client, run).state == "cancelled"
    assert "the master was killed by SIGKILL; it is started again" in cluster.log
    assert ended(client, client.submit_yaml(NOOP)).state == "succeeded"


def test_a_client_without_an_api_gets_a_sentence(cluster: LocalCluster) -> None:
    with Client("http://127.0.0.1:1", "token") as nobody, pytest.raises(Unavailable, match="dsfast up"):
        nobody.run("last")


def test_the_api_says_that_it_is_ready_or_what_is_missing(cluster: LocalCluster) -> None:
    status, _, answer = ask(cluster, "GET", "/readyz", Authorization="")
    assert (status, answer) == (200, {"ready": True, "missing": []})


def test_ctrl_c_stops_everything(cluster: LocalCluster) -> None:
    children = cluster.children()
    assert set(children) == {"master", "worker", "api"}
    assert cluster.stop() == 0
    for pid in children.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
