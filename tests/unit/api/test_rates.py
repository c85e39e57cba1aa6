"""What one identity, one address and one connection may take of a node; and that nobody else notices."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest
from unit.api.rig import TOKEN, Rig, eventually, served

from controlplane.api.http.protocol import ConnectionLimits
from controlplane.api.http.rates import Buckets, Rate

WRONG = {"Authorization": "Bearer flk_wrong"}
HEAD_S = 0.5
HEAD = f"PUT /api/v2/namespaces/demo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def now_ms(self) -> int:
        return round(self.now_s * 1000)

    def monotonic_s(self) -> float:
        return self.now_s

    def boottime_s(self) -> float:
        return self.now_s


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    clock = Time()
    buckets = Buckets(Rate(per_s=2, burst=3), clock)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.take("b") == 0
    clock.now_s += 0.5
    assert [buckets.take("a"), buckets.take("a")] == [0, 0.5]
    clock.now_s += 1000
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5], "it never holds more than its burst"


def test_buckets_are_bounded_in_number() -> None:
    buckets = Buckets(Rate(per_s=1, burst=1), Time(), kept=10)
    for number in range(1000):
        assert buckets.take(f"stranger {number}") == 0
    assert len(buckets._levels) == 10  # pyright: ignore[reportPrivateUsage]


def test_one_identity_is_slowed_and_the_others_are_not(tmp_path: Path) -> None:
    with served(tmp_path, identity_rate=Rate(per_s=0.5, burst=5)) as api:
        busy = api.caller("busy", roles=["viewer"])
        answers = [api.get("/hosts", headers=busy) for _ in range(7)]
        assert [each.status_code for each in answers] == [200] * 5 + [429] * 2
        refused = answers[-1]
        assert refused.json()["code"] == "rate_limited"
        assert 1 <= int(refused.headers["Retry-After"]) <= 2
        assert api.get("/hosts").status_code == 200


def test_guessing_tokens_slows_the_guesser_before_a_token_is_looked_at(tmp_path: Path) -> None:
    with served(tmp_path, stranger_rate=Rate(per_s=0.1, burst=3)) as api:
        answers = [api.get("/hosts", headers=WRONG).status_code for _ in range(5)]
        assert answers == [401, 401, 401, 429, 429]
        assert api.get("//healthz").status_code == 200


def test_watches_are_bounded_by_identity(tmp_path: Path) -> None:
    with served(tmp_path, watchers_per_identity=2, heartbeat_s=0.2) as api:
        with ExitStack() as open_ones:
            for _ in range(2):
                open_ones.enter_context(closing(api.get("/watch", stream=True)))
            refused = api.get("/watch")
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_watchers")
            other = api.caller("other", roles=["viewer"])
            open_ones.enter_context(closing(api.get("/watch", stream=True, headers=other)))
        eventually(lambda: api.watchers.open == 0, "all have gone")
        assert not api.watchers.by


# -- connections -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    limits = ConnectionLimits(head_timeout_s=HEAD_S)
    with served(tmp_path_factory.mktemp("api"), connections=limits, body_timeout_s=HEAD_S) as rig:
        yield rig


@contextmanager
def connected(api: Rig) -> Iterator[ssl.SSLSocket]:
    host, port = api.server.address
    context = ssl.create_default_context(cafile=str(api.session.verify))
    with (
        socket.create_connection((host, port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        yield secure


def dribbled(connection: ssl.SSLSocket, first: str, more: str, *, every_s: float = 0.05, for_s: float = 5) -> float:
    """How long until the other end has had enough."""
    began = time.monotonic()
    connection.settimeout(every_s)
    with suppress(ConnectionError, ssl.SSLError, BrokenPipeError):
        connection.sendall(first.encode())
        while time.monotonic() - began < for_s:
            connection.sendall(more.encode())
            with suppress(TimeoutError):
                if not connection.recv(4096):
                    break
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("first", "more"),
    [
        ("", "\r\n"),
        ("G", "E"),
        (HEAD, "X-Slow: 1\r\n"),
        (HEAD + "Content-Length: 100000\r\nContent-Type: application/json\r\n\r\n{", " "),
        (HEAD.replace(TOKEN, "wrong") + "Content-Length: 100000\r\n\r\n", " "),
        (HEAD + "Transfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n"),
    ],
    ids=["blank lines", "a method", "headers", "a body", "a body that was refused", "chunks"],
)
def test_whoever_is_slow_is_cut_off(hasty: Rig, first: str, more: str) -> None:
    with connected(hasty) as connection:
        assert dribbled(connection, first, more) < 3


def test_whoever_says_nothing_is_cut_off(hasty: Rig) -> None:
    with connected(hasty) as connection:
        connection.settimeout(5)
        began = time.monotonic()
        with suppress(ConnectionError, ssl.SSLError):
            assert connection.recv(1) == b""
        assert time.monotonic() - began < 3


def test_a_connection_that_is_used_again_is_not_cut_off_between_requests(hasty: Rig) -> None:
    with hasty.new_session() as session:
        for _ in range(3):
            assert session.get(hasty.url("/hosts"), timeout=5).status_code == 200
            time.sleep(HEAD_S * 1.5)


def test_connections_are_bounded_by_address(tmp_path: Path) -> None:
    with served(tmp_path, connections=ConnectionLimits(connections=40, per_address=6)) as api:
        api.session.close()
        with ExitStack() as held:
            opened = [held.enter_context(connected(api)) for _ in range(12)]
            assert sum(map(_is_closed, opened)) >= 6
        eventually(lambda: api.get("//healthz").status_code == 200, "served again")


def _is_closed(connection: ssl.SSLSocket) -> bool:
    connection.settimeout(0.3)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except (ConnectionError, ssl.SSLError):
        return True


# -- the shapes of smuggling -------------------------------------------------------------------------------------------

INNER = "GET /api/v2/hosts HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        f"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{INNER}",
        f"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n{INNER}",
        f"Content-Length: 2\r\nContent-Length: {len(INNER)}\r\n\r\n{{}}{INNER}",
        f"Content-Length: 2, 2\r\n\r\n{{}}{INNER}",
        f"Content-Length: +2\r\n\r\n{{}}{INNER}",
        f"Content-Length: -2\r\n\r\n{{}}{INNER}",
        f"Transfer-Encoding: identity, chunked, identity\r\n\r\n0\r\n\r\n{INNER}",
        f"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{INNER}",
        f"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{INNER}",
        f"X-Folded: a\r\n b\r\nContent-Length: 2\r\n\r\n{{}}{INNER}",
        f"X-Null: a\x00b\r\nContent-Length: 2\r\n\r\n{{}}{INNER}",
        f"X-Bare: a\nContent-Length: 2\r\n\r\n{{}}{INNER}",
        f"Transfer-Encoding: chunked\r\n\r\n2\n{{}}\r\n0\r\n\r\n{INNER}",
        f"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{{}}\r\n0\r\n\r\n{INNER}",
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(hasty: Rig, headers: str) -> None:
    """One answer at most, a refusal, and then the end of the connection."""
    answer = b""
    with connected(hasty) as connection:
        connection.sendall((HEAD + "Content-Type: application/json\r\n" + headers).encode())
        connection.settimeout(5)
        with suppress(ConnectionError, ssl.SSLError):
            while data := connection.recv(65536):
                answer += data
    assert answer.count(b"HTTP/1.1 ") <= 1, answer
    assert b" 200 " not in answer
    assert b" 201 " not in answer
