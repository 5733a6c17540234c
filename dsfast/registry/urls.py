"""From a registry's URL to the registry; what it needs is imported only then."""

from __future__ import annotations

import re
from importlib.util import find_spec
from urllib.parse import parse_qsl, unquote, urlencode

from dsfast.errors import UsageError
from dsfast.registry.base import Registry

SESSION_SECONDS_MIN = 0.5  # below this an ordinary hiccup of a busy machine ends sessions
SESSION_SECONDS_MAX = 300.0  # above this it is milliseconds by mistake: nobody waits that long for a dead member
MYSQL_PORT = 3306
MYSQL_OPTIONS = ("ssl_ca", "ssl_cert", "ssl_key", "unix_socket")
CLUSTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # it is part of paths
EXAMPLES = (
    "zookeeper://host1:2181,host2:2181, postgresql://user@host/database, mysql://user@host/database, "
    "sqlite:////path/to/file (one machine)"
)


def open_registry(url: str, *, cluster: str, session_seconds: float) -> Registry:
    """The registry at this URL, not yet started; `?session=seconds` in the URL outranks `session_seconds`.

    Raises UsageError when the URL, the session or the cluster's name is not usable.
    """
    if CLUSTER_NAME.fullmatch(cluster) is None:
        raise UsageError(f"the cluster's name {cluster!r} is not usable: 1 to 64 letters, digits, dots, dashes or _")
    kind, address, query = _parts(url)
    seconds = _session(query.pop("session", None), session_seconds)
    if kind == "sqlite":
        return _sqlite(address, query, cluster, seconds)
    if kind == "postgresql":
        return _postgres(address, query, cluster, seconds)
    if kind == "zookeeper":
        return _zookeeper(address, query, cluster, seconds)
    if kind == "memory":
        raise UsageError(f"the registry 'memory' works inside one process only; between processes use {EXAMPLES}")
    if kind == "mysql":
        return _mysql(address, query, cluster, seconds)
    if kind == "database":
        raise UsageError("the registry 'database' needs an address, as in database+postgresql://user@host/database")
    raise UsageError(f"there is no registry of the kind {kind!r}; there are {EXAMPLES}")


def _parts(url: str) -> tuple[str, str, dict[str, str]]:
    """Kind, address and query of a URL; `database+` and a driver such as `+asyncpg` are dropped from the kind."""
    kind, _, rest = url.strip().partition("://")
    kind = kind.lower().removeprefix("database+").split("+")[0]
    kind = {"postgres": "postgresql", "zk": "zookeeper", "mariadb": "mysql"}.get(kind, kind)
    address, _, query = rest.partition("?")
    return kind, address, dict(parse_qsl(query, keep_blank_values=True))


def _session(text: str | None, default: float) -> float:
    try:
        seconds = default if text is None else float(text)
    except ValueError:
        raise UsageError(f"session={text!r} in the registry's URL is not a number of seconds") from None
    if not SESSION_SECONDS_MIN <= seconds <= SESSION_SECONDS_MAX:
        raise UsageError(
            f"a registry session of {seconds:g} seconds is not usable: "
            f"it must be between {SESSION_SECONDS_MIN:g} and {SESSION_SECONDS_MAX:g} seconds"
        )
    return seconds


def _sqlite(address: str, query: dict[str, str], cluster: str, seconds: float) -> Registry:
    from dsfast.registry.leased import RosterRegistry
    from dsfast.registry.sqlite import SqliteRoster

    path = unquote(address.removeprefix("/"))
    _refuse_options("sqlite", query)
    if not path or path == ":memory:" or not address.startswith("/"):
        raise UsageError("a registry in SQLite needs a file: sqlite:///relative/path or sqlite:////absolute/path")
    return RosterRegistry(SqliteRoster(path, cluster, seconds), seconds)


def _postgres(address: str, query: dict[str, str], cluster: str, seconds: float) -> Registry:
    from dsfast.registry.leased import RosterRegistry
    from dsfast.registry.postgres import PostgresRoster

    place = address.rpartition("@")[2]
    if not place.partition("/")[2] and "database" not in query:
        raise UsageError(f"the registry's address {place!r} names no database: postgresql://user@host/database")
    dsn = f"postgresql://{address}" + (f"?{urlencode(query)}" if query else "")
    return RosterRegistry(PostgresRoster(dsn, place, cluster, seconds), seconds)


def _mysql(address: str, query: dict[str, str], cluster: str, seconds: float) -> Registry:
    if find_spec("pymysql") is None:
        raise UsageError("the registry in MySQL or MariaDB needs a driver: pip install 'dsfast[mysql]'")
    from dsfast.registry.leased import RosterRegistry
    from dsfast.registry.mysql import MysqlRoster

    _refuse_options("mysql", {name: value for name, value in query.items() if name not in MYSQL_OPTIONS}, MYSQL_OPTIONS)
    login, _, place = address.rpartition("@")
    server, _, database = place.partition("/")
    host, port = _host(server, MYSQL_PORT)
    if not database or port is None:
        raise UsageError(f"the registry's address {place!r} is not usable: mysql://user@host:3306/database")
    user, _, password = login.partition(":")
    arguments = {
        "host": host or "localhost",
        "port": port,
        "user": unquote(user) or None,
        "password": unquote(password),
        "database": unquote(database),
        "ssl_verify_identity": "ssl_ca" in query,
        **query,
    }
    return RosterRegistry(MysqlRoster(arguments, place, cluster, seconds), seconds)


def _host(server: str, default: int) -> tuple[str, int | None]:
    """Host and port of `host:port`; the port is None when it is none."""
    host, _, port = server.partition(":") if not server.startswith("[") else server[1:].partition("]:")
    if not port:
        return host.removesuffix("]"), default
    return host, int(port) if port.isdecimal() and 0 < int(port[:6]) < 65536 else None


def _zookeeper(address: str, query: dict[str, str], cluster: str, seconds: float) -> Registry:
    from dsfast.registry.ensemble import parse_ensemble
    from dsfast.registry.leased import RosterRegistry
    from dsfast.registry.zookeeper import ZooKeeperRoster

    return RosterRegistry(ZooKeeperRoster(parse_ensemble(address, query), cluster, seconds), seconds)


def _refuse_options(kind: str, query: dict[str, str], known: tuple[str, ...] = ()) -> None:
    if query:
        options = ", ".join(("session", *known))
        raise UsageError(f"a {kind} registry has no option {', '.join(sorted(query))}; it has: {options}")
