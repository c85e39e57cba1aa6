"""What a stranger, a liar or a broken peer achieves at the peers' port: a closed connection and nothing else."""

from __future__ import annotations

import asyncio
import pickle
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from cryptography import x509
from unit.consensus.support import Authority, free_ports, until

from controlplane.consensus.framing import FrameDecoder, FrameTooLargeError, encode_frame
from controlplane.consensus.messages import (
    PROTOCOL_VERSION,
    Hello,
    HelloReply,
    Message,
    Propose,
    ReadIndex,
    hello_reply_decoder,
)
from controlplane.consensus.tls import load_contexts
from controlplane.consensus.transport import PeerTransport
from controlplane.identity.files import TlsFiles

MAX_FRAME = 1 << 20


class Events:
    def __init__(self) -> None:
        self.messages: list[tuple[str, Message]] = []
        self.log: list[tuple[str, str]] = []

    def on_message(self, peer: str, message: Message) -> None:
        self.messages.append((peer, message))

    def on_connected(self, peer: str) -> None:
        self.log.append(("connected", peer))

    def on_disconnected(self, peer: str) -> None:
        self.log.append(("disconnected", peer))

    def on_writable(self, peer: str) -> None:
        self.log.append(("writable", peer))


class Station:
    """A PeerTransport with its recorded events."""

    def __init__(self, node: str, ports: dict[str, int], tls: TlsFiles, cluster_id: str = "test-cluster") -> None:
        self.events = Events()
        self.port = ports[node]
        self.serial = f"{x509.load_pem_x509_certificate(tls.certificate.read_bytes()).serial_number:x}"
        self.transport = PeerTransport(
            node=node,
            cluster_id=cluster_id,
            listen=f"127.0.0.1:{ports[node]}",
            peers={peer: f"127.0.0.1:{port}" for peer, port in ports.items() if peer != node},
            tls=load_contexts(tls),
            max_frame_bytes=MAX_FRAME,
            events=self.events,
        )


Make = Callable[..., Awaitable[Station]]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def make(authority: Authority) -> AsyncIterator[Make]:
    """Start stations of the nodes `n1`, `n2` and `n3`."""
    ports = dict(zip(("n1", "n2", "n3"), free_ports(3), strict=True))
    stations: list[Station] = []

    async def start(node: str, *, tls: TlsFiles | None = None, cluster_id: str = "test-cluster") -> Station:
        station = Station(node, ports, tls or authority.issue(node), cluster_id)
        await station.transport.start()
        stations.append(station)
        return station

    yield start
    for station in stations:
        await station.transport.stop()


async def connected(station: Station, peer: str) -> None:
    async def check() -> bool:
        return station.transport.is_connected(peer)

    await until(check, f"connected to {peer}", 5)


async def refused(port: int, tls: TlsFiles | None, hello: bytes | bytearray) -> bytes:
    """Connect, say `hello`, and return what came before the other end closed; fails when it stays open."""
    context = load_contexts(tls).dial if tls else None
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname="" if tls else None
        )
        try:
            writer.write(hello)
            return await reader.read()
        except (ConnectionError, ssl.SSLError):
            return b""
        finally:
            writer.transport.abort()


def hello(**changes: object) -> bytearray:
    fields: dict[str, object] = {
        "protocol": PROTOCOL_VERSION,
        "cluster_id": "test-cluster",
        "sender": "n2",
        "receiver": "n1",
    }
    return encode_frame(Hello(**{**fields, **changes}))  # type: ignore[arg-type]


async def test_peers_exchange_messages_in_order(make: Make) -> None:
    one, two = await make("n1"), await make("n2")
    await connected(one, "n2")
    await connected(two, "n1")
    for request in range(100):
        assert one.transport.send("n2", ReadIndex(request))

    async def arrived() -> bool:
        return len(two.events.messages) == 100

    await until(arrived, "100 messages", 5)
    assert two.events.messages == [("n1", ReadIndex(request)) for request in range(100)]


async def test_a_peer_that_comes_back_is_dialled_again(make: Make) -> None:
    one, two = await make("n1"), await make("n2")
    await connected(one, "n2")
    await two.transport.stop()

    async def gone() -> bool:
        return not one.transport.is_connected("n2") and not one.transport.send("n2", ReadIndex(1))

    await until(gone, "noticed", 5)
    await make("n2")
    await connected(one, "n2")
    assert one.events.log == [("connected", "n2"), ("disconnected", "n2"), ("connected", "n2")]


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(4096),
        b"\xff" * 4096,
        (1 << 30).to_bytes(4, "big") + bytes(5000),
        (100).to_bytes(4, "big") + bytes(100),
        b"".join([len(p := pickle.dumps(Bomb())).to_bytes(4, "big"), p]),
        bytes(encode_frame(ReadIndex(1))),
        b"\x00\x00\x00\x06\x95\x00\x01\xa1\xc4\x28",
    ],
    ids=["http", "zeros", "ones", "1-GiB-length", "empty-body", "pickle", "no-hello", "bad-utf8"],
)
async def test_bytes_of_a_member_that_are_no_hello_close_the_connection(
    make: Make, authority: Authority, raw: bytes
) -> None:
    one = await make("n1")
    assert await refused(one.port, authority.issue("n2", tag="raw"), raw) == b""
    assert one.events.messages == []


