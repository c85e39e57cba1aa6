"""Strangers and liars at the ports of a running cluster of processes: they get nothing and cost bounded memory.

One cluster of three processes over mutual TLS (a fourth member is in the settings and never runs; who lies as a member
has its key) commits a steady stream of writes all the while. After every attack: the connection is closed, no term
has changed, the log holds exactly what was written through the front door, and the process is not much larger.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import resource
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from unit.consensus.support import Authority, ListState, ProcessCluster, free_ports, peer_settings, until

from controlplane.consensus import LogClient, RaftNode, RaftSettings
from controlplane.consensus.framing import FrameDecoder, encode_frame
from controlplane.consensus.messages import PROTOCOL_VERSION, Hello, hello_reply_decoder
from controlplane.consensus.server import LogServer
from controlplane.consensus.tls import load_contexts
from controlplane.identity.files import TlsFiles

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20
BOMB_FILE = Path(f"/tmp/flintlock-bomb-{os.getpid()}")
GROWTH_BYTES = 40 * MIB
"""64 handshakes of strangers and one frame of a member may be under way at a time, and an allocator keeps some."""


def bomb_went_off() -> bool:
    return BOMB_FILE.exists()


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, (f"touch {BOMB_FILE}",))


BOMB = pickle.dumps(Bomb())


class Tap:
    """A listener that passes bytes on to the target and remembers what the dialling side said."""

    def __init__(self, port: int, target: int) -> None:
        self.port, self.target = port, target
        self.heard: list[bytearray] = []
        self.open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        self.server.close()
        for writer in self.open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        try:
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self.open.add(upstream)
        heard = bytearray()
        self.heard.append(heard)
        await asyncio.gather(
            self._pump(reader, upstream, heard),
            self._pump(upstream_reader, writer, bytearray()),
            return_exceptions=True,
        )

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: bytearray) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                if len(heard) < MIB:
                    heard += data
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


class Siege:
    """The cluster under attack, its writer, and what must not change."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory / "pki")
        settings = peer_settings(
            directory, self.authority, ["n1", "n2", "n3", "n4"], election_min_s=3.0, election_max_s=6.0
        )
        self.port = int(settings["n1"].listen.rpartition(":")[2])
        self.liar = settings.pop("n4").tls
        self.tap = Tap(free_ports(1)[0], self.port)
        tapped = {**settings["n2"].peers, "n1": f"127.0.0.1:{self.tap.port}"}
        settings["n2"] = replace(settings["n2"], peers=tapped)
        self.cluster = ProcessCluster(settings, directory)
        self.written: list[bytes] = []
        self.longest_gap_s = 0.0
        self.last_index = 0

    async def start(self) -> None:
        await self.tap.start()
        await self.cluster.start()
        self.leader = await self.cluster.leader(30)
        self.writer = asyncio.create_task(self._write())
        await self.commits(20)
        self.term = await self._terms()

    async def stop(self) -> None:
        self.writer.cancel()
        await self.tap.stop()
        await self.cluster.close()

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            entry = b"write %d" % len(self.written)
            began = loop.time()
            position = await self.cluster.clients[self.leader].append(entry, timeout_s=30)
            self.longest_gap_s = max(self.longest_gap_s, loop.time() - began)
            self.written.append(entry)
            self.last_index = position.index
            await asyncio.sleep(0.005)

    async def commits(self, count: int) -> None:
        """`count` more writes were committed."""
        target = len(self.written) + count

        async def enough() -> bool:
            if self.writer.done():
                self.writer.result()
            return len(self.written) >= target

        await until(enough, f"{count} more writes", 30)

    async def _terms(self) -> set[int]:
        statuses = [await self.cluster.status(node) for node in self.cluster.settings]
        assert all(statuses)
        return {status.term for status in statuses if status}

    def memory(self) -> int:
        """Resident bytes of the attacked process."""
        status = Path(f"/proc/{self.cluster.processes['n1'].pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.cluster.processes['n1'].pid}/fd").iterdir()))

    async def unharmed(self, before: int) -> None:
        await self.commits(10)
        assert await self._terms() == self.term, "a term was raised"
        last, expected = self.last_index, list(self.written)
        seen = [entry for _, entry in await self.cluster.entries("n1", last)]
        assert seen == expected[: len(seen)]
        assert len(expected) - len(seen) <= 1
        grown = self.memory() - before
        assert grown < GROWTH_BYTES, f"{grown >> 20} MiB more"
        assert self.cluster.processes["n1"].returncode is None
        assert "Traceback" not in self.cluster.log_file("n1").read_text()
        assert not bomb_went_off()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def siege(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Siege]:
    siege = Siege(tmp_path_factory.mktemp("siege"))
    await siege.start()
    yield siege
    await siege.stop()


