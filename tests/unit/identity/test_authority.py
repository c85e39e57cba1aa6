"""Certificates that the throwaway authority issues work in real TLS handshakes, and its files are safe."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from controlplane.identity import names
from controlplane.identity.authority import Authority
from controlplane.identity.files import TlsFiles
from controlplane.identity.names import IdentityError, Party


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "ca", cluster_id="test")


def _handshake(server: TlsFiles, client: TlsFiles, *, server_name: str = "127.0.0.1") -> tuple[Party, Party]:
    """Both sides' view of the other one, over a real mutual TLS handshake. Raises ssl.SSLError."""
    listening = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(server.ca))
    listening.verify_mode = ssl.CERT_REQUIRED
    listening.load_cert_chain(server.certificate, server.key)
    calling = ssl.create_default_context(cafile=str(client.ca))
    calling.load_cert_chain(client.certificate, client.key)
    calling.verify_flags |= ssl.VERIFY_X509_STRICT
    seen: list[Party] = []
    near, far = socket.socketpair()
    near.settimeout(10)
    far.settimeout(10)

    def serve() -> None:
        try:
            with listening.wrap_socket(far, server_side=True) as connection:
                seen.append(names.party_from_peercert(connection.getpeercert()))
                connection.sendall(b"x")
        except (ssl.SSLError, OSError):
            far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with calling.wrap_socket(near, server_hostname=server_name) as connection:
            if connection.recv(1) != b"x":
                raise ssl.SSLError("the server hung up")
            return seen[0], names.party_from_peercert(connection.getpeercert())
    finally:
        thread.join(10)


def test_node_and_host_recognize_each_other_over_tls(authority: Authority, tmp_path: Path) -> None:
    node = authority.issue_node("n1", tmp_path / "n1")
    host = authority.issue_host("h1", tmp_path / "h1")
    assert _handshake(node, host) == (Party("test", "host", "h1"), Party("test", "node", "n1"))
    assert _handshake(node, node, server_name="localhost") == (Party("test", "node", "n1"), Party("test", "node", "n1"))


def test_certificate_of_another_authority_is_refused_by_tls(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority.create(tmp_path / "other", cluster_id="test").issue_host("h1", tmp_path / "stranger")
    node = authority.issue_node("n1", tmp_path / "n1")
    impostor = TlsFiles(ca=authority.certificate_path, certificate=stranger.certificate, key=stranger.key)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        _handshake(node, impostor)


def test_server_certificate_cannot_act_as_a_client(authority: Authority, tmp_path: Path) -> None:
    node = authority.issue_node("n1", tmp_path / "n1")
    proxy = authority.issue_server("proxy", tmp_path / "proxy", addresses=["proxy.example", "::1"])
    with pytest.raises((ssl.SSLError, ConnectionError)):
        _handshake(node, proxy)
    certificate = x509.load_pem_x509_certificate(proxy.certificate.read_bytes())
    sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert sans.get_values_for_type(x509.DNSName) == ["localhost", "proxy.example"]
    with pytest.raises(IdentityError, match="no spiffe:// names"):
        names.party_from_certificate(certificate)


def test_keys_are_private_and_nothing_is_overwritten(authority: Authority, tmp_path: Path) -> None:
    files = authority.issue_node("n1", tmp_path / "n1")
    for key in (files.key, authority.directory / "ca.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = files.key.read_bytes()
    with pytest.raises(IdentityError, match=r"n1\.key exists already"):
        authority.issue_node("n1", tmp_path / "n1")
    with pytest.raises(IdentityError, match=r"ca\.key exists already"):
        Authority.create(authority.directory, cluster_id="again")
    assert files.key.read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "n1").iterdir()) == ["n1.crt", "n1.key"]


def test_authority_is_loaded_again_and_issues(authority: Authority, tmp_path: Path) -> None:
    again = Authority.load(authority.directory)
    host = again.issue_host("h2", tmp_path / "h2")
    assert _handshake(authority.issue_node("n1", tmp_path / "n1"), host)[0] == Party("test", "host", "h2")


def test_damaged_authority_is_named(authority: Authority, tmp_path: Path) -> None:
    other = Authority.create(tmp_path / "other", cluster_id="other")
    (authority.directory / "ca.key").write_bytes((other.directory / "ca.key").read_bytes())
    with pytest.raises(IdentityError, match=r"the key does not belong to the certificate"):
        Authority.load(authority.directory)
    with pytest.raises(IdentityError, match="no usable certificate authority"):
        Authority.load(tmp_path / "nowhere")


def test_a_hosts_certificate_only_calls(authority: Authority, tmp_path: Path) -> None:
    files = authority.issue_host("h1", tmp_path / "h1")
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in sans] == ["spiffe://test/host/h1"]
