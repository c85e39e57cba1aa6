"""A certificate's successor: when it is due, what it is asked for with, and what is not taken for one."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from controlplane.identity import issuing, renewing
from controlplane.identity.check import check_member
from controlplane.identity.files import TlsFiles
from controlplane.identity.names import IdentityError, Party, party_from_certificate

NOW = datetime.datetime(2026, 11, 26, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


@pytest.fixture
def issuer() -> issuing.Issuer:
    return issuing.new_issuer("c1", now=NOW)


@pytest.fixture
def files(tmp_path: Path, issuer: issuing.Issuer) -> TlsFiles:
    key = issuing.new_key()
    made = TlsFiles(ca=tmp_path / "ca.crt", certificate=tmp_path / "h1.crt", key=tmp_path / "h1.key")
    made.key.write_bytes(issuing.key_pem(key))
    certificate = issuer.issue(Party("c1", "host", "h1"), key.public_key(), life=DAY, now=NOW)
    made.certificate.write_bytes(issuing.certificate_pem(certificate))
    made.ca.write_bytes(issuing.certificate_pem(issuer.certificate))
    return made


def test_it_is_due_at_two_thirds_of_its_validity(files: TlsFiles) -> None:
    due = renewing.due_at(renewing.load(files)) - NOW
    assert datetime.timedelta(hours=15) < due < datetime.timedelta(hours=16)


def test_the_successor_is_for_the_same_key_and_takes_the_place_of_one_file(
    files: TlsFiles, issuer: issuing.Issuer
) -> None:
    before, key = renewing.load(files), files.key.read_bytes()
    public_key = issuing.requested_key(renewing.request(files))
    successor = issuer.issue(Party("c1", "host", "h1"), public_key, life=DAY, now=NOW + DAY / 2)
    renewing.adopt(files, issuing.certificate_pem(successor).decode(), files.ca.read_text())
    assert renewing.load(files).serial_number == successor.serial_number != before.serial_number
    assert files.key.read_bytes() == key
    assert check_member(files, NOW + DAY, kind="host", name="h1", cluster="c1") == []


@pytest.mark.parametrize("what", ["another key", "another name", "another cluster", "nonsense"])
def test_what_is_no_successor_is_not_taken(files: TlsFiles, issuer: issuing.Issuer, what: str) -> None:
    before = files.certificate.read_bytes()
    key = issuing.new_key().public_key() if what == "another key" else renewing.load(files).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    party = Party("c2" if what == "another cluster" else "c1", "host", "h2" if what == "another name" else "h1")
    offered = issuing.certificate_pem(issuer.issue(party, key, life=DAY, now=NOW)).decode()
    with pytest.raises(IdentityError):
        renewing.adopt(files, "nonsense" if what == "nonsense" else offered, files.ca.read_text())
    assert files.certificate.read_bytes() == before


def test_of_a_signing_request_only_the_key_counts(issuer: issuing.Issuer) -> None:
    key = issuing.new_key()
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://c1/node/n1")]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    public_key = issuing.requested_key(greedy.public_bytes(serialization.Encoding.PEM))
    certificate = issuer.issue(Party("c1", "host", "h1"), public_key, life=DAY, now=NOW)
    assert party_from_certificate(certificate) == Party("c1", "host", "h1")
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.subject.rfc4514_string() == "CN=h1"


def test_a_request_that_is_not_signed_by_its_own_key_is_refused() -> None:
    pem = issuing.signing_request(issuing.new_key())
    der = bytearray(x509.load_pem_x509_csr(pem).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    tampered = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(IdentityError, match="not signed by its own key"):
        issuing.requested_key(tampered)
    weak = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    other = weak.sign(rsa.generate_private_key(65537, 2048), hashes.SHA256())
    with pytest.raises(IdentityError, match="not an EC key of the curve P-256"):
        issuing.requested_key(other.public_bytes(serialization.Encoding.PEM))
    with pytest.raises(IdentityError, match="not a PEM certificate signing request"):
        issuing.requested_key(b"nonsense")


def test_an_expired_certificate_is_named_with_its_time(files: TlsFiles) -> None:
    (fault,) = check_member(files, NOW + 2 * DAY, kind="host", name="h1", cluster="c1")
    assert fault[0] == "certificate"
    assert "h1.crt: the certificate of CN=h1 expired at 2026-11-27 12:00 UTC" in fault[1]
