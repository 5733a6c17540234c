"""The examples, run as their first lines say."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.integration.local_cluster import clean_environ, run_dsfast

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(folder: Path, name: str, *args: str) -> subprocess.CompletedProcess[str]:
    return run_dsfast("run", str(EXAMPLES / f"{name}.yaml"), *args, environ=clean_environ(folder), folder=folder)


def logs(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.rglob("*.log")))


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        ("etl", ("-p", "rows=500", "-p", "directory={folder}/sales"), ["all 500 rows are there", "north"]),
        ("fan", ("-p", "limit=1000"), ["primes: 168\n"]),
        (
            "params",
            ("-p", "who=O'Hara; touch {folder}/hacked"),
            ["hello, O'Hara; touch ", "the area is 12", "1: apple"],
        ),
        ("python", (), ["mean 3.875", "3.875 +- "]),
        ("retries", (), ["attempt 3", "fast enough", "flaky succeeded in the end"]),
    ],
)
def test_an_example_succeeds_and_does_what_it_says(
    tmp_path: Path, name: str, args: tuple[str, ...], said: list[str]
) -> None:
    done = run(tmp_path, name, *(arg.replace("{folder}", str(tmp_path)) for arg in args))
    assert done.returncode == 0, done.stdout + done.stderr
    printed = logs(tmp_path)
    assert all(each in printed for each in said), printed
    assert not (tmp_path / "hacked").exists()
