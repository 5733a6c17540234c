"""Values come from the right place, keep their origin, and every mistake is reported at once."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dsfast.config import (
    Config,
    advertised_host,
    environment_of_flags,
    load_config,
    make_state_dir,
    require_safe_bind,
    settings,
)
from dsfast.config.kinds import DURATION, SIZE
from dsfast.errors import UsageError
from tests.unit.settings_table import PAGE, current


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(home: Path, /, *, flags: dict[str, object] | None = None, **environ: str) -> Config:
    return load_config(flags=flags, environ={"XDG_STATE_HOME": str(home / "state"), **environ})


def problems(home: Path, **environ: str) -> list[str]:
    with pytest.raises(UsageError) as caught:
        load(home, **environ)
    return [str(problem) for problem in caught.value.problems]


def test_defaults_live_under_the_state_directory(here: Path) -> None:
    config = load(here)
    state = here / "state" / "dsfast"
    assert config.state_dir == state
    assert config.store.url == f"sqlite:///{state}/dsfast.db"
    assert config.cluster.key_file == state / "cluster.key"
    assert config.worker.log_bytes_max == 1 << 30
    assert (config.master.port, config.worker.port, config.api.port) == (7480, 7481, 7482)
    assert not config.explicit("store.url")
    assert config.source is None


def test_flag_beats_environment_beats_file_beats_default(here: Path) -> None:
    (here / "dsfast.toml").write_text('[master]\nport = 1\nname = "from-file"\nhost = "127.0.0.2"\n')
    config = load(here, flags={"master.port": 3}, DSFAST_MASTER_PORT="2", DSFAST_MASTER_NAME="from-env")
    assert (config.master.port, config.master.name, config.master.host) == (3, "from-env", "127.0.0.2")
    assert config.origins["master.port"] == "flag"
    assert config.origins["master.name"] == "$DSFAST_MASTER_NAME"
    assert config.origins["master.host"] == f"{here}/dsfast.toml:4"
    assert config.origins["master.policy"] == "default"


def test_moving_the_state_directory_moves_what_lives_in_it(here: Path) -> None:
    config = load(here, DSFAST_STATE_DIR="elsewhere")
    assert config.state_dir == here / "elsewhere"
    assert config.api.token_file == here / "elsewhere" / "api.token"


def test_paths_in_a_file_are_relative_to_the_file(here: Path) -> None:
    folder = here / "etc"
    folder.mkdir()
    (folder / "my.toml").write_text('[cluster]\nkey_file = "key"\n')
    assert load(here, DSFAST_CONFIG="etc/my.toml").cluster.key_file == folder / "key"


def test_all_mistakes_are_reported_with_their_place(here: Path) -> None:
    (here / "dsfast.toml").write_text("[worker]\nslot = 3\ngroups = []\n\n[master]\nport = 70000\n\n[web]\nx = 1\n")
    found = problems(here, DSFAST_WORKER_SLOTS="many", DSFAST_MASTER_PROT="1", DSFAST_LOG_LEVEL="loud")
    text = "\n".join(found)
    assert f"{here}/dsfast.toml:2: there is no setting 'worker.slot' (did you mean 'worker.slots'?)" in found
    assert f"{here}/dsfast.toml:6: master.port: 70000 is not a port (0 to 65535)" in found
    assert f"{here}/dsfast.toml:8: there is no setting 'web'" in text
    assert f"{here}/dsfast.toml:3: worker.groups:" in text
    assert "$DSFAST_WORKER_SLOTS: worker.slots: 'many' is not a number (1 to 1000000)" in found
    assert "$DSFAST_MASTER_PROT: no setting has this name (did you mean 'DSFAST_MASTER_PORT'?)" in found
    assert "$DSFAST_LOG_LEVEL: log.level: 'loud' is none of debug, info, warning, error" in found
    assert len(found) == 7


def test_a_named_file_must_exist(here: Path) -> None:
    assert problems(here, DSFAST_CONFIG="nowhere.toml") == ["nowhere.toml: there is no such configuration file"]


def test_broken_toml_is_a_sentence(here: Path) -> None:
    (here / "dsfast.toml").write_text("port = = 1\n")
    (problem,) = problems(here)
    assert "is not valid TOML" in problem
    assert "line 1" in problem


def test_a_found_file_that_others_can_write_is_refused_but_not_when_named(here: Path) -> None:
    file = here / "dsfast.toml"
    file.write_text("[log]\nlevel = 'debug'\n")
    file.chmod(0o666)
    assert "other users can write" in problems(here)[0]
    assert load(here, DSFAST_CONFIG=str(file)).log.level == "debug"


def test_variables_of_tasks_are_not_mistaken_for_settings(here: Path) -> None:
    assert load(here, DSFAST_OUTPUT="/x", DSFAST_RUN_ID="1", DSFAST_TOKEN="t").log.level == "info"


def test_a_timeout_must_leave_room_for_a_lost_heartbeat(here: Path) -> None:
    (problem,) = problems(here, DSFAST_CLUSTER_HEARTBEAT_TIMEOUT_SECONDS="1.5s")
    assert "less than two heartbeats" in problem


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", 10), ("10s", 10), (2.5, 2.5), ("1h 30m", 5400), ("500ms", 0.5), ("1d", 86400), ("1m30s", 90)],
)
def test_durations(text: object, seconds: float) -> None:
    assert DURATION.parse(text) == seconds


@pytest.mark.parametrize("text", ["", "ten", "-1", "10 parsecs", "1h30", True, -1, float("inf"), float("nan")])
def test_what_is_not_a_duration(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        DURATION.parse(text)


@pytest.mark.parametrize(("text", "size"), [(7, 7), ("7", 7), ("1 KiB", 1024), ("1.5GiB", 3 << 29), ("2MB", 2000000)])
def test_sizes(text: object, size: int) -> None:
    assert SIZE.parse(text) == size


@example("~no-such-user/x")
@given(st.text() | st.integers() | st.floats() | st.booleans() | st.lists(st.text()) | st.none())
def test_no_value_makes_a_parser_fail_otherwise_than_with_a_sentence(value: object) -> None:
    for setting in settings():
        with contextlib.suppress(ValueError):
            setting.kind.parse(value)


def test_listening_beyond_the_machine_needs_a_secret_that_was_handed_out(here: Path) -> None:
    for role, secret in (("master", "cluster.key_file"), ("worker", "cluster.key_file"), ("api", "api.token_file")):
        for host in ("0.0.0.0", "192.0.2.1", "::", "", "example.org"):
            config = load(here, flags={f"{role}.host": host})
            with pytest.raises(UsageError, match=secret):
                require_safe_bind(config, role)
            require_safe_bind(load(here, flags={f"{role}.host": host, secret: "key"}), role)
        for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
            require_safe_bind(load(here, flags={f"{role}.host": host}), role)


def test_the_state_directory_is_for_its_owner_alone(here: Path) -> None:
    made = make_state_dir(load(here))
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_a_state_directory_that_cannot_be_made_is_a_sentence(here: Path) -> None:
    (here / "file").write_text("")
    with pytest.raises(UsageError, match="cannot make the state directory"):
        make_state_dir(load(here, DSFAST_STATE_DIR="file/x"))


def test_the_documented_settings_are_the_settings() -> None:
    page = PAGE.read_text()
    assert page == current(page), "run: python -m tests.unit.settings_table"


def test_what_flags_gave_is_handed_on_to_other_processes(here: Path) -> None:
    flags = {
        "worker.groups": "gpu,default",
        "worker.slots": "3",
        "worker.drain_seconds": "1m",
        "store.url": "sqlite:///x",
    }
    config = load(here, flags=flags, DSFAST_API_PORT="1")
    handed = environment_of_flags(config)
    assert set(handed) == {
        "DSFAST_WORKER_GROUPS",
        "DSFAST_WORKER_SLOTS",
        "DSFAST_WORKER_DRAIN_SECONDS",
        "DSFAST_STORE_URL",
    }
    again = load(here, DSFAST_API_PORT="1", **handed)
    assert again == config


def test_a_state_directory_with_odd_letters_makes_a_proper_url(here: Path) -> None:
    config = load(here, DSFAST_STATE_DIR=str(here / "a b%20?#"))
    assert config.store.url == f"sqlite:///{here}/a%20b%2520%3F%23/dsfast.db"
    assert config.api.token_file == here / "a b%20?#" / "api.token"


def test_others_are_told_a_name_that_they_can_dial(here: Path) -> None:
    assert advertised_host(load(here).worker) == "127.0.0.1"
    for host in ("0.0.0.0", "::", ""):
        assert advertised_host(load(here, flags={"worker.host": host}).worker) == os.uname().nodename
    named = load(here, flags={"worker.host": "0.0.0.0", "worker.advertise": "w1.example"})
    assert advertised_host(named.worker) == "w1.example"
