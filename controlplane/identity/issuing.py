"""Certificates as the product issues them, without any file: an authority's key pair in, signed certificates out.

Keys are EC P-256. A member's certificate says who it is (`identity.names`) and what it may do: nodes serve and call,
hosts and users only call, so that nobody can pose as a node with a stolen one of theirs. The authority's own carries
the cluster's trust domain and signs nothing but leaves.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controlplane.identity.names import SCHEME, IdentityError, Party, PartyKind, trust_domain, uris_of

_BACKDATE = datetime.timedelta(hours=1)
"""Clocks of hosts differ; a certificate is valid from a little before it was made, at most a tenth of its life."""
AUTHORITY_LIFE = datetime.timedelta(days=3650)
_SERVES = ExtendedKeyUsageOID.SERVER_AUTH
_CALLS = ExtendedKeyUsageOID.CLIENT_AUTH
_USAGES: dict[PartyKind, tuple[x509.ObjectIdentifier, ...]] = {
    "node": (_SERVES, _CALLS),
    "host": (_CALLS,),
    "user": (_CALLS,),
}


@dataclass(frozen=True, slots=True)
class Issuer:
    """An authority that can sign."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def cluster(self) -> str:
        """The cluster that it names members of. Raises IdentityError."""
        prefix = f"{SCHEME}://"
        found = [uri.removeprefix(prefix) for uri in uris_of(self.certificate) if uri.startswith(prefix)]
        if len(found) != 1:
            raise IdentityError("the authority's certificate names no trust domain, or several")
        return found[0]

    def issue(
        self,
        party: Party,
        public_key: ec.EllipticCurvePublicKey,
        *,
        life: datetime.timedelta,
        now: datetime.datetime,
        addresses: Sequence[str] = (),
    ) -> x509.Certificate:
        """A certificate that says that whoever has the key of `public_key` is `party`."""
        names = [*_dialled(_USAGES[party.kind], addresses), x509.UniformResourceIdentifier(party.uri)]
        return self._sign(party.name, public_key, _USAGES[party.kind], names, life=life, now=now)

    def issue_server(
        self,
        name: str,
        public_key: ec.EllipticCurvePublicKey,
        *,
        life: datetime.timedelta,
        now: datetime.datetime,
        addresses: Sequence[str],
    ) -> x509.Certificate:
        """For an HTTPS server that is no member of the cluster."""
        return self._sign(name, public_key, (_SERVES,), _dialled((_SERVES,), addresses), life=life, now=now)

    def cross(self, other: x509.Certificate, *, now: datetime.datetime) -> x509.Certificate:
        """Another authority's name and key, signed by this one, for as long as this one is valid: who knows this one
        alone believes by it what the other signs (RFC 4210, 4.4: the new key's certificate with the old key). Both have
        one name, so that it counts for no intermediate authority.
        """
        key = other.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or other.subject != self.certificate.subject:
            raise IdentityError("the other authority is none of this cluster")
        life = self.certificate.not_valid_after_utc - now
        return _authority(self.certificate.subject, key, self.cluster, self.certificate, life=life, now=now).sign(
            self.key, hashes.SHA256()
        )

    def _sign(
        self,
        name: str,
        public_key: ec.EllipticCurvePublicKey,
        usages: Sequence[x509.ObjectIdentifier],
        names: Sequence[x509.GeneralName],
        *,
        life: datetime.timedelta,
        now: datetime.datetime,
    ) -> x509.Certificate:
        return (
            _builder(_subject(name), self.certificate.subject, public_key, life=life, now=now)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(_signed_by(self.certificate), critical=False)
            .sign(self.key, hashes.SHA256())
        )


def new_issuer(cluster_id: str, *, now: datetime.datetime) -> Issuer:
    """A new authority of a cluster, signed by itself."""
    key = new_key()
    subject = _subject(f"flintlock {cluster_id}")
    unsigned = _authority(subject, key.public_key(), cluster_id, None, life=AUTHORITY_LIFE, now=now)
    return Issuer(unsigned.sign(key, hashes.SHA256()), key)


def load_issuer(certificate_pem: bytes, key_pem: bytes) -> Issuer:
    """Raises IdentityError when they are not a pair that can sign."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        key = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError) as error:
        raise IdentityError(str(error)) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityError("not an EC private key")
    if key.public_key() != certificate.public_key():
        raise IdentityError("the key does not belong to the certificate")
    return Issuer(certificate, key)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS#8, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of its DER, in hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def serial_text(certificate: x509.Certificate) -> str:
    """Its serial number as the product writes it everywhere: hex, lower case."""
    return f"{certificate.serial_number:x}"


def signing_request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A CSR (PEM) that says nothing but that its sender has `key`."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def requested_key(csr_pem: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a CSR whose sender has the private one; nothing else of it counts. Raises IdentityError."""
    try:
        request = x509.load_pem_x509_csr(csr_pem)
        signed = request.is_signature_valid
        key = request.public_key()
    except (ValueError, TypeError) as error:
        raise IdentityError(f"not a PEM certificate signing request: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError("the key of the signing request is not an EC key of the curve P-256")
    if not signed:
        raise IdentityError("the signing request is not signed by its own key")
    return key


def _authority(
    subject: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    cluster_id: str,
    signer: x509.Certificate | None,
    *,
    life: datetime.timedelta,
    now: datetime.datetime,
) -> x509.CertificateBuilder:
    """Of an authority of that cluster; `signer` None: signed by itself."""
    domain = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(trust_domain(cluster_id))])
    builder = (
        _builder(subject, subject, public_key, life=life, now=now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(domain, critical=False)
    )
    return builder if signer is None else builder.add_extension(_signed_by(signer), critical=False)


def _signed_by(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Which of several authorities of one name it was."""
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _dialled(usages: Sequence[x509.ObjectIdentifier], addresses: Sequence[str]) -> list[x509.GeneralName]:
    """The names at which a server is dialled."""
    if _SERVES not in usages:
        return []
    return [x509.DNSName("localhost"), *map(_general_name, addresses)]


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    *,
    life: datetime.timedelta,
    now: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - min(_BACKDATE, life / 10))
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


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