async def test_plain_bytes_at_the_tls_port_get_nothing(make: Make) -> None:
    one = await make("n1")
    answer = await refused(one.port, None, bytes(hello()))
    # At most a TLS alert.
    assert answer[:1] in (b"", b"\x15")
    assert len(answer) <= 7
    assert one.events.messages == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"protocol": 99}, f"protocol 99, this node speaks {PROTOCOL_VERSION}"),
        ({"cluster_id": "d"}, "another cluster"),
        ({"sender": "n3"}, "the sender is not the node its certificate names"),
        ({"receiver": "n9"}, "this is node n1"),
    ],
)
async def test_a_wrong_hello_is_refused_with_a_reason(
    make: Make, authority: Authority, changes: dict[str, object], reason: str
) -> None:
    one = await make("n1")
    answer = await refused(one.port, authority.issue("n2", tag="wrong"), hello(**changes))
    (body,) = FrameDecoder(1000).feed(answer)
    assert hello_reply_decoder.decode(body) == HelloReply(reason)


async def test_a_certificate_of_no_member_is_refused(make: Make, authority: Authority) -> None:
    one = await make("n1")
    answer = await refused(one.port, authority.issue("n7"), hello(sender="n7"))
    assert b"not a member" in answer


@pytest.mark.parametrize("case", ["other-ca", "expired", "no-node", "two-nodes", "agent"])
async def test_certificates_that_do_not_name_the_member_are_refused(
    make: Make, authority: Authority, tmp_path: Path, case: str
) -> None:
    one = await make("n1")
    node_uri = "spiffe://test-cluster/node/n2"
    if case == "other-ca":
        issued = Authority(tmp_path).issue("n2")
        tls = TlsFiles(authority.ca_file, issued.certificate, issued.key)
    elif case == "expired":
        tls = authority.issue("n2", days=-1, tag=case)
    else:
        uris = {"no-node": ["spiffe://x/y"], "two-nodes": [node_uri, "spiffe://test-cluster/node/n3"]}
        tls = authority.issue("n2", uris=uris.get(case, ["spiffe://test-cluster/host/n2"]), tag=case)
    assert await refused(one.port, tls, hello()) == b""
    assert one.events.messages == []


async def test_the_dialling_side_checks_whom_it_reached(make: Make, authority: Authority) -> None:
    one = await make("n1")
    impostor = await make("n2", tls=authority.issue("n3", tag="impostor"))

    async def dialled() -> bool:
        return ("connected", "n1") in impostor.events.log or impostor.transport.inbound == {}

    await until(dialled, "a round of attempts", 5)
    await asyncio.gather(*(refused(one.port, authority.issue("n2", tag=f"w{i}"), b"\xff" * 9) for i in range(3)))
    assert one.events.log == []
    assert not one.transport.send("n2", ReadIndex(1))


async def test_an_oversized_or_malformed_message_closes_the_connection(make: Make, authority: Authority) -> None:
    one = await make("n1")
    for bad in ((MAX_FRAME + 1).to_bytes(4, "big"), encode_frame(HelloReply("x")), b"\x00\x00\x00\x03abc"):
        answer = await refused(one.port, authority.issue("n2", tag="bad"), hello() + bytes(bad))
        assert hello_reply_decoder.decode(answer[4:]).refusal == ""
    assert one.events.messages == []


async def test_a_crowd_of_silent_strangers_does_not_keep_a_member_out(make: Make) -> None:
    one = await make("n1")
    crowd = [await asyncio.open_connection("127.0.0.1", one.port) for _ in range(150)]
    try:
        two = await make("n2")
        await connected(two, "n1")
    finally:
        for _, writer in crowd:
            writer.transport.abort()


async def test_a_peer_that_does_not_read_costs_bounded_memory(make: Make, authority: Authority) -> None:
    ports = free_ports(1)
    files = authority.issue("n2", tag="deaf")

    over, closed = asyncio.Event(), asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        writer.write(encode_frame(HelloReply("")))
        await over.wait()
        writer.transport.abort()
        closed.set()

    server = await asyncio.start_server(deaf, "127.0.0.1", ports[0], ssl=load_contexts(files).accept, limit=1024)
    station = Station("n1", {"n1": free_ports(1)[0], "n2": ports[0]}, authority.issue("n1", tag="deaf"))
    await station.transport.start()
    try:
        await connected(station, "n2")
        message = ReadIndex(2**60)
        assert station.transport.writable("n2")
        big = Propose(1, bytes(1 << 20))
        results = [station.transport.send("n2", big) for _ in range(100)]
        assert not station.transport.writable("n2")
        assert not results[-1]
        assert not station.transport.send("n2", message)
    finally:
        await station.transport.stop()
        over.set()
        await closed.wait()
        server.close()
        await server.wait_closed()


