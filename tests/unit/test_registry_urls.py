"""From URLs to registries: what is accepted, what is refused, and with which sentence."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsfast.errors import UsageError
from dsfast.registry import open_registry
from dsfast.registry.ensemble import parse_ensemble
from dsfast.registry.leased import RosterRegistry

PASSWORD = "open-sesame"


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///members.db",
        "sqlite:////var/lib/dsfast/members.db?session=5",
        "database+sqlite:///members.db",
        "postgresql://dsfast@db.example/dsfast",
        "postgres://dsfast@db.example/dsfast?sslmode=require",
        "postgresql+asyncpg://dsfast@db.example/dsfast",
        "database+postgresql://dsfast:secret@db.example:5433/dsfast?session=20",
        "zookeeper://zk1:2181,zk2:2181,zk3:2181/production?session=10",
        "mysql://dsfast:secret@db.example:3307/dsfast?session=20",
        "database+mariadb://dsfast@[::1]/dsfast?ssl_ca=/etc/ca.pem",
        "zookeeper://zk1",
        "zk://[::1]:2181",
    ],
)
def test_what_is_accepted(url: str) -> None:
    assert isinstance(open_registry(url, cluster="c", session_seconds=10), RosterRegistry)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("memory", "works inside one process only"),
        ("memory://", "works inside one process only"),
        ("database", r"needs an address, as in database\+postgresql://"),
        ("mysql://db", "'db' is not usable"),
        ("mysql://db:port/dsfast", "'db:port/dsfast' is not usable"),
        ("mysql://db/dsfast?local_infile=1", "has no option local_infile; it has: session, ssl_ca"),
        ("oracle://db/dsfast", "no registry of the kind 'oracle'"),
        ("", "no registry of the kind ''"),
        ("/var/lib/members.db", "no registry of the kind"),
        ("sqlite://", "needs a file"),
        ("sqlite:///", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("sqlite://members.db", "needs a file"),
        ("sqlite:///members.db?sesion=3", "has no option sesion"),
        ("postgresql://dsfast@db.example", "'db.example' names no database"),
        ("zookeeper://", "is no server"),
        ("zookeeper://zk1:2181,,zk3:2181", "is no server"),
        ("zookeeper://zk1:port", "'zk1:port' in the registry's URL is no server"),
        ("zookeeper://zk1:70000", "is no server"),
        ("zookeeper://zk1?timeout=3", "has no option timeout; it has: session, auth"),
        ("zookeeper://zk1?auth=kerberos", "it can be digest or sasl"),
        ("zookeeper://zk1?auth=sasl", "auth=sasl in the registry's URL needs a user"),
        ("zookeeper://zk1?tls=maybe", "it can be yes or no"),
        ("zookeeper://zk1?ca=/etc/ca.pem", "works with tls=yes only"),
        ("zookeeper://zk1?tls=yes&cert=/etc/me.pem", "belong together"),
        ("zookeeper://zk1?session=ten", "'ten' in the registry's URL is not a number"),
        ("zookeeper://zk1?session=10000", "between 0.5 and 300 seconds"),
    ],
)
def test_what_is_refused_and_how(url: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        open_registry(url, cluster="c", session_seconds=10)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.1, 301.0, 10_000.0, float("nan")])
def test_a_session_in_milliseconds_is_caught(seconds: float) -> None:
    with pytest.raises(UsageError, match=r"must be between 0.5 and 300 seconds"):
        open_registry("zookeeper://zk1", cluster="c", session_seconds=seconds)


@pytest.mark.parametrize("cluster", ["", "a/b", "..", "a b", "x" * 65])
def test_a_clusters_name_is_part_of_paths(cluster: str) -> None:
    with pytest.raises(UsageError, match="the cluster's name"):
        open_registry("zookeeper://zk1", cluster=cluster, session_seconds=10)


@pytest.mark.parametrize(
    "url",
    [
        f"zookeeper://anna:{PASSWORD}@zk1:port",
        f"zookeeper://anna:{PASSWORD}@zk1?timeout=3",
        f"zookeeper://anna:{PASSWORD}@zk1?tls=maybe",
        f"postgresql://anna:{PASSWORD}@db.example",
        f"mysql://anna:{PASSWORD}@db.example:port/dsfast",
        f"oracle://anna:{PASSWORD}@db.example/dsfast",
    ],
)
def test_no_sentence_shows_a_password(url: str) -> None:
    with pytest.raises(UsageError) as refusal:
        open_registry(url, cluster="c", session_seconds=10)
    assert PASSWORD not in str(refusal.value)


def test_an_ensemble_with_everything() -> None:
    ensemble = parse_ensemble(
        "anna:p%40ss%3Aw%2Ford@zk1,[::1]:2182,zk3:2183/a/b/",
        {"tls": "yes", "ca": "ca.pem", "cert": "me.pem", "key": "me.key"},
    )
    assert (ensemble.hosts, ensemble.chroot) == ("zk1:2181,[::1]:2182,zk3:2183", "/a/b")
    assert (ensemble.user, ensemble.password, ensemble.sasl) == ("anna", "p@ss:w/ord", False)
    assert (ensemble.tls, ensemble.ca, ensemble.cert, ensemble.key) == (True, "ca.pem", "me.pem", "me.key")
    assert "p@ss" not in repr(ensemble)
    assert ensemble.place == "zk1:2181,[::1]:2182,zk3:2183/a/b"


@given(st.text(max_size=60))
def test_any_text_is_a_registry_or_a_sentence(text: str) -> None:
    with suppress(UsageError):
        open_registry(text, cluster="c", session_seconds=10)


@given(st.sampled_from(["zookeeper", "sqlite", "postgresql", "mysql"]), st.text(max_size=60))
def test_any_address_is_a_registry_or_a_sentence(kind: str, address: str) -> None:
    with suppress(UsageError):
        open_registry(f"{kind}://{address}", cluster="c", session_seconds=10)
