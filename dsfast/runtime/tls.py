"""TLS for the command channel, tied to the cluster's key.

The digest of the listener's certificate is part of both proofs of the handshake. Whoever sits in between shows
another certificate and cannot make the proofs come out, so any certificate will do, one signed by itself too:
it is the key that vouches for it. Contexts that check names and authorities as well are welcome.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path

from dsfast.config import ClusterConfig
from dsfast.errors import UsageError
from dsfast.runtime.keys import require_private


@dataclass(frozen=True, slots=True)
class Tls:
    """Contexts for both sides of a daemon's links, and the certificate (DER) that `server` presents."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    certificate: bytes

    def binding_of_listener(self) -> bytes:
        """What we put into the proofs of links that were dialled to us."""
        return hashlib.sha256(self.certificate).digest()


def binding_of_dialler(transport: asyncio.Transport) -> bytes:
    """What we put into the proofs of a link that we dialled: the digest of what the peer presented."""
    session: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    if session is None:
        return b""
    return hashlib.sha256(session.getpeercert(binary_form=True) or b"").digest()


def tls_of(cluster: ClusterConfig) -> Tls | None:
    """What the configuration says about TLS. Raises UsageError when it is on and its files cannot be used."""
    return load_tls(cluster.tls_certificate, cluster.tls_key) if cluster.tls else None


def load_tls(certificate: Path, key: Path, authority: Path | None = None) -> Tls:
    """Contexts for TLS 1.3 from PEM files; with an authority, peers' certificates and names are checked against it.

    Raises UsageError when a file is missing or is not what it should be.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.minimum_version = client.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        require_private(key, key.stat(), "the private key of the certificate")
        server.load_cert_chain(certificate, key)
        if authority is None:
            client.check_hostname = False
            client.verify_mode = ssl.CERT_NONE  # the handshake's proofs vouch for the certificate
        else:
            client.load_verify_locations(authority)
        first = certificate.read_text().partition("-----END CERTIFICATE-----")
        return Tls(server, client, ssl.PEM_cert_to_DER_cert(first[0][first[0].index("-----BEGIN") :] + first[1]))
    except (OSError, ValueError) as error:
        raise UsageError(f"TLS files {certificate} and {key} cannot be used: {error}") from error
