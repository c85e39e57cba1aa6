"""A tiny replicated state, throwaway certificates, and real clusters of processes for the consensus tests."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controlplane.consensus import LogClient, RaftNode, RaftSettings
from controlplane.identity.files import TlsFiles
from controlplane.manifest import StatePart
from controlplane.ports import Committed, LogError, LogStatus, SnapshotInstalled

BLOCK = 16


class ListState:
    """The entries themselves, in order, with a running hash over them."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.indexes: list[int] = []
        self._hash = hashlib.sha256()
        self._blocks: list[tuple[tuple[int, bytes], ...]] = []

    def apply(self, index: int, term: int, entry: bytes) -> None:
        assert not self.indexes or index > self.indexes[-1], f"{index} applied after {self.indexes[-1]}"
        self.entries.append(entry)
        self.indexes.append(index)
        self._hash.update(len(entry).to_bytes(4, "big") + entry)

    def view(self) -> ListView:
        """Whole blocks are the same objects in every view."""
        entries = list(zip(self.indexes, self.entries, strict=True))
        whole = len(entries) // BLOCK
        while len(self._blocks) < whole:
            at = len(self._blocks) * BLOCK
            self._blocks.append(tuple(entries[at : at + BLOCK]))
        return ListView(
            len(entries), [*self._blocks[:whole], *([tuple(rest)] if (rest := entries[whole * BLOCK :]) else [])]
        )

    def begin_load(self, header: bytes) -> ListLoader:
        return ListLoader(self, msgspec.msgpack.decode(header, type=int))

    def load_format_1(self, data: bytes) -> Callable[[], None]:
        indexes, entries = msgspec.msgpack.decode(data, type=tuple[list[int], list[bytes]])
        return partial(self.replace, list(zip(indexes, entries, strict=True)))

    def replace(self, entries: list[tuple[int, bytes]]) -> None:
        self.__init__()
        for at, entry in entries:
            self.apply(at, 0, entry)

    def digest(self) -> str:
        return self._hash.hexdigest()


@dataclass
class ListView:
    length: int
    blocks: list[tuple[tuple[int, bytes], ...]]

    def header(self) -> bytes:
        return msgspec.msgpack.encode(self.length)

    def parts(self) -> Iterator[StatePart]:
        for number, block in enumerate(self.blocks):
            yield StatePart(f"{number}", (block,), partial(self._encode, number, block))

    @staticmethod
    def _encode(number: int, block: tuple[tuple[int, bytes], ...]) -> list[bytes]:
        return [msgspec.msgpack.encode((number, block))]


@dataclass
class ListLoader:
    target: ListState
    length: int
    blocks: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)

    def add(self, chunk: bytes) -> None:
        try:
            number, block = msgspec.msgpack.decode(chunk, type=tuple[int, list[tuple[int, bytes]]])
        except msgspec.MsgspecError as error:
            raise ValueError(str(error)) from error
        self.blocks[number] = block

    def finish(self) -> Callable[[], None]:
        entries = [entry for number in sorted(self.blocks) for entry in self.blocks[number]]
        if len(entries) != self.length:
            raise ValueError(f"{len(entries)} entries, {self.length} are needed")
        return partial(self.target.replace, entries)


async def until(condition: Callable[[], Awaitable[object]], what: str, timeout_s: float = 15.0) -> object:
    """The first truthy result of `condition`, polled until the deadline."""
    deadline = time.monotonic() + timeout_s
    while True:
        result = await condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.02)


