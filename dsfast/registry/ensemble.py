"""A ZooKeeper ensemble as its URL describes it: zookeeper://user:password@host:2181,host:2182/chroot?options."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from urllib.parse import unquote

from dsfast.errors import UsageError

DEFAULT_PORT = 2181
OPTIONS = ("auth", "tls", "ca", "cert", "key")
YES, NO = {"yes", "true", "1"}, {"no", "false", "0"}


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Where ZooKeeper is and how to present ourselves to it."""

    hosts: str  # host:port,host:port as kazoo takes it
    chroot: str = ""  # "" or /path: everything of ours is below it
    user: str | None = None
    password: str = field(default="", repr=False)
    sasl: bool = False  # SASL DIGEST-MD5 in place of ZooKeeper's own digest scheme
    tls: bool = False
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    @property
    def place(self) -> str:
        """The address as it may be shown to people."""
        return f"{self.hosts}{self.chroot}"


def parse_ensemble(address: str, options: dict[str, str]) -> Ensemble:
    """The ensemble behind a URL's address and options. Raises UsageError."""
    login, _, servers = address.rpartition("@")
    hosts, _, path = servers.partition("/")
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise UsageError(
            f"a zookeeper registry has no option {', '.join(unknown)}; it has: session, {', '.join(OPTIONS)}"
        )
    user, _, password = login.partition(":")
    ensemble = Ensemble(
        hosts=",".join(_host(host.strip()) for host in hosts.split(",")),
        chroot="/" + path.strip("/") if path.strip("/") else "",
        user=unquote(user) if login else None,
        password=unquote(password),
        sasl=_scheme(options.get("auth", "digest"), bool(login)) == "sasl",
        tls=_flag("tls", options.get("tls", "no")),
        ca=options.get("ca"),
        cert=options.get("cert"),
        key=options.get("key"),
    )
    _check(ensemble, options)
    return ensemble


def _host(text: str) -> str:
    """One server with its port; an IPv6 address stands in brackets."""
    bare = text.startswith("[") and text.endswith("]")
    host, _, port = (text, "", str(DEFAULT_PORT)) if bare or ":" not in text else text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(
            f"{text!r} in the registry's URL is no server: zookeeper://host1:2181,host2:2181/chroot "
            "(characters such as @ / : in a password are written as %40 %2F %3A)"
        )
    return f"{host}:{port}"


def _scheme(auth: str, login: bool) -> str:
    if auth not in ("digest", "sasl"):
        raise UsageError(f"auth={auth!r} in the registry's URL is unknown: it can be digest or sasl")
    if auth == "sasl" and not login:
        raise UsageError("auth=sasl in the registry's URL needs a user: zookeeper://user:password@host:2181?auth=sasl")
    if auth == "sasl" and find_spec("puresasl") is None:
        raise UsageError("auth=sasl needs the package pure-sasl: pip install pure-sasl")
    return auth


def _flag(name: str, text: str) -> bool:
    if text.lower() not in YES | NO:
        raise UsageError(f"{name}={text!r} in the registry's URL is unknown: it can be yes or no")
    return text.lower() in YES


def _check(ensemble: Ensemble, options: dict[str, str]) -> None:
    files = sorted({"ca", "cert", "key"} & set(options))
    if files and not ensemble.tls:
        raise UsageError(f"{', '.join(files)} in the registry's URL works with tls=yes only")
    if (ensemble.cert is None) != (ensemble.key is None):
        raise UsageError("cert and key in the registry's URL belong together: the client's certificate and its key")
