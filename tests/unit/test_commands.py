"""The commands as a whole: numbered, documented, and said only by those who may."""

from __future__ import annotations

import typing

import msgspec
import pytest

from dsfast.wire import commands
from dsfast.wire.codec import COMMANDS
from dsfast.wire.flows import FLOWS, allowed, flow
from tests.unit.wire_table import DOLPHINSCHEDULER, PAGE, current

ROLES = ("master", "worker", "api")


def names(kinds: typing.Iterable[int]) -> set[str]:
    return {COMMANDS[kind].__name__ for kind in kinds}


def test_the_page_shows_the_commands_as_they_are() -> None:
    page = PAGE.read_text()
    assert page == current(page), "run: python -m tests.unit.wire_table"


def test_the_seven_commands_of_dolphinscheduler_are_all_there() -> None:
    seven = {
        "TASK_EXECUTE_REQUEST": commands.Execute,
        "TASK_EXECUTE_ACK": commands.Started,
        "TASK_EXECUTE_RESPONSE": commands.Result,
        "DB_TASK_ACK": commands.StartedAck,
        "DB_TASK_RESPONSE": commands.ResultAck,
        "TASK_KILL_REQUEST": commands.Kill,
        "TASK_KILL_RESPONSE": commands.KillAnswer,
    }
    assert {DOLPHINSCHEDULER[cls.__name__]: cls for cls in seven.values()} == seven
    assert set(DOLPHINSCHEDULER) <= names(COMMANDS)


@pytest.mark.parametrize("kind", COMMANDS)
def test_every_command_belongs_to_a_flow_and_says_what_it_means(kind: int) -> None:
    cls = COMMANDS[kind]
    assert flow(kind) in FLOWS
    assert cls.__doc__
    assert cls.__doc__.rstrip().endswith((".", "?"))


@pytest.mark.parametrize("cls", COMMANDS.values(), ids=lambda cls: cls.__name__)
def test_fields_without_a_default_come_first_and_bodies_are_arrays(cls: type[commands.Command]) -> None:
    """A field with a default may be missing at the end, so none without may follow it."""
    required = [field.required for field in msgspec.structs.fields(cls)]
    assert required == sorted(required, reverse=True)
    assert cls.__struct_config__.array_like
    assert cls.__struct_config__.frozen


@pytest.mark.parametrize(
    "name", ["Execute", "StartedAck", "ResultAck", "Kill", "Started", "Result", "KillAnswer", "Refused"]
)
def test_commands_about_an_attempt_begin_with_its_key(name: str) -> None:
    cls = getattr(commands, name)
    assert [field.name for field in msgspec.structs.fields(cls)][:3] == ["run_id", "task", "attempt"]


def test_only_a_master_tells_a_worker_to_run_or_end_anything() -> None:
    does = {"Execute", "Kill", "Adopt", "StartedAck", "ResultAck", "Demand", "Disown"}
    assert does <= names(allowed("master", "worker"))
    for sender in ROLES:
        for receiver in ROLES:
            if (sender, receiver) != ("master", "worker"):
                assert not does & names(allowed(sender, receiver))


def test_only_a_worker_tells_a_master_what_has_become_of_an_attempt() -> None:
    does = {"Started", "Result", "Holding", "Refused", "KillAnswer", "Credit", "Draining", "Deposed", "Recheck"}
    assert does <= names(allowed("worker", "master"))
    for sender in ROLES:
        for receiver in ROLES:
            if (sender, receiver) != ("worker", "master"):
                assert not does & names(allowed(sender, receiver))


def test_a_client_asks_masters_about_runs_and_workers_about_logs() -> None:
    assert names(allowed("api", "master")) == {"Submit", "SubmitBatch", "Cancel", "Explain", "Bury", "Watch"}
    assert names(allowed("api", "worker")) == {"LogRead"}


def test_masters_ask_one_another_what_nobody_else_asks() -> None:
    assert names(allowed("master", "master")) >= {"Probe", "Reached", "Submit", "Submitted"}
    for sender in ROLES:
        for receiver in ROLES:
            if (sender, receiver) != ("master", "master"):
                assert not {"Probe", "Reached"} & names(allowed(sender, receiver))


def test_a_worker_asks_nobody_for_anything() -> None:
    questions = {"Submit", "SubmitBatch", "Cancel", "Explain", "LogRead"}
    for receiver in ROLES:
        assert not questions & names(allowed("worker", receiver))


def test_handshake_and_heartbeat_are_nobodys_commands() -> None:
    link = {kind for kind in COMMANDS if flow(kind) == "link"}
    assert not any(link & allowed(sender, receiver) for sender in ROLES for receiver in ROLES)


def test_roles_that_do_not_exist_may_say_nothing() -> None:
    assert allowed("admin", "worker") == frozenset()
    assert allowed("worker", "worker") == frozenset()


def test_a_kind_outside_of_all_flows_is_a_bug_that_is_found_at_once() -> None:
    with pytest.raises(AssertionError, match="kind 70 belongs to no flow"):
        flow(70)


def test_every_command_is_said_by_somebody() -> None:
    said = set().union(*[allowed(sender, receiver) for sender in ROLES for receiver in ROLES])
    assert names(said) == {COMMANDS[kind].__name__ for kind in COMMANDS if flow(kind) != "link"}
