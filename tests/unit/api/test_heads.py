"""What stands around a body is bounded too, however it comes: a stranger costs bounded memory."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from unit.api.rig import TOKEN, Rig

from controlplane.api.http.protocol import MAX_HEAD_BYTES

PIECE = 16 << 10
MORE_BYTES = 1 << 20
"""Several reads of the server, and more than the bound in each."""
FIRST = f"PUT /api/v2/namespaces/demo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
CHUNKED = f"{FIRST}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n"
SHORT = "X-Short: " + "s" * 23 + "\r\n"

ENDLESS: dict[str, tuple[str, str]] = {
    "a path": ("GET /", "a"),
    "a header's name": (FIRST, "a"),
    "a header's value": (FIRST + "X-Long: ", "a"),
    "headers": (FIRST, SHORT),
    "blank lines": ("", "\r\n"),
    "the size of a chunk": (CHUNKED.removesuffix("0\r\n"), "0"),
    "the extension of a chunk": (CHUNKED.removesuffix("\r\n"), ";a"),
    "a trailer's value": (CHUNKED + "X-Long: ", "a"),
    "trailers": (CHUNKED, SHORT),
}


@contextmanager
def connected(api: Rig, *, newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED) -> Iterator[ssl.SSLSocket]:
    host, port = api.server.address
    context = ssl.create_default_context(cafile=str(api.session.verify))
    context.maximum_version = newest
    with (
        socket.create_connection((host, port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        yield secure


def test_nobody_talks_the_api_into_an_older_tls(api: Rig) -> None:
    with connected(api, newest=ssl.TLSVersion.TLSv1_3) as connection:
        assert connection.version() == "TLSv1.3"
    with pytest.raises(ssl.SSLError), connected(api, newest=ssl.TLSVersion.TLSv1_2):
        pass


@pytest.mark.parametrize("what", ENDLESS)
def test_nothing_without_end_is_taken_in(api: Rig, what: str) -> None:
    first, more = ENDLESS[what]
    piece = (more * (PIECE // len(more))).encode()
    answer = b""
    with connected(api) as connection:
        # A refusal may be lost where the other end closes with something of ours unread.
        with suppress(ConnectionError, ssl.SSLError):
            for part in (first.encode(), *[piece] * (MORE_BYTES // PIECE)):
                connection.sendall(part)
        with suppress(ConnectionError, ssl.SSLError):
            while data := connection.recv(PIECE):
                answer += data
    assert not answer or answer.startswith(b"HTTP/1.1 400 ")
    assert api.get("//healthz").status_code == 200


def test_a_head_just_below_the_bound_is_served(api: Rig) -> None:
    answer = api.put("/namespaces/demo", {}, headers={"X-Long": "a" * (MAX_HEAD_BYTES - 2048)})
    assert answer.status_code == 201
