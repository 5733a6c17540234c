"""What every store promises: each sentence of `dsfast/store/base.py`, on SQLite, PostgreSQL and MySQL (MariaDB)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dsfast.model import AttemptState, Priority, RunState
from dsfast.rows import Committed, DefinitionRow
from dsfast.store import open_store
from dsfast.store.base import Store
from tests.servers.mysql import MySqlServer
from tests.servers.postgres import PostgresServer
from tests.store_rows import DEFINITION, DIGEST, ME, OTHER, TABLES, attempt, batch, dump, ended, run, submit

NOBODY: frozenset[str] = frozenset()


def every_run(_: int) -> bool:
    return True


@pytest.fixture(scope="module")
def postgres_module_url(postgres_server: PostgresServer) -> str:
    return postgres_server.new_migrated_database()


@pytest.fixture(scope="module")
def mysql_module_url(mysql_server: MySqlServer) -> str:
    return mysql_server.new_migrated_database()


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database; on a server one is emptied for each test, which is ten times faster than making one."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/runs.db"
    if request.param == "mysql":
        return emptied_mysql(request.getfixturevalue("mysql_server"), request.getfixturevalue("mysql_module_url"))
    shared: str = request.getfixturevalue("postgres_module_url")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    server.sql("; ".join(f"DELETE FROM {table}" for table in TABLES), shared)
    return shared


def emptied_mysql(server: MySqlServer, url: str) -> str:
    for table in TABLES:
        server.sql(f"DELETE FROM {table}", url)
    return url


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    store = open_store(url, create=True)
    await store.open()
    yield store
    await store.close()


# --- commit ---------------------------------------------------------------------------------------------------------


async def test_a_commit_is_seen_by_everyone_who_reads(store: Store, url: str) -> None:
    await submit(store, run(1), attempts=(attempt(1),))
    reader = open_store(url, exclusive=False)
    await reader.open()
    assert await reader.run(1) == run(1)
    assert await reader.attempts(1) == [attempt(1)]
    assert await reader.definition(DIGEST) == DEFINITION.body
    await reader.close()


async def test_every_field_comes_back(store: Store) -> None:
    full_run = run(
        2**62 + 5,
        workflow="nächtlich ✓",
        state=RunState.READY_STOP,
        epoch=2**40,
        priority=Priority.LOWEST,
        params=b'{"a":"\xc3\xa9"}',
        idempotency_key="order 17",
        started_at=1_700_000_000.123456,
        ended_at=1_700_000_001.0,
        reason="cancelled by Zoë",
        tasks=1_000_000,
    )
    full_attempt = attempt(
        full_run.id,
        task=999_999,
        number=7,
        state=AttemptState.KILLED,
        worker=None,
        dispatched_at=None,
        started_at=1.5,
        ended_at=2.5,
        exit_code=2**40,
        reason="signal 9 ✗",
        outputs=b'{"rows":3}',
    )
    await submit(store, full_run, attempts=(full_attempt,))
    assert await store.run(full_run.id) == full_run
    assert await store.attempts(full_run.id) == [full_attempt]


async def test_large_values_come_back(store: Store) -> None:
    megabyte = b'{"v":"' + b"x" * (1 << 20) + b'"}'
    await submit(store, run(1, params=megabyte), attempts=(attempt(1, outputs=megabyte),))
    assert (await store.run(1)).params == megabyte  # type: ignore[union-attr]
    assert (await store.attempts(1))[0].outputs == megabyte


async def test_text_that_databases_cannot_hold_is_replaced(store: Store) -> None:
    await submit(store, run(1, idempotency_key="a\0b"), attempts=(attempt(1, reason="before\0after \udc80"),))
    assert (await store.attempts(1))[0].reason == "before\ufffdafter \ufffd"
    assert await store.find_key("a\0b") == 1


async def test_a_known_definition_is_left_alone_and_versions_count_up_by_name(store: Store, url: str) -> None:
    bodies = [DefinitionRow(f"digest {n}", name, b"%d" % n) for n, name in enumerate(["a", "b", "a", "a"])]
    await store.commit(batch(definitions=(bodies[0], bodies[1], bodies[2])))
    before = await dump(url)
    await store.commit(batch(definitions=(bodies[0], bodies[2])))
    assert await dump(url) == before
    await store.commit(batch(definitions=(bodies[1], bodies[3])))
    found = {row[0]: row[1:4] for row in (await dump(url))["definitions"]}
    assert found == {
        "digest 0": ("a", 1, b"0"),
        "digest 1": ("b", 1, b"1"),
        "digest 2": ("a", 2, b"2"),
        "digest 3": ("a", 3, b"3"),
    }


async def test_attempt_rows_are_replaced_whole(store: Store) -> None:
    await submit(store, run(1), attempts=(attempt(1, outputs=b"{}", reason="x", exit_code=3),))
    later = attempt(1, state=AttemptState.SUCCEEDED, worker=None, ended_at=5.0)
    await store.commit(batch(attempts=(later, attempt(1, task=1))))
    assert await store.attempts(1) == [later, attempt(1, task=1)]


async def test_a_changed_run_keeps_what_was_submitted(store: Store) -> None:
    await submit(store, run(1, idempotency_key="k"))
    later = run(
        1,
        state=RunState.READY_STOP,
        priority=Priority.HIGH,
        started_at=3.0,
        reason="why",
        tasks=9,
        workflow="other",
        digest="other",
        params=b"[]",
        created_at=0.0,
        idempotency_key=None,
    )
    await store.commit(batch(changed=(later,)))
    expected = run(
        1, state=RunState.READY_STOP, priority=Priority.HIGH, started_at=3.0, reason="why", tasks=9, idempotency_key="k"
    )
    assert await store.run(1) == expected


async def test_a_new_run_that_changed_within_the_turn_is_written_as_it_ended(store: Store) -> None:
    committed = await store.commit(batch(new=(run(1),), changed=(ended(1),), attempts=(attempt(1),)))
    assert committed == Committed()
    assert await store.run(1) == ended(1)
    assert await store.attempts(1) == [attempt(1)]


async def test_a_batch_is_copied_before_the_first_await(store: Store) -> None:
    row = attempt(1)
    await submit(store, run(1))
    waiting = store.commit(batch(attempts=(row,)))
    task = asyncio.ensure_future(waiting)
    await asyncio.sleep(0)
    row.state = AttemptState.FAILED
    await task
    assert (await store.attempts(1))[0].state is AttemptState.DISPATCHED


async def test_an_empty_batch_is_nothing(store: Store) -> None:
    assert await store.commit(batch()) == Committed()


async def test_rows_of_a_run_without_an_epoch_are_a_bug(store: Store) -> None:
    bad = batch(attempts=(attempt(1),))
    bad.epochs.clear()
    with pytest.raises(AssertionError, match="without an epoch"):
        await store.commit(bad)


# --- idempotency keys -----------------------------------------------------------------------------------------------


async def test_a_second_submit_under_a_key_is_refused_and_the_rest_applies(store: Store) -> None:
    await submit(store, run(1, idempotency_key="k"))
    committed = await store.commit(
        batch(
            new=(run(2, idempotency_key="k"), run(3, idempotency_key="other"), run(4)),
            attempts=(attempt(1), attempt(2), attempt(3)),
        )
    )
    assert committed == Committed(duplicates={2: 1})
    assert [row.id for row in await store.runs()] == [4, 3, 1]
    assert await store.attempts(2) == []
    assert len(await store.attempts(1)) == len(await store.attempts(3)) == 1


async def test_of_two_new_runs_with_one_key_the_second_is_the_duplicate(store: Store) -> None:
    first, second = run(5, idempotency_key="k"), run(2, idempotency_key="k")
    assert await submit(store, first, second) == Committed(duplicates={2: 5})
    assert await submit(store, run(7, idempotency_key="k"), run(6, idempotency_key="k")) == Committed(
        duplicates={7: 5, 6: 5}
    )
    assert [row.id for row in await store.runs()] == [5]


async def test_a_repeated_new_run_is_known_by_its_id_not_taken_for_a_duplicate(store: Store, url: str) -> None:
    again = batch(
        new=(run(1, idempotency_key="k"), run(2, idempotency_key="k"), run(3)),
        definitions=(DEFINITION,),
        attempts=(attempt(1), attempt(2)),
    )
    first = await store.commit(again)
    before = await dump(url)
    assert await store.commit(again) == first == Committed(duplicates={2: 1})
    assert await dump(url) == before


async def test_an_id_that_another_master_has_used_is_lost(store: Store) -> None:
    await submit(store, run(1))
    assert await store.commit(batch(new=(run(1, owner=OTHER),), owner=OTHER)) == Committed(lost=frozenset({1}))
    assert (await store.run(1)).owner == ME  # type: ignore[union-attr]


# --- the fence ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("owner", "epoch"), [(OTHER, 1), (ME, 2), (ME, 0), (None, 2)])
async def test_a_run_under_another_owner_or_epoch_is_lost_and_untouched(
    store: Store, owner: str | None, epoch: int
) -> None:
    await submit(store, run(1, owner=owner, epoch=epoch), run(2))
    committed = await store.commit(
        batch(
            changed=(run(1, reason="late"), run(2, reason="good")),
            attempts=(attempt(1), attempt(1, task=1), attempt(2)),
        )
    )
    assert committed == Committed(lost=frozenset({1}))
    assert await store.run(1) == run(1, owner=owner, epoch=epoch)
    assert await store.attempts(1) == []
    assert await store.run(2) == run(2, reason="good")
    assert await store.attempts(2) == [attempt(2)]


async def test_a_run_that_does_not_exist_is_lost(store: Store) -> None:
    committed = await store.commit(batch(changed=(run(1),), attempts=(attempt(1), attempt(9))))
    assert committed == Committed(lost=frozenset({1, 9}))
    assert await store.run(1) is None
    assert await store.attempts(9) == []


async def test_an_epoch_without_rows_is_checked_too(store: Store) -> None:
    await submit(store, run(1), run(2, epoch=2))
    assert await store.commit(batch(epochs={1: 1, 2: 1})) == Committed(lost=frozenset({2}))


async def test_ending_a_run_twice_with_the_same_batch_loses_nothing(store: Store, url: str) -> None:
    await submit(store, run(1), attempts=(attempt(1),))
    end = batch(changed=(ended(1),), attempts=(attempt(1, state=AttemptState.SUCCEEDED),))
    assert await store.commit(end) == Committed()
    before = await dump(url)
    assert await store.commit(end) == Committed()
    assert await dump(url) == before
    assert await store.commit(batch(attempts=(attempt(1),))) == Committed(lost=frozenset({1}))


async def test_a_repeated_handover_does_not_undo_what_the_next_owner_did(store: Store) -> None:
    await submit(store, run(1))
    handover = batch(changed=(run(1, owner=OTHER, epoch=2),), attempts=(attempt(1),))
    assert await store.commit(handover) == Committed()
    by_other = attempt(1, state=AttemptState.SUCCEEDED)
    assert await store.commit(batch(attempts=(by_other,), epochs={1: 2}, owner=OTHER)) == Committed()
    assert await store.commit(handover) == Committed()
    assert await store.attempts(1) == [by_other]


# --- claims ---------------------------------------------------------------------------------------------------------


async def test_a_claim_takes_the_unfinished_runs_of_the_dead_that_are_its_share(store: Store) -> None:
    await submit(store, run(4, owner="dead@1"), run(3, owner="dead@2", epoch=6), run(1, owner=OTHER), run(2))
    await submit(store, run(5, owner="dead@1"), ended(6))
    taken = await store.claim(ME, {ME, OTHER}, lambda run_id: run_id != 5)
    assert [(each.run.id, each.run.owner, each.run.epoch) for each in taken] == [(3, ME, 7), (4, ME, 2)]
    assert {each.body for each in taken} == {DEFINITION.body}
    assert await store.owned(ME) == [2, 3, 4]
    assert await store.owned("dead@1") == [5]
    assert await store.claim(ME, {ME, OTHER, "dead@1"}, every_run) == []


async def test_a_claim_returns_all_attempts_in_key_order(store: Store) -> None:
    rows = [attempt(run_id, task, number) for run_id in (1, 2) for task in (0, 1, 10) for number in (1, 2)]
    await submit(store, run(2), run(1), run(3), attempts=tuple(reversed(rows)))
    taken = await store.claim(OTHER, {OTHER}, every_run)
    assert [each.attempts for each in taken] == [rows[:6], rows[6:], []]


async def test_the_deposed_owner_cannot_write_and_the_claimant_can(store: Store) -> None:
    await submit(store, run(1))
    await store.claim(OTHER, {OTHER}, every_run)
    late = batch(changed=(ended(1),), attempts=(attempt(1),))
    assert await store.commit(late) == Committed(lost=frozenset({1}))
    again = batch(attempts=(attempt(1),), epochs={1: 2}, owner=OTHER)
    assert await store.commit(again) == Committed()


async def test_claims_at_once_never_share_a_run(store: Store) -> None:
    await submit(store, *(run(n) for n in range(1, 101)))
    claimants = [f"m{n}@later" for n in range(4)]
    taken = await asyncio.gather(*(store.claim(name, claimants, every_run) for name in claimants))
    ids = [each.run.id for runs in taken for each in runs]
    assert sorted(ids) == list(range(1, 101))
    assert {each.run.epoch for runs in taken for each in runs} == {2}


async def test_a_run_with_many_attempts_is_claimed_whole(store: Store) -> None:
    rows = tuple(attempt(1, task) for task in range(20_000))
    await submit(store, run(1), attempts=rows)
    (taken,) = await store.claim(OTHER, {OTHER}, every_run)
    assert taken.attempts == list(rows)


# --- questions ------------------------------------------------------------------------------------------------------


async def test_runs_over_which_masters_end_are_counted(store: Store) -> None:
    assert await store.crashed(1) == {}
    for reason in ("first", "second", "th\0ird"):
        await store.blame(7, reason)
    await store.blame(-(2**63) + 1, "only one")
    assert await store.crashed(1) == {7: "th\ufffdird", -(2**63) + 1: "only one"}
    assert await store.crashed(3) == {7: "th\ufffdird"}
    assert await store.crashed(4) == {}


async def test_unknown_things_are_none(store: Store) -> None:
    assert await store.run(1) is None
    assert await store.find_key("nothing") is None
    assert await store.definition("nothing") is None
    assert await store.attempts(1) == []
    assert await store.owned(ME) == []
    assert await store.runs() == []
    assert await store.counts([]) == {}


async def test_runs_are_paged_newest_first_under_every_filter(store: Store) -> None:
    states = [RunState.RUNNING, RunState.SUCCEEDED, RunState.FAILED, RunState.SUBMITTED, RunState.STOPPED]
    rows = [
        (ended if (state := states[n % 5]).final else run)(n, state=state, workflow="ab"[n % 2]) for n in range(1, 61)
    ]
    await submit(store, *rows)
    for wanted in ((), (RunState.FAILED,), (RunState.RUNNING, RunState.FAILED, RunState.SUCCEEDED), tuple(RunState)):
        for workflow in (None, "a", "nobody's"):
            matching = [
                row.id
                for row in reversed(rows)
                if (not wanted or row.state in wanted) and workflow in (None, row.workflow)
            ]
            seen: list[int] = []
            while page := await store.runs(
                states=wanted, workflow=workflow, before=seen[-1] if seen else None, limit=7
            ):
                assert len(page) <= 7
                seen += [row.id for row in page]
            assert seen == matching


async def test_the_attempts_of_one_task_can_be_asked_for(store: Store) -> None:
    rows = tuple(attempt(1, task, number) for task in (0, 1) for number in (1, 2, 3))
    await submit(store, run(1), attempts=rows)
    assert await store.attempts(1, task=1) == list(rows[3:])


async def test_counts_look_at_the_latest_attempt_of_each_task(store: Store) -> None:
    rows = (
        attempt(1, 0, 1, state=AttemptState.FAILED),
        attempt(1, 0, 2, state=AttemptState.FAILOVER),
        attempt(1, 0, 3, state=AttemptState.SUCCEEDED),
        attempt(1, 1, 1, state=AttemptState.FAILED),
        attempt(1, 2, 1, state=AttemptState.SUCCEEDED),
        attempt(2, 0, 1),
    )
    await submit(store, run(1), run(2), run(3), attempts=rows)
    assert await store.counts([1, 2, 3]) == {
        1: {AttemptState.SUCCEEDED: 2, AttemptState.FAILED: 1},
        2: {AttemptState.DISPATCHED: 1},
        3: {},
    }


# --- opening --------------------------------------------------------------------------------------------------------


async def test_a_store_can_be_closed_and_opened_again(store: Store) -> None:
    await submit(store, run(1))
    await store.close()
    await store.open()
    assert await store.run(1) == run(1)
    assert await submit(store, run(2)) == Committed()


async def test_a_reader_cannot_write(store: Store, url: str) -> None:
    reader = open_store(url, exclusive=False)
    await reader.open()
    with pytest.raises(AssertionError, match="not opened for writing"):
        await submit(reader, run(1))
    with pytest.raises(AssertionError, match="not opened for writing"):
        await reader.claim(ME, NOBODY, every_run)
    await reader.close()
