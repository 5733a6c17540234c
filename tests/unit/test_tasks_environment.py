"""The environment of an attempt, byte for byte."""

from __future__ import annotations

from typing import Any

from dsfast.ids import run_text
from dsfast.tasks.environment import ALLOWED, PARAM_BYTES_MAX, build_env, inherit, mark

WORKER = {
    "PATH": "/bin",
    "HOME": "/home/worker",
    "LANG": "C.UTF-8",
    "LC_TIME": "de_DE.UTF-8",
    "LD_PRELOAD": "evil.so",
    "PYTHONPATH": "/src",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "DSFAST_CLUSTER_KEY": "secret",
    "DSFAST_STORE_URL": "postgresql://user:secret@db/dsfast",
}


def build(
    declared: dict[str, str] | None = None, params: dict[str, Any] | None = None, allowed: tuple[str, ...] = ALLOWED
) -> dict[str, str]:
    place = {"run_id": 1 << 40, "task": 3, "attempt": 2, "name": "load data", "output": "/out/3.2"}
    return build_env(inherit(WORKER, allowed), declared or {}, params=params or {}, **place)  # type: ignore[arg-type]


def test_only_what_is_allowed_is_inherited() -> None:
    assert build() == {
        "PATH": "/bin",
        "HOME": "/home/worker",
        "LANG": "C.UTF-8",
        "LC_TIME": "de_DE.UTF-8",
        "DSFAST_RUN_ID": run_text(1 << 40),
        "DSFAST_TASK": "load data",
        "DSFAST_ATTEMPT": "2",
        "DSFAST_ATTEMPT_KEY": f"{run_text(1 << 40)}.3.2",
        "DSFAST_OUTPUT": "/out/3.2",
    }


def test_our_own_variables_are_not_inherited_even_if_everything_is_allowed() -> None:
    env = build(allowed=("*",))
    assert env["AWS_SECRET_ACCESS_KEY"] == "secret"
    assert "DSFAST_CLUSTER_KEY" not in env
    assert "DSFAST_STORE_URL" not in env


def test_declared_values_win_over_inherited_ones_and_lose_to_ours() -> None:
    env = build(declared={"PATH": "/opt/bin", "NEW": "x", "DSFAST_ATTEMPT_KEY": "forged"})
    assert (env["PATH"], env["NEW"]) == ("/opt/bin", "x")
    assert env["DSFAST_ATTEMPT_KEY"] == f"{run_text(1 << 40)}.3.2"


def test_params_arrive_as_text_under_names_that_shells_can_read() -> None:
    env = build(params={"day": "2026-01-31", "max-rows": 10, "ok": True, "none": None, "list": [1, "ä"], "über": "x"})
    params = {name: value for name, value in env.items() if name.startswith("DSFAST_PARAM_")}
    assert params == {
        "DSFAST_PARAM_DAY": "2026-01-31",
        "DSFAST_PARAM_MAX_ROWS": "10",
        "DSFAST_PARAM_OK": "true",
        "DSFAST_PARAM_NONE": "",
        "DSFAST_PARAM_LIST": '[1, "ä"]',
        "DSFAST_PARAM__BER": "x",
    }


def test_params_that_no_environment_can_hold_are_left_out() -> None:
    env = build(params={"large": "x" * (PARAM_BYTES_MAX + 1), "nul": "a\0b", "fits": "x" * PARAM_BYTES_MAX})
    assert [name for name in env if name.startswith("DSFAST_PARAM_")] == ["DSFAST_PARAM_FITS"]


def test_the_mark_is_the_attempts_key() -> None:
    assert mark(build()) == (f"DSFAST_ATTEMPT_KEY={run_text(1 << 40)}.3.2",)
    assert mark({}) == ()
