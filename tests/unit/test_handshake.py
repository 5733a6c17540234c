"""The handshake as two state machines: who gets in, and what an attacker gets to see."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dsfast.errors import ProtocolError
from dsfast.model import Member
from dsfast.runtime.handshake import AnotherLife, Dialling, HandshakeError, Identity, Listening, proof
from dsfast.wire.codec import encode
from dsfast.wire.commands import Challenge, Command, Execute, Hello, Ping, Proof, Welcome

KEY, OLD_KEY, OTHER_KEY = b"k" * 32, b"p" * 32, b"o" * 32
MASTER = Member("master", "m", "1", "127.0.0.1", 1)
WORKER = Member("worker", "w", "1", "127.0.0.1", 2)
ACCEPT = frozenset({"master", "api"})
DIAL_NONCE, LISTEN_NONCE = b"d" * 32, b"l" * 32


def dialling(*keys: bytes, me: Member = MASTER, expected: Member = WORKER, **changes: object) -> Dialling:
    identity = Identity(me, "c", keys or (KEY,))
    return Dialling(replace(identity, **changes), DIAL_NONCE, expected)  # type: ignore[arg-type]


def listening(*keys: bytes, me: Member = WORKER, **changes: object) -> Listening:
    identity = Identity(me, "c", keys or (KEY,))
    return Listening(replace(identity, **changes), LISTEN_NONCE, ACCEPT)  # type: ignore[arg-type]


def give(side: Dialling | Listening, command: Command) -> Command | None:
    """Hand a command to a side as its frame's body."""
    return side.receive(command.KIND, body_of(command))


def body_of(command: Command) -> bytes:
    return encode(command)[20:]


def shake(dialler: Dialling, listener: Listening) -> None:
    """Run a whole handshake. Raises what either side raises."""
    challenge = give(listener, dialler.start())
    assert isinstance(challenge, Challenge)
    answer = give(dialler, challenge)
    assert isinstance(answer, Proof)
    welcome = give(listener, answer)
    assert isinstance(welcome, Welcome)
    assert give(dialler, welcome) is None


def test_both_sides_end_up_knowing_each_other() -> None:
    dialler, listener = dialling(), listening()
    shake(dialler, listener)
    assert (dialler.peer, listener.peer) == (WORKER, MASTER)


@pytest.mark.parametrize(
    ("dialler_keys", "listener_keys"),
    [
        ((OLD_KEY,), (OLD_KEY, KEY)),
        ((OLD_KEY,), (KEY, OLD_KEY)),
        ((KEY, OLD_KEY), (OLD_KEY,)),
        ((OLD_KEY, KEY), (OLD_KEY,)),
        ((OLD_KEY, KEY), (OLD_KEY, KEY)),
        ((OTHER_KEY, KEY), (KEY, OLD_KEY)),
    ],
)
def test_one_key_in_common_is_enough(dialler_keys: tuple[bytes, ...], listener_keys: tuple[bytes, ...]) -> None:
    dialler, listener = dialling(*dialler_keys), listening(*listener_keys)
    shake(dialler, listener)
    assert (dialler.peer, listener.peer) == (WORKER, MASTER)


def test_the_dialler_does_not_answer_a_listener_with_another_key() -> None:
    dialler = dialling(OTHER_KEY)
    with pytest.raises(HandshakeError, match="must have a key in common") as caught:
        shake(dialler, listening())
    assert caught.value.code == "proof"
    assert not dialler.trusted
    assert dialler.peer is None


def test_the_listener_does_not_let_in_a_dialler_with_another_key() -> None:
    """The dialler is an attacker's: it goes on although the listener's proof means nothing to it."""
    listener = listening()
    give(listener, dialling().start())
    identity = Identity(MASTER, "c", (OTHER_KEY,))
    wrong = proof(identity, OTHER_KEY, b"dialler", DIAL_NONCE, LISTEN_NONCE, MASTER, WORKER)
    with pytest.raises(HandshakeError) as caught:
        give(listener, Proof(wrong))
    assert caught.value.code == "proof"
    assert listener.peer is None
    assert not listener.trusted


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64, 96])
def test_a_proof_of_any_length_but_the_right_one_is_wrong(length: int) -> None:
    listener = listening()
    give(listener, dialling().start())
    with pytest.raises(HandshakeError):
        give(listener, Proof(bytes(length)))


def test_the_listeners_own_proof_sent_back_to_it_is_worthless() -> None:
    """Reflection: all that an attacker without the key can get is the listener's proof."""
    listener = listening()
    challenge = give(listener, Hello("c", MASTER, LISTEN_NONCE))
    assert isinstance(challenge, Challenge)
    with pytest.raises(HandshakeError):
        give(listener, Proof(challenge.proof))


def test_the_diallers_own_proof_sent_back_to_it_is_worthless() -> None:
    identity = Identity(MASTER, "c", (KEY,))
    mirrored = proof(identity, KEY, b"dialler", DIAL_NONCE, DIAL_NONCE, MASTER, WORKER)
    dialler = dialling()
    dialler.start()
    with pytest.raises(HandshakeError):
        give(dialler, Challenge(WORKER, DIAL_NONCE, mirrored))


def test_a_recorded_handshake_does_not_open_another_link() -> None:
    dialler, first = dialling(), listening()
    hello = dialler.start()
    challenge = give(first, hello)
    assert isinstance(challenge, Challenge)
    recorded = give(dialler, challenge)
    assert isinstance(recorded, Proof)
    second = Listening(Identity(WORKER, "c", (KEY,)), b"n" * 32, ACCEPT)
    give(second, hello)
    with pytest.raises(HandshakeError):
        give(second, recorded)


