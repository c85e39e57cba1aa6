"""A small certificate authority for throwaway clusters.

`flintctl dev up` makes one, so that TLS and credentials are there from the first command on. A production cluster
brings its own authority; what it must put into certificates is what `issue_*` puts there
(docs/guides/certificates.md). Keys are EC P-256, every file is written whole and never replaced.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controlplane.identity import storage
from controlplane.identity.files import TlsFiles
from controlplane.identity.names import IdentityError, Party

CA_CERTIFICATE = "ca.crt"
CA_KEY = "ca.key"
_BACKDATE = datetime.timedelta(hours=1)
"""Clocks of hosts differ; a certificate is valid from a little before it was made."""
_SERVES = ExtendedKeyUsageOID.SERVER_AUTH
_CALLS = ExtendedKeyUsageOID.CLIENT_AUTH


class Authority:
    """Issues certificates from the key pair in one directory."""

    def __init__(self, directory: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.directory = directory
        self._certificate = certificate
        self._key = key

    @property
    def certificate_path(self) -> Path:
        return self.directory / CA_CERTIFICATE

    @classmethod
    def create(cls, directory: Path, *, name: str, valid_days: int = 3650) -> Authority:
        """Make a key pair in `directory`. Raises IdentityError when there is one already."""
        storage.private_directory(directory)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(subject, subject, key.public_key(), valid_days)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        certificate = builder.sign(key, hashes.SHA256())
        _write(directory / CA_KEY, _key_pem(key), mode=0o600)
        _write(directory / CA_CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
        return cls(directory, certificate, key)

    @classmethod
    def load(cls, directory: Path) -> Authority:
        """Raises IdentityError when the pair is missing or damaged."""
        try:
            certificate = x509.load_pem_x509_certificate((directory / CA_CERTIFICATE).read_bytes())
            key = serialization.load_pem_private_key((directory / CA_KEY).read_bytes(), password=None)
        except (OSError, ValueError) as error:
            raise IdentityError(f"{directory}: no usable certificate authority: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise IdentityError(f"{directory / CA_KEY}: not an EC private key")
        if key.public_key() != certificate.public_key():
            raise IdentityError(f"{directory}: {CA_KEY} does not belong to {CA_CERTIFICATE}")
        return cls(directory, certificate, key)

    def issue_node(self, node: str, directory: Path, *, addresses: Sequence[str] = ("127.0.0.1",)) -> TlsFiles:
        """For a control-plane member: serves the API, agents and its peers, and calls its peers."""
        return self._issue(node, directory, (_SERVES, _CALLS), party=Party("node", node), addresses=addresses)

    def issue_host(self, host: str, directory: Path) -> TlsFiles:
        """For a host's agent, which only calls: with a stolen one nobody can pose as a node."""
        return self._issue(host, directory, (_CALLS,), party=Party("host", host))

    def issue_server(self, name: str, directory: Path, *, addresses: Sequence[str] = ("127.0.0.1",)) -> TlsFiles:
        """For an HTTPS server outside the cluster, such as a proxy: no flintlock:// name, no client use."""
        return self._issue(name, directory, (_SERVES,), addresses=addresses)

    def _issue(
        self,
        name: str,
        directory: Path,
        usages: Sequence[x509.ObjectIdentifier],
        *,
        party: Party | None = None,
        addresses: Sequence[str] = (),
    ) -> TlsFiles:
        storage.private_directory(directory)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(subject, self._certificate.subject, key.public_key(), 825)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
        sans: list[x509.GeneralName] = [_general_name(address) for address in addresses]
        if _SERVES in usages:
            sans.insert(0, x509.DNSName("localhost"))
        if party is not None:
            sans.append(x509.UniformResourceIdentifier(party.uri))
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
        authority_key = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_key)
        certificate = builder.add_extension(identifier, critical=False).sign(self._key, hashes.SHA256())
        files = TlsFiles(ca=self.certificate_path, certificate=directory / f"{name}.crt", key=directory / f"{name}.key")
        _write(files.key, _key_pem(key), mode=0o600)
        _write(files.certificate, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
        return files


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, valid_days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + datetime.timedelta(days=valid_days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes, *, mode: int) -> None:
    try:
        storage.create(path, data, mode=mode)
    except FileExistsError:
        raise IdentityError(
            f"{path} exists already and is not replaced; remove it or choose another directory"
        ) from None
