"""The cluster under faults, a few hundred worlds in every run of the tests; DSFAST_SIMULATION_SEEDS raises the number.

A failing world prints the story of the task concerned and the smallest plan. `python -m dsfast.sim` looks for more.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from dsfast.proof.checker import Checker
from dsfast.proof.history import read
from dsfast.sim.faults import STRIKES
from dsfast.sim.hunt import Hunt, hunt, tale
from dsfast.sim.plan import make_plan
from dsfast.sim.profiles import PROFILES
from dsfast.sim.world import Failure, World

SEEDS = int(os.environ.get("DSFAST_SIMULATION_SEEDS", "80"))  # of each profile
CHUNKS = 4  # so that a failure does not hide those of all other seeds
ROOT = Path(__file__).parents[2]
REGRESSIONS = Path(__file__).with_name("seeds.txt")


def live(seed: int, profile: str) -> World:
    """Live through a world; if it fails, shrink and tell it."""
    world = World(seed, profile)
    try:
        world.run()
    except Failure as failure:
        raise AssertionError(tale(seed, profile, failure)) from None
    return world


def regressions() -> list[tuple[str, int, str]]:
    """Worlds that failed once, with what they found."""
    lines = [line for line in REGRESSIONS.read_text().splitlines() if line and not line.startswith("#")]
    return [(profile, int(seed), found) for profile, seed, found in (line.split(None, 2) for line in lines)]


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("profile", PROFILES)
def test_every_promise_is_kept(profile: str, chunk: int) -> None:
    for seed in range(chunk, SEEDS, CHUNKS):
        live(seed, profile)


@pytest.mark.parametrize(("profile", "seed", "found"), regressions())
def test_what_was_found_once_stays_fixed(profile: str, seed: int, found: str) -> None:
    live(seed, profile)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_same_seed_makes_the_same_world(profile: str) -> None:
    assert live(3, profile).digest() == live(3, profile).digest()


def run_sim(*arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    """The command line, in a process of its own."""
    env = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-m", "dsfast.sim", *arguments]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_same_seed_makes_the_same_world_in_another_process() -> None:
    """Nothing depends on the order of a set of strings, which differs from process to process."""
    runs = [run_sim("--seed", "5", "--profile", "storm", "--digest", hash_seed=each) for each in ("1", "2")]
    assert [each.returncode for each in runs] == [0, 0]
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.strip()) == 64


def test_the_plan_can_be_thinned_out() -> None:
    whole, none = World(7, "storm"), World(7, "storm", [])
    assert World(7, "storm", [0, 2]).plan == [whole.plan[0], whole.plan[2]]
    assert none.plan == []
    none.run()


def test_every_fault_is_in_a_profile_and_every_profile_names_faults_that_exist() -> None:
    named = {fault for profile in PROFILES.values() for fault in profile.faults}
    assert named == set(STRIKES)


def test_a_calm_world_has_no_faults() -> None:
    world = live(1, "calm")
    assert {item.what for item in world.plan} <= {"submit", "cancel", "explain"}
    assert not [line for line in world.story.lines() if " fault " in line]


def test_a_failing_world_is_told_and_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without end make some world fail; what is printed leads back to it."""
    monkeypatch.setattr("dsfast.engine.run.Run.may_retry", lambda self, task: 0.0)
    said: list[str] = []
    found: Hunt = hunt(range(3), 0, ["crash"], 0.0, said.append)
    assert found.failures
    told = "\n".join(said)
    assert "again: python -m dsfast.sim --seed" in told
    keep = told.split("--keep ")[1].split()[0]
    seed = int(told.split("again: python -m dsfast.sim --seed ")[1].split()[0])
    places = [int(place) for place in keep.split(",")]
    assert len(places) < len(World(seed, "crash").plan)
    with pytest.raises(Failure):
        World(seed, "crash", places).run()


def test_a_history_that_was_written_down_is_judged_the_same(tmp_path: Path) -> None:
    file = tmp_path / "history"
    done = run_sim("--seed", "2", "--profile", "storm", "--history", str(file))
    assert done.returncode == 0, done.stdout
    checker = Checker()
    for event in read(file.read_bytes().splitlines()):
        checker.take(event)
    checker.finish()
    assert f"{checker.taken} events" in done.stdout


def test_a_range_of_seeds_says_how_many_failed() -> None:
    done = run_sim("--seeds", "0:2", "--profile", "all")
    assert done.returncode == 0, done.stdout
    assert f"{2 * len(PROFILES)} worlds" in done.stdout
    assert "0 failed" in done.stdout


def test_plans_come_from_the_seed_alone() -> None:
    profile = PROFILES["storm"]
    assert make_plan(random.Random("x"), profile) == make_plan(random.Random("x"), profile)
