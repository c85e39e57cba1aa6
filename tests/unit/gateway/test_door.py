"""The gateway's listener over real TLS: what happens to who is there, and to who comes, when its files are replaced."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from controlplane.api.gateway.door import Door, DoorError
from controlplane.api.gateway.peer import caller
from controlplane.identity import issuing
from controlplane.identity.authority import Authority
from controlplane.identity.files import TlsFiles
from controlplane.identity.reloading import PERIOD_S

ECHO = "/test.Echo/Stream"
WITHIN_S = 8.0


class Files:
    """A door's files, and clients of any authority."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._issued = 0
        self.first = Authority.create(directory / "first", cluster_id="c1")
        self.second = Authority.create(directory / "second", cluster_id="c1")
        door = directory / "door"
        door.mkdir()
        self.door = TlsFiles(ca=door / "ca.crt", certificate=door / "n1.crt", key=door / "n1.key")
        self.install(self.first, trusts=[self.first])

    def install(self, authority: Authority, *, trusts: list[Authority]) -> None:
        issued = authority.issue_node("n1", self._new())
        self.door.ca.write_bytes(b"".join(each.certificate_path.read_bytes() for each in trusts))
        shutil.copy(issued.key, self.door.key)
        shutil.copy(issued.certificate, self.door.certificate)

    def host(self, authority: Authority, *, trusts: Authority) -> grpc.ChannelCredentials:
        issued = authority.issue_host("h1", self._new())
        return grpc.ssl_channel_credentials(
            trusts.certificate_path.read_bytes(), issued.key.read_bytes(), issued.certificate.read_bytes()
        )

    def _new(self) -> Path:
        self._issued += 1
        return self._directory / f"issued{self._issued}"


async def _echo(incoming: AsyncIterator[bytes], context: aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
    async for message in incoming:
        yield message + b" " + caller(context.auth_context()).party.uri.encode()


def _furnish(server: aio.Server) -> None:
    echo: Any = grpc.stream_stream_rpc_method_handler(_echo)  # pyright: ignore[reportArgumentType, reportUnknownMemberType, reportUnknownVariableType]
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Stream": echo}),))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@asynccontextmanager
async def opened(files: Files) -> AsyncIterator[Door]:
    door = Door("127.0.0.1:0", files.door, [("grpc.so_reuseport", 0)], _furnish)
    await door.open()
    following = asyncio.create_task(door.follow())
    try:
        yield door
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await door.close(0.1)


async def says(stream: aio.StreamStreamCall[bytes, bytes], text: bytes) -> bytes:
    await stream.write(text)
    answer = await asyncio.wait_for(stream.read(), WITHIN_S)
    assert isinstance(answer, bytes)
    return answer


@asynccontextmanager
async def dialled(
    door: Door, credentials: grpc.ChannelCredentials
) -> AsyncIterator[aio.StreamStreamCall[bytes, bytes]]:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with aio.secure_channel(f"127.0.0.1:{door.port}", credentials, options=options) as channel:
        yield channel.stream_stream(ECHO)()


async def lets_in(door: Door, credentials: grpc.ChannelCredentials) -> bool:
    async with dialled(door, credentials) as stream:
        try:
            return await says(stream, b"hi") == b"hi spiffe://c1/host/h1"
        except aio.AioRpcError:
            return False


async def until_let_in(door: Door, credentials: grpc.ChannelCredentials) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not await lets_in(door, credentials):  # noqa: ASYNC110 - the listener tells nobody
            await asyncio.sleep(0.1)


async def test_sessions_go_on_while_the_authority_is_replaced_in_both_steps(files: Files) -> None:
    old = files.host(files.first, trusts=files.first)
    new = files.host(files.second, trusts=files.second)
    async with opened(files) as door, dialled(door, old) as session:
        assert await says(session, b"one") == b"one spiffe://c1/host/h1"
        assert not await lets_in(door, new)
        port = door.port
        # The node has a certificate of the second authority, and trusts both: hosts of either come in.
        files.install(files.second, trusts=[files.second, files.first])
        await until_let_in(door, new)
        assert await lets_in(door, files.host(files.first, trusts=files.second))
        assert await says(session, b"two") == b"two spiffe://c1/host/h1"
        # The first one is retired: who still shows its certificate is a stranger, and the old session goes on.
        files.install(files.second, trusts=[files.second])
        stranger = files.host(files.first, trusts=files.second)
        async with asyncio.timeout(WITHIN_S):
            while await lets_in(door, stranger):  # noqa: ASYNC110 - the listener tells nobody
                await asyncio.sleep(0.1)
        await until_let_in(door, new)
        assert await says(session, b"three") == b"three spiffe://c1/host/h1"
        assert door.port == port


async def test_a_dial_that_says_nothing_holds_up_neither_the_change_nor_the_end(files: Files) -> None:
    async with opened(files) as door:
        with socket.create_connection(("127.0.0.1", door.port)) as silent, socket.socket() as half:
            half.connect(("127.0.0.1", door.port))
            half.sendall(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a handshake
            files.install(files.second, trusts=[files.second])
            await until_let_in(door, files.host(files.second, trusts=files.second))
            silent.settimeout(WITHIN_S)
            assert await lets_in(door, files.host(files.second, trusts=files.second))


@pytest.mark.parametrize("half", ["no certificate", "another key", "no authority"])
async def test_files_that_are_half_there_leave_the_door_as_it_is(files: Files, half: str) -> None:
    client = files.host(files.first, trusts=files.first)
    async with opened(files) as door:
        match half:
            case "no certificate":
                files.door.certificate.unlink()
            case "another key":
                files.door.key.write_bytes(issuing.key_pem(issuing.new_key()))
            case _:
                files.door.ca.write_text("nonsense")
        await asyncio.sleep(1.5 * PERIOD_S)
        assert await lets_in(door, client)
        files.install(files.second, trusts=[files.second])
        await until_let_in(door, files.host(files.second, trusts=files.second))


async def test_a_port_that_is_taken_is_named(files: Files) -> None:
    async with opened(files) as door:
        other = Door(f"127.0.0.1:{door.port}", files.door, [("grpc.so_reuseport", 0)], _furnish)
        with pytest.raises(DoorError, match=f"listen: 127.0.0.1:{door.port} cannot be bound"):
            await other.open()
