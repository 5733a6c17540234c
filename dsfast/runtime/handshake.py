"""Who is at the other end: both sides prove that they hold the cluster's key, without showing it.

    dialler                                      listener
      Hello(cluster, member, nonce)      ->
                                         <-      Challenge(member, nonce, proofs)
      Proof(proof)                       ->
                                         <-      Welcome()

A proof is HMAC-SHA256 under the cluster's key over a fixed label, the side that makes it, the cluster's name,
both nonces, both members and the TLS certificate if there is one. Fresh nonces make a recorded handshake
worthless; the side in the MAC makes a proof worthless when sent back to its maker; the members in it mean that
nobody is introduced as somebody else. During a rotation each side holds two keys: the listener proves both, the
dialler answers with the one that it knows too.

The listener shows what it knows only to who speaks correctly, and never says why it hangs up: `code` and the
sentence of a HandshakeError are for its own log. These are plain state machines: bytes and random nonces come
in as arguments, and what to send is returned.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection
from dataclasses import dataclass

import msgspec

from dsfast.errors import ProtocolError
from dsfast.model import Member
from dsfast.wire.codec import decode
from dsfast.wire.commands import Challenge, Command, Hello, Proof, Welcome

NONCE_BYTES = 32  # as long as the MAC: guessing one is no easier than guessing a proof
PROOF_BYTES = 32
KEYS_MAX = 2  # the old and the new key of a rotation; more would only hide that one was never finished

_LABEL = b"dsfast link 1"


class HandshakeError(ProtocolError):
    """The peer is not who it should be. `code` is one word for counting, the text a sentence for our own log."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class AnotherLife(HandshakeError):
    """The peer proved the cluster's key, and is a later life of the daemon that was dialled."""

    def __init__(self, expected: Member, found: Member) -> None:
        super().__init__("another_life", f"{found.id} listens where {expected.id} used to")
        self.found = found


@dataclass(frozen=True, slots=True)
class Identity:
    """What a daemon brings to every handshake. `binding` is the digest of the TLS certificate in use, or nothing."""

    me: Member
    cluster: str
    keys: tuple[bytes, ...]
    binding: bytes = b""

    def __post_init__(self) -> None:
        assert 1 <= len(self.keys) <= KEYS_MAX, f"a cluster has one key, or two during a rotation, not {len(self.keys)}"


class Handshake:
    """One side of one handshake: feed it frames until `peer` is known."""

    def __init__(self, identity: Identity, nonce: bytes) -> None:
        assert len(nonce) == NONCE_BYTES, f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}"
        self._identity = identity
        self._nonce = nonce
        self._awaits: type[Command] = Command
        self.trusted = False  # the peer has proved the key: what it says may take memory
        self.peer: Member | None = None  # set once both sides are satisfied

    def _open(self, kind: int, body: bytes) -> Command:
        """The command that is due. Anything else is refused unread."""
        if kind != self._awaits.KIND:
            raise HandshakeError("protocol", f"expected {self._awaits.__name__} but got a frame of kind {kind}")
        return decode(kind, body)


class Dialling(Handshake):
    """The side that connects. `expected.boot` may be empty: then any life of any daemon there will do."""

    def __init__(self, identity: Identity, nonce: bytes, expected: Member) -> None:
        super().__init__(identity, nonce)
        self._expected = expected
        self._found: Member | None = None

    def start(self) -> Hello:
        """What to send first."""
        self._awaits = Challenge
        return Hello(self._identity.cluster, self._identity.me, self._nonce)

    def receive(self, kind: int, body: bytes) -> Command | None:
        """What to send next, if anything. Raises ProtocolError when the peer is not to be spoken to."""
        command = self._open(kind, body)
        if isinstance(command, Challenge):
            return self._answer(command)
        self.peer = self._found
        return None

    def _answer(self, challenge: Challenge) -> Proof:
        _require_nonce(challenge.nonce)
        found = challenge.member
        macs = [self._mac(key, challenge) for key in self._identity.keys]
        key = _key_that_was_proved(self._identity.keys, macs, challenge.proof)
        if key is None:
            text = f"{_claims(found)} does not hold this cluster's key: its key file and ours must have a key in common"
            raise HandshakeError("proof", text)
        self._require_expected(found)
        self._awaits, self._found, self.trusted = Welcome, found, True
        identity = self._identity
        return Proof(proof(identity, key, b"dialler", self._nonce, challenge.nonce, identity.me, found))

    def _require_expected(self, found: Member) -> None:
        expected = self._expected
        if not expected.boot or found.id == expected.id:
            return
        if (found.role, found.name) == (expected.role, expected.name):
            raise AnotherLife(expected, found)
        # Says nothing about the one we look for: the two may announce one address by mistake.
        raise HandshakeError("another_daemon", f"{found.role} {found.id} listens where {expected.id} should")

    def _mac(self, key: bytes, challenge: Challenge) -> bytes:
        identity = self._identity
        return proof(identity, key, b"listener", self._nonce, challenge.nonce, identity.me, challenge.member)


