"""The cluster under faults, a few hundred seeds in every run of the tests; DSFAST_SIMULATION_SEEDS raises the number.

A failing seed prints the story of the run and task concerned. `python -m tests.simulation.hunt 0 10000` looks for more.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.world import World

SEEDS = int(os.environ.get("DSFAST_SIMULATION_SEEDS", "300"))
CHUNKS = 20  # so that a failure does not hide those of all other seeds
REGRESSIONS = Path(__file__).with_name("seeds.txt")


def regressions() -> list[tuple[int, str]]:
    """Seeds that failed once, with what they found."""
    lines = [line for line in REGRESSIONS.read_text().splitlines() if line and not line.startswith("#")]
    return [(int(line.split(None, 1)[0]), line.split(None, 1)[1]) for line in lines]


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_promise_is_kept(chunk: int) -> None:
    for seed in range(chunk, SEEDS, CHUNKS):
        World(seed).run()


@pytest.mark.parametrize(("seed", "found"), regressions())
def test_what_was_found_once_stays_fixed(seed: int, found: str) -> None:
    World(seed).run()


@pytest.mark.parametrize("seed", [3, 14, 15])
def test_the_same_seed_makes_the_same_world(seed: int) -> None:
    first, second = World(seed), World(seed)
    first.run()
    second.run()
    assert first.digest() == second.digest()


def test_the_same_seed_makes_the_same_world_in_another_process() -> None:
    """Nothing depends on the order of a set of strings, which differs from process to process."""
    script = "from tests.simulation.world import World; w = World(5); w.run(); print(w.digest())"
    found = set()
    for hash_seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=env,
            cwd=REGRESSIONS.parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)
    assert len(found) == 1
