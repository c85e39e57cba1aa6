"""Certificates at the gateway: renewed beside a session that goes on, revoked with a session that ends."""

from __future__ import annotations

import datetime
import time

import grpc
import pytest
from acceptance.agent_session.streams import channel
from acceptance.agent_session.world import Cluster
from cryptography import x509
from grpc import aio

from controlplane.agent.renewal import CertificateRenewal
from controlplane.identity import issuing, renewing
from controlplane.identity.check import issued_by
from controlplane.identity.files import TlsFiles
from controlplane.identity.names import Party
from controlplane.issuance.founding import new_authority
from controlplane.issuance.issuer import ClusterIssuer
from controlplane.machine.authorities import waits_for
from controlplane.model.commands import EstablishAuthority, RetireAuthority, RevokeCertificates
from controlplane.model.credentials import MemberKind
from controlplane.ports.issuance import Applicant, Lives, Presented
from controlplane.sealing import KeyRing
from controlplane.system import SystemClock
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2_grpc as rpc


def short_lived(cluster: Cluster, host: str, *, life_s: float) -> TlsFiles:
    """A certificate of the cluster's authority that ends soon."""
    pair = cluster.authority.directory
    issuer = issuing.load_issuer((pair / "ca.crt").read_bytes(), (pair / "ca.key").read_bytes())
    files = cluster.certificate("host", host)
    soon = issuer.issue(
        Party("test", "host", host),
        issuing.requested_key(renewing.request(files)),
        life=datetime.timedelta(seconds=life_s),
        now=datetime.datetime.now(datetime.UTC),
    )
    renewing.adopt(files, issuing.certificate_pem(soon).decode(), files.ca.read_text())
    return files


async def signing(cluster: Cluster) -> ClusterIssuer:
    pair = cluster.authority.directory
    ring = KeyRing.new()
    file = new_authority(issuing.load_issuer((pair / "ca.crt").read_bytes(), (pair / "ca.key").read_bytes()), ring)
    await cluster.replica.accept(
        EstablishAuthority(fingerprint=file.fingerprint, certificate=file.certificate, key=file.sealed)
    )
    return ClusterIssuer("test", cluster.replica, cluster.replica, SystemClock(), ring, Lives(host_s=4, node_s=60))


async def test_a_session_goes_on_while_its_certificate_is_renewed_again_and_again(cluster: Cluster) -> None:
    cluster.issuer = await signing(cluster)
    await cluster.start_node("n1")
    files = short_lived(cluster, "h1", life_s=4)
    cluster.start_agent()
    await cluster.connected()
    session = cluster.replica.state.hosts["h1"].session
    first = renewing.load(files)

    def renewed_twice() -> bool:
        holder = cluster.replica.state.holders.get("host/h1")
        return holder is not None and renewing.load(files).not_valid_before_utc > first.not_valid_after_utc

    await cluster.reaches(renewed_twice)
    assert cluster.replica.state.hosts["h1"].session == session


async def test_a_session_goes_on_while_another_authority_takes_over(cluster: Cluster) -> None:
    cluster.issuer = await signing(cluster)
    await cluster.start_node("n1")
    files = short_lived(cluster, "h1", life_s=600)
    cluster.start_agent()
    await cluster.connected()
    session, old = cluster.replica.state.hosts["h1"].session, files.ca.read_text()
    # What the state knows of a certificate from before it begins with the first request.
    request = Applicant(kind=MemberKind.HOST, name="h1", csr=renewing.request(files))
    shown = Presented(issuing.serial_text(renewing.load(files)), round(time.time() * 1000) + 600_000)
    await cluster.issuer.renew(request, shown)

    rotation = cluster.issuer.successor()
    await cluster.replica.accept(rotation)
    assert waits_for(cluster.replica.state, MemberKind.HOST, "h1", 0)
    await cluster.reaches(lambda: not waits_for(cluster.replica.state, MemberKind.HOST, "h1", 0))
    new = x509.load_pem_x509_certificate(rotation.certificate.encode())
    assert issued_by(renewing.load(files), new)
    assert files.ca.read_text() == rotation.certificate + old
    await cluster.replica.accept(RetireAuthority(fingerprint=rotation.succeeds))
    await cluster.reaches(lambda: files.ca.read_text() == rotation.certificate)
    assert cluster.replica.state.hosts["h1"].session == session