@pytest.mark.parametrize(
    "lie",
    [
        Member("api", "m", "1", "127.0.0.1", 1),
        Member("master", "x", "1", "127.0.0.1", 1),
        Member("master", "m", "2", "127.0.0.1", 1),
        Member("master", "m", "1", "127.0.0.1", 1, groups=("gpu",)),
    ],
)
def test_nobody_in_between_can_change_who_is_introduced(lie: Member) -> None:
    dialler, listener = dialling(), listening()
    hello = dialler.start()
    challenge = give(listener, Hello(hello.cluster, lie, hello.nonce))
    assert isinstance(challenge, Challenge)
    with pytest.raises(HandshakeError):
        give(dialler, challenge)


def test_a_listener_in_between_that_shows_another_certificate_is_found_out() -> None:
    with pytest.raises(HandshakeError, match="does not hold this cluster's key"):
        shake(dialling(binding=b"its certificate"), listening(binding=b"our certificate"))
    shake(dialling(binding=b"our certificate"), listening(binding=b"our certificate"))


def test_another_cluster_is_turned_away_before_anything_is_proved() -> None:
    listener = listening()
    with pytest.raises(HandshakeError, match="of another cluster: 'd'") as caught:
        give(listener, dialling(cluster="d").start())
    assert caught.value.code == "cluster"


def test_a_role_that_is_not_accepted_is_turned_away_after_its_proof() -> None:
    visitor = Member("worker", "v", "1")
    dialler, listener = dialling(me=visitor), listening()
    with pytest.raises(HandshakeError, match="this port is for api and master") as caught:
        shake(dialler, listener)
    assert caught.value.code == "role"
    assert listener.peer is None


def test_another_life_is_told_apart_only_once_it_has_proved_the_key() -> None:
    restarted = Member("worker", "w", "2", "127.0.0.1", 2)
    with pytest.raises(AnotherLife) as caught:
        shake(dialling(), listening(me=restarted))
    assert caught.value.found == restarted
    with pytest.raises(HandshakeError) as refused:
        shake(dialling(), listening(OTHER_KEY, me=restarted))
    assert not isinstance(refused.value, AnotherLife)


def test_another_daemon_at_the_address_is_not_taken_for_another_life() -> None:
    """Two workers may announce one address by mistake: that must not declare either of them dead."""
    neighbour = Member("worker", "v", "2", "127.0.0.1", 2)
    with pytest.raises(HandshakeError, match="worker v@2 listens where w@1 should") as caught:
        shake(dialling(), listening(me=neighbour))
    assert not isinstance(caught.value, AnotherLife)


def test_a_dialler_that_expects_nobody_in_particular_takes_any_life() -> None:
    dialler = dialling(expected=Member("worker", "", "", "127.0.0.1", 2))
    shake(dialler, listening())
    assert dialler.peer == WORKER


def test_a_daemon_does_not_link_to_itself() -> None:
    with pytest.raises(HandshakeError, match="dialled itself"):
        shake(dialling(expected=MASTER), listening(me=MASTER))


@pytest.mark.parametrize("command", [Ping(), Proof(b"x" * 32), Challenge(MASTER, b"n" * 32, b"p" * 32), Welcome()])
def test_a_listener_looks_at_nothing_but_a_hello_first(command: Command) -> None:
    with pytest.raises(HandshakeError, match="expected Hello but got a frame of kind"):
        give(listening(), command)


def test_frames_that_are_not_due_are_refused_unread() -> None:
    listener = listening()
    with pytest.raises(HandshakeError, match="expected Hello"):
        listener.receive(Execute.KIND, b"not even msgpack")
    give(listener, dialling().start())
    with pytest.raises(HandshakeError, match="expected Proof"):
        give(listener, dialling().start())
    dialler = dialling()
    dialler.start()
    with pytest.raises(HandshakeError, match="expected Challenge"):
        give(dialler, Welcome())


@pytest.mark.parametrize("nonce", [b"", b"n" * 31, b"n" * 33])
def test_a_nonce_has_exactly_its_length(nonce: bytes) -> None:
    with pytest.raises(HandshakeError, match="a nonce of"):
        give(listening(), Hello("c", MASTER, nonce))
    dialler = dialling()
    dialler.start()
    with pytest.raises(HandshakeError, match="a nonce of"):
        give(dialler, Challenge(WORKER, nonce, b"p" * 32))


def test_what_a_stranger_says_of_itself_is_cut_short_in_our_log() -> None:
    loud = Member("worker", "w" * 3000, "1")
    with pytest.raises(HandshakeError) as caught:
        give(listening(), Hello("x" * 500, loud, b"n" * 32))
    assert len(str(caught.value)) < 300


def test_a_malformed_frame_of_the_right_kind_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="malformed Hello of 3 bytes"):
        listening().receive(Hello.KIND, b"abc")


def test_the_dialler_trusts_before_its_proof_and_the_listener_after_it() -> None:
    """From then on large frames are taken, so it must not happen a step too early or too late."""
    dialler, listener = dialling(), listening()
    challenge = give(listener, dialler.start())
    assert isinstance(challenge, Challenge)
    assert (dialler.trusted, listener.trusted) == (False, False)
    answer = give(dialler, challenge)
    assert isinstance(answer, Proof)
    assert (dialler.trusted, listener.trusted) == (True, False)
    give(listener, answer)
    assert listener.trusted