def free_ports(count: int) -> list[int]:
    """Loopback ports nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


class Authority:
    """A throwaway CA that writes PEM files below `directory`."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test {name}")])
        self._certificate = (
            self._builder(self._name, self._key, days=1)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(_key_usage(sign_certificates=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_file = directory / f"{name}.pem"
        self.ca_file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, node: str, *, uris: list[str] | None = None, days: float = 1, from_days: float = -30, tag: str = ""
    ) -> TlsFiles:
        """A certificate for `node`; `uris` replaces its SAN. Valid from `from_days` to `days` from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.UniformResourceIdentifier(u) for u in uris or [f"spiffe://test-cluster/node/{node}"]]
        certificate = (
            self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)]), key, days, from_days)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        files = TlsFiles(self.ca_file, self.directory / f"{node}{tag}.crt.pem", self.directory / f"{node}{tag}.key.pem")
        files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        files.key.chmod(0o600)
        return files

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: float, from_days: float = -30
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=-from_days))
            .not_valid_after(now + datetime.timedelta(days=days))
        )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def peer_settings(
    directory: Path, authority: Authority | None, nodes: list[str], **limits: object
) -> dict[str, RaftSettings]:
    """Settings of a cluster on free loopback ports; without `authority` the peers speak plaintext."""
    addresses = {node: f"127.0.0.1:{port}" for node, port in zip(nodes, free_ports(len(nodes)), strict=True)}
    return {
        node: RaftSettings(
            node=node,
            cluster_id="test-cluster",
            data_dir=directory / node / "data",
            listen=addresses[node],
            peers={peer: address for peer, address in addresses.items() if peer != node},
            tls=authority.issue(node) if authority else None,
            plaintext_peers_for_tests=authority is None,
            **limits,  # type: ignore[arg-type]
        )
        for node in nodes
    }


class LoopCluster:
    """Real nodes with real disks and sockets, all in one event loop."""

    def __init__(self, settings: dict[str, RaftSettings]) -> None:
        self.settings = settings
        self.states: dict[str, ListState] = {}
        self.nodes: dict[str, RaftNode] = {}

    async def start(self, *names: str) -> None:
        for name in names or self.settings:
            self.states[name] = ListState()
            self.nodes[name] = RaftNode(self.settings[name], self.states[name])
            await self.nodes[name].start()

    async def stop(self, *names: str) -> None:
        for name in names or list(self.nodes):
            await self.nodes.pop(name).stop()

    async def leader(self) -> str:
        async def agreed() -> str | None:
            statuses = [await node.status() for node in self.nodes.values()]
            leaders = {status.leader for status in statuses if status.members}
            leading = [status.node for status in statuses if status.role == "leader" and status.has_quorum]
            return leading[0] if leading and leaders == {leading[0]} else None

        return str(await until(agreed, "a leader"))


class ProcessCluster:
    """Members as processes of their own, reached through their unix sockets."""

    def __init__(self, settings: dict[str, RaftSettings], directory: Path) -> None:
        self.settings = settings
        self.directory = directory
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.clients = {node: LogClient(self.socket(node)) for node in settings}

    def extend(self, settings: RaftSettings) -> None:
        """One more member, not started."""
        self.settings[settings.node] = settings
        self.clients[settings.node] = LogClient(self.socket(settings.node))

    def socket(self, node: str) -> Path:
        return self.directory / node / "run" / "raft.sock"

    def log_file(self, node: str) -> Path:
        return self.directory / node / "stderr.log"

    async def start(self, *nodes: str) -> None:
        for node in nodes or self.settings:
            (self.directory / node).mkdir(parents=True, exist_ok=True)
            config = self.directory / node / "settings.msgpack"
            config.write_bytes(msgspec.msgpack.encode(self.settings[node], enc_hook=str))
            with self.log_file(node).open("ab") as log:
                self.processes[node] = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-m", "unit.consensus.member"),
                    str(config),
                    str(self.socket(node)),
                    stderr=log,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                )

    async def ended(self, node: str, timeout_s: float = 15.0) -> int:
        """Wait until the process ends by itself; its exit code."""
        async with asyncio.timeout(timeout_s):
            return await self.processes.pop(node).wait()

    async def kill(self, *nodes: str, how: signal.Signals = signal.SIGKILL) -> None:
        for node in nodes or list(self.processes):
            with suppress(ProcessLookupError):
                self.processes[node].send_signal(how)
        for node in nodes or list(self.processes):
            await self.processes.pop(node).wait()

    async def close(self) -> None:
        await self.kill()
        for client in self.clients.values():
            await client.aclose()

    async def status(self, node: str) -> LogStatus | None:
        """None while the member does not answer."""
        if node not in self.processes:
            return None
        try:
            async with asyncio.timeout(2):
                return await self.clients[node].status()
        except (LogError, TimeoutError):
            return None

    async def leader(self, timeout_s: float = 15.0) -> str:
        """The member that leads with a quorum, once all running ones agree on it."""

        async def agreed() -> str | None:
            statuses = [await self.status(node) for node in self.processes]
            leaders = {s.leader if s else None for s in statuses}
            ready = [s for s in statuses if s and s.role == "leader" and s.has_quorum]
            return ready[0].node if len(leaders) == 1 and len(ready) == 1 else None

        return str(await until(agreed, "a leader everyone agrees on", timeout_s))

    async def entries(self, node: str, up_to: int, timeout_s: float = 15.0) -> list[tuple[int, bytes]]:
        """What a front of `node` sees from the beginning up to index `up_to`, snapshots unpacked."""
        seen: list[tuple[int, bytes]] = []
        async with asyncio.timeout(timeout_s):
            stream = self.clients[node].follow(0)
            try:
                async for item in stream:
                    await add(seen, item)
                    if item.index >= up_to:
                        return seen
            finally:
                await stream.aclose()
        raise AssertionError("the stream ended")


async def add(seen: list[tuple[int, bytes]], item: Committed | SnapshotInstalled) -> None:
    """Apply one followed item to what was seen so far."""
    if isinstance(item, Committed):
        assert not seen or item.index > seen[-1][0], f"{item.index} after {seen[-1][0]}"
        seen.append((item.index, item.data))
        return
    state = ListState()
    loader = state.begin_load(item.header)
    async for chunk in item.chunks:
        loader.add(chunk)
    loader.finish()()
    seen[:] = list(zip(state.indexes, state.entries, strict=True))