async def test_what_a_node_says_of_authorities_that_is_wrong_changes_nothing(cluster: Cluster) -> None:
    files = cluster.certificate("host", "h1")
    before = files.ca.read_bytes()
    renewal = CertificateRenewal(files, SystemClock())
    (own,) = x509.load_pem_x509_certificates(before)
    for wrong in (
        wire.Trust(authorities="nonsense", renew=True),
        wire.Trust(authorities=before.decode(), retired=[issuing.fingerprint(own)]),
    ):
        renewal.trust(wrong)
    assert files.ca.read_bytes() == before


async def test_a_revoked_host_loses_its_session_and_opens_no_other(cluster: Cluster) -> None:
    cluster.issuer = await signing(cluster)
    await cluster.start_node("n1")
    files = short_lived(cluster, "h1", life_s=60)
    cluster.start_agent()
    await cluster.connected()
    serial = issuing.serial_text(renewing.load(files))
    await cluster.replica.accept(
        RevokeCertificates(kind=MemberKind.HOST, name="h1", serial=serial, reason="the disk was sold")
    )
    await cluster.reaches(lambda: cluster.agents["h1"].node is None)
    async with channel(cluster, files, "n1") as opened:
        with pytest.raises(aio.AioRpcError, match="was revoked by test: the disk was sold") as refused:
            await rpc.AgentGatewayStub(opened).Renew(wire.RenewRequest(csr=renewing.request(files)))
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_session_ends_with_the_authority_whose_certificate_began_it(cluster: Cluster) -> None:
    """One that the state does not know, as whoever had the authority's key would have it."""
    cluster.issuer = await signing(cluster)
    await cluster.start_node("n1")
    files = cluster.certificate("host", "h1")
    cluster.start_agent()
    await cluster.connected()
    rotation = cluster.issuer.successor()
    await cluster.replica.accept(rotation)
    async with channel(cluster, files, "n1") as opened:
        stub = rpc.AgentGatewayStub(opened)
        with pytest.raises(aio.AioRpcError) as refused:
            await stub.Renew(wire.RenewRequest(csr=b"nonsense"))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, "it may still call"
        await cluster.replica.accept(RetireAuthority(fingerprint=rotation.succeeds))
        await cluster.reaches(lambda: cluster.agents["h1"].node is None)
        with pytest.raises(aio.AioRpcError, match="the authority that issued the certificate") as refused:
            await stub.Renew(wire.RenewRequest(csr=renewing.request(files)))
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_node_gets_no_certificate_for_a_host_and_a_host_none_without_a_request(cluster: Cluster) -> None:
    cluster.issuer = await signing(cluster)
    await cluster.start_node("n1")
    expected = {"node": grpc.StatusCode.PERMISSION_DENIED, "host": grpc.StatusCode.INVALID_ARGUMENT}
    for kind, code in expected.items():
        async with channel(cluster, cluster.certificate(kind, "x1"), "n1") as opened:
            with pytest.raises(aio.AioRpcError) as refused:
                await rpc.AgentGatewayStub(opened).Renew(wire.RenewRequest(csr=b"nonsense"))
        assert refused.value.code() is code
    assert not cluster.replica.state.holders


async def test_a_node_that_signs_nothing_says_so(cluster: Cluster) -> None:
    await cluster.start_node("n1")
    files = cluster.certificate("host", "h1")
    async with channel(cluster, files, "n1") as opened:
        with pytest.raises(aio.AioRpcError, match="this node signs no certificates") as refused:
            await rpc.AgentGatewayStub(opened).Renew(wire.RenewRequest(csr=renewing.request(files)))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
