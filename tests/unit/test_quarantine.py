"""Commands that end masters: how they are known again, and what becomes of them on arrival."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NoReturn, TypeVar, cast

import pytest

from dsfast.engine import events as ev
from dsfast.engine.master import COMMANDS
from dsfast.model import canonical
from dsfast.runtime import quarantine
from dsfast.runtime.quarantine import Quarantine, mark_of
from dsfast.wire import commands as cmd
from tests.engine_kit import CLIENT, Desk, flow, task, worker

T = TypeVar("T")
W = worker("w")
SUBMIT = cmd.Submit(b"{}", b"{}", "a-key")


def said(command: cmd.Command, peer: str = "w@1", request_id: int = 0) -> ev.Received:
    return ev.Received(peer, request_id, command)


def test_a_mark_is_a_negative_number_that_every_database_has() -> None:
    marks = [mark_of(said(cmd.Credit(limit))) for limit in range(1000)]
    assert len(set(marks)) == 1000
    assert all(-(2**63) < mark < 0 for mark in marks)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (said(SUBMIT, "api-1@1", 4), said(cmd.Submit(b"{}", b"{}", "another"), "api-2@2", 6)),
        (said(cmd.Holding((7,), (), 3)), said(cmd.Holding((7,), (), 4), "w@2")),
        (said(cmd.Recheck((7,), 1.0)), said(cmd.Recheck((7,), 2.0))),
    ],
)
def test_what_is_said_once_more_has_the_same_mark(one: ev.Received, other: ev.Received) -> None:
    assert mark_of(one) == mark_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (said(SUBMIT, request_id=1), said(cmd.Submit(b"{}", b'{"a": 1}', "a-key"), request_id=1)),
        (said(cmd.Draining()), said(cmd.Draining(), "x@1")),
        (said(cmd.Credit(1)), said(cmd.Demand(True))),
    ],
)
def test_what_others_say_and_what_is_said_otherwise_has_another_mark(one: ev.Received, other: ev.Received) -> None:
    assert mark_of(one) != mark_of(other)


def test_another_release_may_not_have_the_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = mark_of(said(SUBMIT))
    monkeypatch.setattr(quarantine, "__version__", "0.0.0+fixed")
    assert mark_of(said(SUBMIT)) != mark


def test_what_is_quarantined_is_turned_away_and_the_rest_goes_on() -> None:
    poison, credit = said(SUBMIT, "api@1", 5), said(cmd.Credit(3))
    harmless = [said(cmd.Submit(b"{1}"), "api@1", 7), said(cmd.Credit(4)), ev.Tick()]
    held, answers = Quarantine(logging.getLogger("test")), list[tuple[str, int, cmd.Command]]()
    assert not held
    held.learn({7: "a run", mark_of(poison): "KeyError: 7", mark_of(credit): "KeyError: 8"})
    assert held
    admitted = held.admit([harmless[0], poison, credit, *harmless[1:]], lambda *answer: answers.append(answer))
    assert admitted == harmless
    ((peer, request_id, answer),) = answers
    failed = cast(cmd.Failed, answer)
    assert (peer, request_id, failed.code) == ("api@1", 5, "usage")
    assert "ended over this very Submit, the last one with: KeyError: 7" in failed.message


def test_runs_are_no_business_of_it() -> None:
    held = Quarantine(logging.getLogger("test"))
    held.learn({7: "a run"})
    assert not held


# -- what a step that fails was about --------------------------------------------------------------------------------


def test_a_command_over_which_a_step_fails_is_told_if_it_is_about_no_run_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk(W)
    run_id = desk.start(flow(task("t")))
    monkeypatch.setitem(COMMANDS, cmd.Credit, broken)
    monkeypatch.setitem(COMMANDS, cmd.Cancel, broken)
    credit, ours, foreign = (desk.said("w", each) for each in (cmd.Credit(3), cmd.Cancel(run_id), cmd.Cancel(7)))
    for event, concerned in ((credit, credit), (ours, run_id), (foreign, foreign)):
        with pytest.raises(KeyError):
            desk.step(event)
        assert desk.engine.concerning == concerned


@pytest.mark.parametrize("part", ["compile_body", "Dispatcher.assignments"])
def test_a_new_run_over_which_a_step_fails_is_told_by_its_submit(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """No other master will ever see that run; it will see the submit."""
    desk, workflow = Desk(W), flow(task("t"), task("u"))
    bug = broken if part == "compile_body" else broken_after_one(desk.core.dispatcher.assignments)
    monkeypatch.setattr(f"dsfast.engine.core.{part}", bug)
    with pytest.raises(KeyError):
        desk.submit(workflow)
    assert desk.engine.concerning == ev.Received(CLIENT, 5, cmd.Submit(canonical(workflow)))


def test_what_falls_due_is_nobodys_command() -> None:
    desk = Desk(W)
    desk.core.deadlines.set(("open", 1, 1), desk.now)
    with pytest.raises(KeyError):
        desk.step(desk.said("w", cmd.Credit(3)), after=1.0)
    assert desk.engine.concerning == 1


def broken(*_: object) -> NoReturn:
    raise KeyError("a bug")


def broken_after_one(honest: Callable[[], Iterator[T]]) -> Callable[[object], Iterator[T]]:
    def assignments(_: object) -> Iterator[T]:
        yield from islice(honest(), 1)
        broken()

    return assignments