def test_a_frame_is_split_anywhere_and_put_together_again() -> None:
    raw = bytes(encode_frame(ReadIndex(1)) + encode_frame(ReadIndex(2)))
    for at in range(len(raw)):
        decoder = FrameDecoder(100)
        assert [*decoder.feed(raw[:at]), *decoder.feed(raw[at:])] == [raw[4:7], raw[11:]]


def test_the_announced_length_is_refused_before_anything_is_stored() -> None:
    decoder = FrameDecoder(1000)
    with pytest.raises(FrameTooLargeError):
        list(decoder.feed((1001).to_bytes(4, "big")))


async def test_a_revoked_certificate_connects_no_more_and_its_connections_are_cut(
    make: Make, authority: Authority, tmp_path: Path
) -> None:
    one, two = await make("n1"), await make("n2")
    await connected(one, "n2")
    await connected(two, "n1")
    serials: set[str] = set()

    def revoked(node: str, certificate: x509.Certificate) -> str | None:
        return f"{node} was robbed" if f"{certificate.serial_number:x}" in serials else None

    await one.transport.stop()
    one.transport.revoked = revoked
    await one.transport.start()
    await connected(one, "n2")
    stolen = authority.issue("n2", tag="stolen")
    assert await refused(one.port, stolen, hello(receiver="n9")) != b"", "it is refused by name alone"
    serials.add(f"{x509.load_pem_x509_certificate(stolen.certificate.read_bytes()).serial_number:x}")
    assert await refused(one.port, stolen, hello(receiver="n9")) == b"", "it gets no word any more"
    assert one.transport.is_connected("n2"), "the other certificate of that node still counts"

    serials.add(two.serial)

    async def cut() -> bool:
        return not one.transport.is_connected("n2") and not one.transport.inbound

    await until(cut, "the connections are cut", 5)


async def test_peers_that_may_come_back_are_cut_one_after_the_other(make: Make, authority: Authority) -> None:
    """As when an authority is retired: a leader that lost them together would be replaced."""
    one, two, three = await make("n1"), await make("n2"), await make("n3")
    others = {"n2": two, "n3": three}
    retired: set[str] = set()
    await one.transport.stop()
    one.transport.revoked = lambda node, certificate: (
        f"{node} is to come back" if f"{certificate.serial_number:x}" in retired else None
    )
    await one.transport.start()
    for node, station in others.items():
        await connected(one, node)
        await connected(station, "n1")
        station.transport.tls = load_contexts(authority.issue(node, tag="renewed"))
    one.events.log.clear()
    retired |= {two.serial, three.serial}

    async def both_are_back() -> bool:
        return len(one.events.log) == 4 and set(one.transport.inbound) == set(others)

    await until(both_are_back, "both are back", 10)
    assert one.events.log == [(what, node) for node in others for what in ("disconnected", "connected")]


async def test_renewed_files_count_from_the_next_connection_on(make: Make, authority: Authority) -> None:
    """As `reload_tls` does it: connections that there are stay."""
    one, two = await make("n1"), await make("n2")
    await connected(one, "n2")
    serials: list[str] = []
    two.transport.revoked = lambda _node, certificate: serials.append(f"{certificate.serial_number:x}")
    renewed = authority.issue("n1", tag="renewed")
    one.transport.tls = load_contexts(renewed)
    assert one.transport.is_connected("n2")
    assert await refused(two.port, renewed, hello(sender="n1", receiver="n9")) != b""
    assert serials[-1] == f"{x509.load_pem_x509_certificate(renewed.certificate.read_bytes()).serial_number:x}"
    assert one.transport.is_connected("n2")


async def test_another_authority_takes_over_in_both_steps_and_connections_stay(
    make: Make, authority: Authority, tmp_path: Path
) -> None:
    """An operator's own authority, by its files alone: both roots everywhere, the new certificates, the new root."""
    one, two = await make("n1"), await make("n2")
    await connected(one, "n2")
    second = Authority(tmp_path / "second", "second ca")
    both = tmp_path / "both.pem"
    both.write_bytes(second.ca_file.read_bytes() + authority.ca_file.read_bytes())
    old, new = authority.issue("n2", tag="again"), second.issue("n2")
    assert await refused(one.port, TlsFiles(both, new.certificate, new.key), hello(receiver="n9")) == b"", "a stranger"
    own = authority.issue("n1", tag="own")
    one.transport.tls = load_contexts(TlsFiles(both, own.certificate, own.key))
    for shown in (old, TlsFiles(both, new.certificate, new.key)):
        assert await refused(one.port, shown, hello(receiver="n9")) != b"", "of either it is refused by name alone"
    one.transport.tls = load_contexts(second.issue("n1"))
    assert await refused(one.port, new, hello(receiver="n9")) != b""
    assert await refused(one.port, TlsFiles(both, old.certificate, old.key), hello(receiver="n9")) == b"", "retired"
    assert one.transport.is_connected("n2")
    assert two.transport.is_connected("n1")