async def answer(port: int, raw: bytes, tls: TlsFiles | None = None, *, then: bytes = b"") -> bytes:
    """What comes before the other end closes; a failure when it stays open. Without `tls` the bytes go out as they
    are.
    """
    context = load_contexts(tls).dial if tls else None
    async with asyncio.timeout(15):
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname="" if tls else None
            )
        except (OSError, ssl.SSLError):
            return b""
        heard = b""
        try:
            writer.write(raw)
            await writer.drain()
            if then:
                heard += await reader.read(64)
                writer.write(then)
            return heard + await reader.read()
        except (OSError, ssl.SSLError):
            return heard
        finally:
            writer.transport.abort()


def hello(sender: str = "n4", receiver: str = "n1") -> bytes:
    return bytes(encode_frame(Hello(PROTOCOL_VERSION, "test-cluster", sender, receiver)))


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


RANDOM = bytes((i * 2654435761 >> 7) & 0xFF for i in range(20_000))
CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"

PLAIN = {
    "random bytes": RANDOM,
    "half a TLS hello": CLIENT_HELLO,
    "TLS garbage": CLIENT_HELLO + RANDOM,
    "TLS alert flood": b"\x15\x03\x03\x00\x02\x01\x00" * 2000,
    "an old SSL hello": b"\x80\x2e\x01\x00\x02" + RANDOM[:100],
    "a pickle": framed(BOMB),
    "a pickle alone": BOMB,
    "a hello without TLS": hello(),
    "1 GB length": (1 << 30).to_bytes(4, "big") + bytes(100_000),
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", PLAIN)
async def test_bytes_that_are_no_tls_get_at_most_an_alert(siege: Siege, name: str) -> None:
    before = siege.memory()
    for heard in await asyncio.gather(*(answer(siege.port, PLAIN[name]) for _ in range(5))):
        assert heard[:1] in (b"", b"\x15")
        assert len(heard) <= 7
    await siege.unharmed(before)


@pytest.mark.parametrize("case", ["other CA", "expired", "not yet valid", "a host", "no name", "two names"])
async def test_certificates_that_name_no_member_get_nothing(siege: Siege, case: str, tmp_path: Path) -> None:
    before = siege.memory()
    ours = siege.authority
    if case == "other CA":
        other = Authority(tmp_path)
        issued = other.issue("n2")
        tls = TlsFiles(ours.ca_file, issued.certificate, issued.key)
    else:
        node = ["spiffe://test-cluster/node/n2"]
        tag = case.replace(" ", "-")
        tls = {
            "expired": lambda: ours.issue("n2", days=-1, tag=tag),
            "not yet valid": lambda: ours.issue("n2", from_days=0.5, tag=tag),
            "a host": lambda: ours.issue("n2", uris=["spiffe://test-cluster/host/n2"], tag=tag),
            "no name": lambda: ours.issue("n2", uris=["spiffe://elsewhere/n2"], tag=tag),
            "two names": lambda: ours.issue("n2", uris=[*node, "spiffe://test-cluster/node/n3"], tag=tag),
        }[case]()
    assert await answer(siege.port, hello("n2"), tls) == b""
    await siege.unharmed(before)


async def test_a_member_cannot_speak_for_another(siege: Siege) -> None:
    before = siege.memory()
    assert b"not the node its certificate names" in await answer(siege.port, hello("n2"), siege.liar)
    await siege.unharmed(before)


async def test_a_recorded_session_cannot_be_replayed(siege: Siege) -> None:
    """The bytes that a real member sent over a real session: TLS mixes fresh randomness into every key."""
    before = siege.memory()
    recorded = max(siege.tap.heard, key=len)
    assert len(recorded) > 1000
    cuts = (len(recorded), 1000, 600)
    for heard in await asyncio.gather(*(answer(siege.port, bytes(recorded[:cut])) for cut in cuts)):
        # The other end answers the recorded greeting with its own, which proves nothing to anybody, and then hangs up.
        assert hello("n1", "n2") not in heard
    await siege.unharmed(before)


NESTED = b"\x93\x11\x01" + b"\x91" * 10_000 + b"\xc0"
LIES = {
    "1 GB length": (1 << 30).to_bytes(4, "big") + bytes(100_000),
    "a pickle": framed(BOMB),
    "nested 10,000 deep": framed(NESTED),
    "nested millions deep": framed(b"\x93\x11\x01" + b"\x91" * (7 * MIB) + b"\xc0"),
    "a huge integer": framed(b"\x92\x11\xcf" + b"\xff" * 8),
    "a negative integer": framed(b"\x92\x11\xd3" + b"\xff" * 8),
    "4 billion entries": framed(b"\x97\x0c\x01\x01\x01\x01\x01\xdd\xff\xff\xff\xff"),
    "4 GB of bytes": framed(b"\x93\x10\x01\xc6\xff\xff\xff\xff"),
    "bad UTF-8": framed(b"\x95\x00\x01\xa1\xc4\x28"),
    "an extension type": framed(b"\x92\x11\xc7\x08\x01" + bytes(8)),
    "an unknown tag": framed(b"\x92\x63\x01"),
    "another hello": hello(),
}


@pytest.mark.parametrize("name", LIES)
async def test_malformed_messages_of_an_admitted_member_close_its_connection(siege: Siege, name: str) -> None:
    before = siege.memory()
    for _ in range(3):
        heard = await answer(siege.port, hello(), siege.liar, then=LIES[name])
        (body,) = FrameDecoder(1000).feed(heard)
        assert hello_reply_decoder.decode(body).refusal == "", "nothing but the welcome"
    await siege.unharmed(before)


async def test_a_byte_a_second_is_not_waited_for(siege: Siege) -> None:
    before = siege.memory()
    loop = asyncio.get_running_loop()

    async def loris(prefix: bytes) -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", siege.port)
        began = loop.time()
        try:
            async with asyncio.timeout(20):
                for byte in prefix:
                    writer.write(bytes([byte]))
                    with suppress(TimeoutError):
                        async with asyncio.timeout(1):
                            assert await reader.read() == b""
                            return loop.time() - began
        except OSError:
            return loop.time() - began
        finally:
            writer.transport.abort()
        raise AssertionError("still open")

    times = await asyncio.gather(*(loris(CLIENT_HELLO + RANDOM[:20]) for _ in range(30)))
    assert max(times) < 12
    await siege.unharmed(before)


async def test_thousands_of_half_open_connections_cost_bounded_memory(siege: Siege) -> None:
    before = siege.memory()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    crowd: list[socket.socket] = []
    peak = 0
    try:
        for number in range(3000):
            stranger = socket.socket()
            stranger.setblocking(False)
            stranger.connect_ex(("127.0.0.1", siege.port))
            crowd.append(stranger)
            if number % 50 == 49:
                await asyncio.sleep(0.01)
                peak = max(peak, siege.memory())
            if number % 500 == 499:
                for opened in crowd[-200:]:
                    with suppress(OSError):
                        opened.send(CLIENT_HELLO)
        await siege.commits(10)
    finally:
        for stranger in crowd:
            stranger.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert peak - before < GROWTH_BYTES
    assert siege.descriptors() < 200
    await siege.unharmed(before)


async def test_writes_went_on_all_the_time(siege: Siege) -> None:
    await siege.commits(10)
    assert siege.longest_gap_s < 5.0


# -- the private socket ------------------------------------------------------------------------------------------------

NOBODY = 65534
AS_ANOTHER_USER = """
import os, socket, sys
connection = socket.socket(socket.AF_UNIX)
os.setresgid({nobody}, {nobody}, {nobody})
os.setresuid({nobody}, {nobody}, {nobody})
try:
    connection.connect({path!r})
    connection.sendall(bytes.fromhex({call!r}))
    print("heard", len(connection.recv(100)))
except (PermissionError, ConnectionError) as error:
    print(type(error).__name__)
"""
STATUS_CALL = framed(b"\x92\x02\x01").hex()


def as_another_user(path: Path) -> str:
    code = AS_ANOTHER_USER.format(nobody=NOBODY, path=str(path), call=STATUS_CALL)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True).stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_user_gets_nothing_from_the_private_socket(tmp_path: Path) -> None:
    node = RaftNode(RaftSettings(node="n1", cluster_id="c", data_dir=tmp_path / "data"), ListState())
    await node.start()
    path = tmp_path / "run" / "raft.sock"
    server = LogServer(node, path)
    await server.start()
    client = LogClient(path)
    try:
        assert (await client.status()).node == "n1"
        assert await asyncio.to_thread(as_another_user, path) == "PermissionError\n"
        # Even if somebody opened the doors: whoever it is that knocks is asked for.
        for place in [p for p in path.parents if len(p.parts) > 2]:
            place.chmod(0o755)
        path.chmod(0o666)
        assert await asyncio.to_thread(as_another_user, path) in (
            "heard 0\n",
            "ConnectionResetError\n",
            "BrokenPipeError\n",
        )
        assert (await client.status()).node == "n1"
    finally:
        await client.aclose()
        await server.stop()
        await node.stop()
