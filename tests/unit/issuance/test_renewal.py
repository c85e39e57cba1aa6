"""A node keeps its certificate valid, and its files follow a rotation of the authority whoever began it."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from support.harness import Replica

from controlplane.identity import issuing, renewing
from controlplane.identity.check import check_member, issued_by
from controlplane.identity.files import TlsFiles
from controlplane.identity.names import Party
from controlplane.issuance.founding import AuthorityFile, new_authority
from controlplane.issuance.issuer import ClusterIssuer
from controlplane.issuance.renewal import NodeRenewal
from controlplane.machine import authorities
from controlplane.machine.outcome import Rejected
from controlplane.model.commands import AbortRotation, Command, EstablishAuthority, RetireAuthority
from controlplane.ports.issuance import Lives
from controlplane.sealing import KeyRing

DAY = datetime.timedelta(days=1)
WITHIN_S = 15.0


class Nodes:
    """Nodes n1 and n2 of a cluster that signs for itself, over one replica."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.replica = Replica()
        self.ring = KeyRing.new()
        self.now = datetime.datetime.now(datetime.UTC)
        self.first = issuing.new_issuer("test", now=self.now)
        self.issuer = ClusterIssuer(
            "test", self.replica, self.replica, self.replica.clock, self.ring, Lives(host_s=3600, node_s=86_400)
        )
        for name in ("n1", "n2"):
            self._make(name)

    def _make(self, name: str) -> None:
        files = self.files(name)
        files.ca.parent.mkdir()
        key = issuing.new_key()
        certificate = self.first.issue(Party("test", "node", name), key.public_key(), life=DAY, now=self.now)
        files.key.write_bytes(issuing.key_pem(key))
        files.certificate.write_bytes(issuing.certificate_pem(certificate))
        files.ca.write_bytes(issuing.certificate_pem(self.first.certificate))
        self.authority_file(name).write_text(new_authority(self.first, self.ring).model_dump_json())

    def files(self, name: str) -> TlsFiles:
        there = self.directory / name
        return TlsFiles(ca=there / "ca.crt", certificate=there / "n.crt", key=there / "n.key")

    def authority_file(self, name: str) -> Path:
        return self.directory / name / "authority.json"

    async def do(self, command: Command) -> None:
        assert not isinstance(await self.replica.propose(command, actor="alice"), Rejected)

    @asynccontextmanager
    async def running(self, *names: str) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._renewal(name).run()) for name in names]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _renewal(self, name: str) -> NodeRenewal:
        files, file = self.files(name), self.authority_file(name)
        return NodeRenewal(name, files, file, ["127.0.0.1"], self.issuer, self.replica, self.replica.clock)

    def waiting(self) -> list[str]:
        return [each.name for each in authorities.waiting(self.replica.state, self.replica.clock.now_ms())]

    async def until_waiting(self, *names: str) -> None:
        async with asyncio.timeout(WITHIN_S):
            while self.waiting() != list(names):  # noqa: ASYNC110 - nobody is told of it
                await asyncio.sleep(0.05)

    async def until_trusted(self, name: str, *roots: x509.Certificate) -> None:
        wanted = b"".join(map(issuing.certificate_pem, roots))
        async with asyncio.timeout(WITHIN_S):
            while self.files(name).ca.read_bytes() != wanted:  # noqa: ASYNC110 - nobody is told of it
                await asyncio.sleep(0.05)

    def signs(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(authorities.trusted(self.replica.state)[0].certificate.encode())


@pytest.fixture
async def nodes(tmp_path: Path) -> Nodes:
    made = Nodes(tmp_path)
    file = AuthorityFile.load(made.authority_file("n1"))
    await made.do(EstablishAuthority(fingerprint=file.fingerprint, certificate=file.certificate, key=file.sealed))
    async with made.running("n1", "n2"), asyncio.timeout(WITHIN_S):
        while len(made.replica.state.holders) < 2:  # noqa: ASYNC110 - nobody is told of it
            await asyncio.sleep(0.05)
    return made


async def test_every_node_renews_under_the_new_one_and_the_old_one_is_dropped_when_it_is_retired(nodes: Nodes) -> None:
    await nodes.do(nodes.issuer.successor())
    assert nodes.waiting() == ["n1", "n2"]
    async with nodes.running("n1"):
        await nodes.until_waiting("n2")
    # n1 is away while n2 renews and the old one is retired: it learns of both when it is back.
    async with nodes.running("n2"):
        await nodes.until_waiting()
        await nodes.do(RetireAuthority(fingerprint=issuing.fingerprint(nodes.first.certificate)))
        async with nodes.running("n1"):
            for name in ("n1", "n2"):
                await nodes.until_trusted(name, nodes.signs())
    for name in ("n1", "n2"):
        assert issued_by(renewing.load(nodes.files(name)), nodes.signs())
        assert check_member(nodes.files(name), nodes.now, kind="node", name=name, cluster="test") == []
        # What the node is certified with while the cluster is down is the new one, too.
        issuer = AuthorityFile.load(nodes.authority_file(name)).issuer(nodes.ring)
        assert issuer.certificate == nodes.signs()


async def test_an_aborted_rotation_leaves_every_node_as_it_was(nodes: Nodes) -> None:
    await nodes.do(nodes.issuer.successor())
    given_up = issuing.fingerprint(nodes.signs())
    async with nodes.running("n1", "n2"):
        await nodes.until_waiting()
        await nodes.do(AbortRotation(fingerprint=issuing.fingerprint(nodes.first.certificate)))
        assert nodes.waiting() == ["n1", "n2"]
        await nodes.until_waiting()
        await nodes.do(RetireAuthority(fingerprint=given_up))
        for name in ("n1", "n2"):
            await nodes.until_trusted(name, nodes.first.certificate)
            assert issued_by(renewing.load(nodes.files(name)), nodes.first.certificate)


async def test_join_tokens_are_of_the_authority_by_which_every_node_is_known(nodes: Nodes) -> None:
    old = issuing.fingerprint(nodes.first.certificate)
    await nodes.do(nodes.issuer.successor())
    assert nodes.issuer.fingerprint() == old, "n1 and n2 show certificates of the old one as yet"
    async with nodes.running("n1", "n2"):
        await nodes.until_waiting()
    assert nodes.issuer.fingerprint() == issuing.fingerprint(nodes.signs())


async def test_a_file_that_cannot_be_written_keeps_no_node_from_renewing(nodes: Nodes) -> None:
    nodes.authority_file("n1").unlink()
    nodes.authority_file("n1").mkdir()
    await nodes.do(nodes.issuer.successor())
    async with nodes.running("n1"):
        await nodes.until_waiting("n2")


async def test_an_operators_own_root_stays_in_the_file(nodes: Nodes) -> None:
    other = issuing.new_issuer("test", now=nodes.now).certificate
    with nodes.files("n1").ca.open("ab") as file:
        file.write(issuing.certificate_pem(other))
    await nodes.do(nodes.issuer.successor())
    async with nodes.running("n1"):
        await nodes.until_trusted("n1", nodes.signs(), nodes.first.certificate, other)
