"""The configuration: one frozen dataclass, every value documented in place and known by its origin.

A value is looked up in this order, the first that is set wins:

    flag          an option of the command, or `--set section.field=value`
    environment   DSFAST_SECTION_FIELD
    file          --config, else $DSFAST_CONFIG, else the first of ./dsfast.toml,
                  ~/.config/dsfast/config.toml and /etc/dsfast/config.toml that exists
    default       written beside the field below

Every mistake in all of these is reported at once. Nothing reads the environment at import.
Durations are numbers of seconds or texts such as "1m 30s"; sizes are bytes or texts such as "1 GiB".
"""

# ruff: noqa: RUF009 - a setting is declared by a call; what it returns is a field

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from dsfast.config import kinds
from dsfast.config.kinds import Kind, Setting
from dsfast.config.sources import DEFAULT, FLAG, Sources, hostname
from dsfast.errors import Problem, UsageError

WILDCARD = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - names what a bind means, binds nothing
ENV_ALLOW = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR"]


def setting(default: Any, kind: Kind, doc: str) -> Any:
    """A dataclass field that is a setting; texts are filled in and parsed by `load_config`."""
    return field(metadata={"default": default, "kind": kind, "doc": doc})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """Who belongs together, and how soon silence counts as death."""

    name: str = setting("dsfast", kinds.NAME, "Name of the cluster; members of other clusters are refused.")
    key_file: Path = setting(
        "{state_dir}/cluster.key", kinds.PATH, "The key that members prove to each other; made on first start."
    )
    tls: bool = setting("off", kinds.SWITCH, "Whether links are encrypted with TLS 1.3; the same on every member.")
    tls_certificate: Path = setting(
        "{state_dir}/tls.crt", kinds.PATH, "This machine's certificate (PEM); one signed by itself will do."
    )
    tls_key: Path = setting("{state_dir}/tls.key", kinds.PATH, "The private key of the certificate (PEM).")
    heartbeat_seconds: float = setting(1, kinds.DURATION, "Time between two heartbeats on a link.")
    heartbeat_timeout_seconds: float = setting(3, kinds.DURATION, "Silence on a link after which the peer is dead.")
    replace: bool = setting(
        "on", kinds.SWITCH, "Whether tasks of a worker that nobody can see are started elsewhere (on_disconnect)."
    )
    stop_after_seconds: float = setting(
        0, kinds.DURATION, "How long such a worker lets them run on; 0: not at all, or without end if not replaced."
    )
    replace_after_seconds: float = setting(0, kinds.DURATION, "The least time before they are started elsewhere.")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """The database that remembers runs."""

    url: str = setting(
        "sqlite:///{state_dir}/dsfast.db",
        kinds.URL,
        "SQLAlchemy URL: sqlite:///path, postgresql://user:password@host/name or mysql://….",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryConfig:
    """Where members find each other."""

    url: str = setting(
        "database+sqlite:///{state_dir}/registry.db",
        kinds.URL,
        "zookeeper://host:port,host:port or database+<SQLAlchemy URL>.",
    )
    session_seconds: float = setting(6, kinds.DURATION, "How long a member that fell silent stays listed.")


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterConfig:
    """The role that decides."""

    name: str = setting("{hostname}-master", kinds.NAME, "Name of this master, unique among masters.")
    host: str = setting("127.0.0.1", kinds.TEXT, "Address to listen on.")
    port: int = setting(7480, kinds.PORT, "Port to listen on; 0 takes a free one.")
    advertise: str = setting("", kinds.TEXT, "Host name that others dial; empty: `host`, or the machine's name.")
    policy: str = setting("least_loaded", kinds.POLICY, "How a worker is chosen within a group.")
    kill_grace_seconds: float = setting(10, kinds.DURATION, "Time between SIGTERM and SIGKILL when a task is ended.")
    failovers_max: int = setting(
        10, kinds.COUNT, "How often a task may be lost with its worker; every further loss is a failure."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """The role that runs tasks."""

    name: str = setting("{hostname}-worker", kinds.NAME, "Name of this worker, unique among workers.")
    host: str = setting("127.0.0.1", kinds.TEXT, "Address to listen on.")
    port: int = setting(7481, kinds.PORT, "Port to listen on; 0 takes a free one.")
    advertise: str = setting("", kinds.TEXT, "Host name that others dial; empty: `host`, or the machine's name.")
    slots: int = setting("{cpus}", kinds.COUNT, "Tasks that may run at a time.")
    groups: tuple[str, ...] = setting(["default"], kinds.NAMES, "Worker groups it serves.")
    weight: int = setting(100, kinds.COUNT, "Its share under the weighted policies.")
    log_dir: Path = setting("{state_dir}/logs", kinds.PATH, "Where task logs are kept.")
    work_dir: Path = setting("{state_dir}/work", kinds.PATH, "Where tasks run and finished results wait.")
    log_bytes_max: int = setting("1 GiB", kinds.SIZE, "Size at which the log of one attempt is cut off.")
    env_allow: tuple[str, ...] = setting(
        ENV_ALLOW, kinds.NAMES, "Variables of the worker's environment that tasks see."
    )
    drain_seconds: float = setting(
        "10m", kinds.DURATION, "How long running tasks may finish when the worker is told to stop."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiConfig:
    """The role that speaks HTTP."""

    host: str = setting("127.0.0.1", kinds.TEXT, "Address to listen on.")
    port: int = setting(7482, kinds.PORT, "Port to listen on; 0 takes a free one.")
    token_file: Path = setting("{state_dir}/api.token", kinds.PATH, "The bearer token; made on first start.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """What the daemons themselves write, to standard error."""

    level: str = setting("info", kinds.LOG_LEVEL, "Least severe line that is written.")
    format: str = setting("logfmt", kinds.LOG_FORMAT, "key=value lines, or one JSON object a line.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything a daemon or command is told. Make one with `load_config`."""

    state_dir: Path = setting("{state_home}/dsfast", kinds.PATH, "Where everything is kept that is not put elsewhere.")
    cluster: ClusterConfig
    store: StoreConfig
    registry: RegistryConfig
    master: MasterConfig
    worker: WorkerConfig
    api: ApiConfig
    log: LogConfig
    source: Path | None = None  # the configuration file that was read
    origins: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)  # key -> where it was set

    def value(self, key: str) -> Any:
        """The value of "section.field"."""
        found: Any = self
        for part in key.split("."):
            found = getattr(found, part)
        return found

    def explicit(self, key: str) -> bool:
        """Whether somebody set this value, rather than leaving it at its default."""
        return self.origins.get(key, DEFAULT) != DEFAULT


SECTIONS: dict[str, type] = {
    "cluster": ClusterConfig,
    "store": StoreConfig,
    "registry": RegistryConfig,
    "master": MasterConfig,
    "worker": WorkerConfig,
    "api": ApiConfig,
    "log": LogConfig,
}


def settings() -> Iterator[Setting]:
    """All settings, in the order of documentation."""
    for prefix, holder in (("", Config), *((name + ".", section) for name, section in SECTIONS.items())):
        for entry in fields(holder):
            if "kind" in entry.metadata:
                yield Setting(key=prefix + entry.name, **entry.metadata)


def load_config(
    path: str | Path | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Read the configuration; `flags` maps "section.field" to values. Raises UsageError with every problem found."""
    environ = os.environ if environ is None else environ
    sources = Sources(list(settings()), path, flags or {}, environ)
    values = {entry.key: sources.value(entry) for entry in settings()}
    problems = sources.problems or list(_disagreements(values))
    if problems:
        raise UsageError(problems)
    return Config(**_nested(values), source=sources.file, origins=sources.origins)


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {"state_dir": values["state_dir"]}
    for name, section in SECTIONS.items():
        nested[name] = section(**{entry.name: values[f"{name}.{entry.name}"] for entry in fields(section)})
    return nested


def _disagreements(values: Mapping[str, Any]) -> Iterator[Problem]:
    beat, timeout = values["cluster.heartbeat_seconds"], values["cluster.heartbeat_timeout_seconds"]
    if beat <= 0:
        yield Problem("must be more than 0", field="cluster.heartbeat_seconds")
    if timeout < 2 * beat:
        yield Problem(
            f"{timeout:g} s is less than two heartbeats of {beat:g} s, so one lost packet would count as death",
            field="cluster.heartbeat_timeout_seconds",
        )


def environment_of_flags(config: Config) -> dict[str, str]:
    """Variables that give another dsfast process what flags gave this one."""
    given = [entry for entry in settings() if config.origins[entry.key] == FLAG]
    return {entry.env: as_text(config.value(entry.key)) for entry in given}


def as_text(value: Any) -> str:
    """A value as a text that its kind reads back."""
    return ",".join(value) if isinstance(value, tuple) else str(value)


def make_state_dir(config: Config) -> Path:
    """The state directory, made for this user alone if it did not exist. Raises UsageError."""
    try:
        config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        problem = f"cannot make the state directory {config.state_dir}: {error.strerror}"
        raise UsageError(Problem(problem, hint="choose another with --state-dir or DSFAST_STATE_DIR")) from None
    return config.state_dir


def advertised_host(section: MasterConfig | WorkerConfig) -> str:
    """The host name under which others can dial this daemon."""
    return section.advertise or (hostname() if section.host in WILDCARD else section.host)


def require_safe_bind(config: Config, role: str) -> None:
    """Refuse to listen beyond this machine with a secret that was made up on the spot.

    On loopback a generated secret protects; elsewhere it must be one the operator handed out on purpose.
    Raises UsageError.
    """
    secret = "api.token_file" if role == "api" else "cluster.key_file"
    host = config.value(f"{role}.host")
    if is_loopback(host) or config.explicit(secret):
        return
    raise UsageError(
        Problem(
            f"the {role} would listen on {host or 'every address'}, beyond this machine, without {secret} being set",
            field=f"{role}.host",
            hint=f"set {secret} to a file that every member shares, or listen on 127.0.0.1",
        )
    )


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reachable from this machine only."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