class Listening(Handshake):
    """The side that was connected to. `accept` holds the roles that may use it once they have proved the key."""

    def __init__(self, identity: Identity, nonce: bytes, accept: Collection[str]) -> None:
        super().__init__(identity, nonce)
        self._accept = accept
        self._hello: Hello | None = None
        self._awaits = Hello

    def receive(self, kind: int, body: bytes) -> Command:
        """What to send next. Raises ProtocolError when the peer is not to be spoken to."""
        command = self._open(kind, body)
        if isinstance(command, Hello):
            return self._challenge(command)
        assert isinstance(command, Proof)
        return self._admit(command)

    def _challenge(self, hello: Hello) -> Challenge:
        _require_nonce(hello.nonce)
        if hello.cluster != self._identity.cluster:
            raise HandshakeError("cluster", f"{_claims(hello.member)} is of another cluster: {hello.cluster[:80]!r}")
        self._awaits, self._hello = Proof, hello
        proofs = [self._mac(key, b"listener", hello) for key in self._identity.keys]
        return Challenge(self._identity.me, self._nonce, b"".join(proofs))

    def _admit(self, command: Proof) -> Welcome:
        hello = self._hello
        assert hello is not None
        macs = [self._mac(key, b"dialler", hello) for key in self._identity.keys]
        if _key_that_was_proved(self._identity.keys, macs, command.proof) is None:
            raise HandshakeError("proof", f"{_claims(hello.member)} does not hold this cluster's key")
        if hello.member.role not in self._accept:
            roles = " and ".join(sorted(self._accept)) or "nobody"
            raise HandshakeError("role", f"{_claims(hello.member)} has no business here: this port is for {roles}")
        if hello.member.id == self._identity.me.id:
            raise HandshakeError("self", "dialled itself")
        self.peer, self.trusted = hello.member, True
        return Welcome()

    def _mac(self, key: bytes, side: bytes, hello: Hello) -> bytes:
        return proof(self._identity, key, side, hello.nonce, self._nonce, hello.member, self._identity.me)


def proof(
    identity: Identity,
    key: bytes,
    side: bytes,
    dialler_nonce: bytes,
    listener_nonce: bytes,
    dialler: Member,
    listener: Member,
) -> bytes:
    """The MAC that one side sends: over everything that both of them can see. msgpack keeps the parts apart."""
    parts = (_LABEL, side, identity.cluster, dialler_nonce, listener_nonce, dialler, listener, identity.binding)
    return hmac.digest(key, msgspec.msgpack.encode(parts), hashlib.sha256)


def _key_that_was_proved(keys: tuple[bytes, ...], macs: list[bytes], proofs: bytes) -> bytes | None:
    """The first of our keys whose MAC is among the proofs (one, or two during a rotation)."""
    found: bytes | None = None
    if len(proofs) in (PROOF_BYTES, PROOF_BYTES * KEYS_MAX):
        for start in range(0, len(proofs), PROOF_BYTES):
            for key, mac in zip(keys, macs, strict=True):
                if hmac.compare_digest(mac, proofs[start : start + PROOF_BYTES]) and found is None:
                    found = key
    return found


def _require_nonce(nonce: bytes) -> None:
    if len(nonce) != NONCE_BYTES:
        raise HandshakeError("protocol", f"a nonce of {len(nonce)} bytes, {NONCE_BYTES} are due")


def _claims(member: Member) -> str:
    """A name that nobody has vouched for yet, cut to what a log line bears."""
    return f"who says it is {member.role[:16]} {member.id[:80]!r}"
