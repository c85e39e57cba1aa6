"""A certificate authority whose key pair lies in a directory.

`flintctl dev up` makes one for its throwaway cluster, so that TLS and credentials are there from the first command on.
What it puts into certificates is what `identity.issuing` puts there. Every file is written whole and never replaced.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from controlplane.identity import issuing, storage
from controlplane.identity.files import TlsFiles
from controlplane.identity.names import IdentityError, Party, PartyKind

CA_CERTIFICATE = "ca.crt"
CA_KEY = "ca.key"
_LIFE = datetime.timedelta(days=825)


class Authority:
    """Issues certificates of one cluster from the key pair in one directory."""

    def __init__(self, directory: Path, issuer: issuing.Issuer) -> None:
        """Raises IdentityError when the pair is not one of a cluster."""
        self.directory = directory
        self._issuer = issuer
        self._cluster = issuer.cluster

    @property
    def certificate_path(self) -> Path:
        return self.directory / CA_CERTIFICATE

    @classmethod
    def create(cls, directory: Path, *, cluster_id: str) -> Authority:
        """Make a key pair in `directory`. Raises IdentityError when there is one already."""
        storage.private_directory(directory)
        issuer = issuing.new_issuer(cluster_id, now=_now())
        _write(directory / CA_KEY, issuing.key_pem(issuer.key), mode=0o600)
        _write(directory / CA_CERTIFICATE, issuing.certificate_pem(issuer.certificate), mode=0o644)
        return cls(directory, issuer)

    @classmethod
    def load(cls, directory: Path) -> Authority:
        """Raises IdentityError when the pair is missing or damaged."""
        try:
            issuer = issuing.load_issuer((directory / CA_CERTIFICATE).read_bytes(), (directory / CA_KEY).read_bytes())
            return cls(directory, issuer)
        except (OSError, IdentityError) as error:
            raise IdentityError(f"{directory}: no usable certificate authority: {error}") from error

    def issue_node(self, node: str, directory: Path, *, addresses: Sequence[str] = ("127.0.0.1",)) -> TlsFiles:
        """For a control-plane member: serves the API, agents and its peers, and calls its peers."""
        return self._issue("node", node, directory, addresses)

    def issue_host(self, host: str, directory: Path) -> TlsFiles:
        """For a host's agent, which only calls."""
        return self._issue("host", host, directory)

    def issue_server(self, name: str, directory: Path, *, addresses: Sequence[str] = ("127.0.0.1",)) -> TlsFiles:
        """For an HTTPS server outside the cluster, such as a proxy: no member's name, no client use."""
        key = issuing.new_key()
        certificate = self._issuer.issue_server(name, key.public_key(), life=_LIFE, now=_now(), addresses=addresses)
        return self._write(name, directory, key, certificate)

    def _issue(self, kind: PartyKind, name: str, directory: Path, addresses: Sequence[str] = ()) -> TlsFiles:
        key = issuing.new_key()
        party = Party(self._cluster, kind, name)
        certificate = self._issuer.issue(party, key.public_key(), life=_LIFE, now=_now(), addresses=addresses)
        return self._write(name, directory, key, certificate)

    def _write(
        self, name: str, directory: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
    ) -> TlsFiles:
        storage.private_directory(directory)
        files = TlsFiles(ca=self.certificate_path, certificate=directory / f"{name}.crt", key=directory / f"{name}.key")
        _write(files.key, issuing.key_pem(key), mode=0o600)
        _write(files.certificate, issuing.certificate_pem(certificate), mode=0o644)
        return files


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _write(path: Path, data: bytes, *, mode: int) -> None:
    try:
        storage.create(path, data, mode=mode)
    except FileExistsError:
        raise IdentityError(
            f"{path} exists already and is not replaced; remove it or choose another directory"
        ) from None
