"""The pieces of `make bench-etcd` that figures depend on: what is counted, what is divided by what, what is sent."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from bench import etcd, load, report
from bench.tally import Line, Tally

from controlplane.identity.authority import Authority

ABOUT: Line = {"cpu": "a", "cores": 2, "memory_gib": 8, "kernel": "6", "python": "3", "etcd": "3.4"}


def row(**changes: object) -> Line:
    figures: Line = {
        "at": "spread", "clients": 64, "objects_per_s": 100.0, "p50_ms": 1.0, "p99_ms": 2.0, "failed": 0,
        "failures": {}, "loadgen_core": 0.2, "cpu_s": 1.0, "asked": 1000,
    }  # fmt: skip
    return figures | changes


@pytest.fixture
def tally(tmp_path: Path) -> Tally:
    return Tally(tmp_path)


def test_ratios_are_made_within_the_newest_run(tally: Tally) -> None:
    tally.run = "1"
    tally.add("writes", system="ours", **row(objects_per_s=900.0))
    tally.add("writes", system="etcd", **row(objects_per_s=10.0))
    tally.run = "2"
    tally.add("writes", system="ours", **row(objects_per_s=50.0))
    assert "0.50" not in report.markdown(tally, ABOUT)
    tally.add("writes", system="etcd", **row(objects_per_s=100.0))
    text = report.markdown(tally, ABOUT)
    assert "| single writes, clients spread over the three members | 0.50 |" in text
    assert "900" not in text


def test_what_makes_a_row_doubtful_stands_beside_it(tally: Tally) -> None:
    tally.add("writes", system="ours", **row(failed=3, failures={"503": 3}))
    tally.add("writes", system="etcd", **row(loadgen_core=0.93))
    text = report.markdown(tally, ABOUT)
    assert "ours: 3 failed {'503': 3}" in text
    assert "etcd: generator at 93% of a core" in text


def test_failovers_of_all_runs_add_up(tally: Tally) -> None:
    for run, took in (("1", [100.0, 200.0]), ("2", [300.0, 1500.0])):
        tally.run = run
        for ms in took:
            tally.add("failover", system="ours", through="api", fault="kill", took_ms=ms)
    assert "| kill | ours, api | 4 | 100 | 250 | 1,500 | 1,500 | 1,500 | 1 |" in report.markdown(tally, ABOUT)


def test_a_quantile_is_a_value_that_was_seen() -> None:
    values = [float(value) for value in range(200, 0, -1)]
    assert [report.quantile(values, q) for q in (0.5, 0.9, 0.99, 1)] == [100, 180, 198, 200]
    assert report.quantile([7.0], 0.99) == 7


def test_what_etcd_is_sent(tmp_path: Path) -> None:
    put = etcd.put("k", b"v" * 200)
    key = b"k##########"
    message = b"\x0a\x0b" + key + b"\x12\xc8\x01" + b"v" * 200
    assert put.body == b"\0" + len(message).to_bytes(4, "big") + message
    assert put.path == "/etcdserverpb.KV/Put"
    many = etcd.put_many("k", b"v", 2)
    operation = b"\x12\x12" + b"\x12\x10" + b"\x0a\x0b" + key + b"\x12\x01v"
    assert many.body[5:] == operation * 2
    assert many.step == 2
    assert etcd.read("k", stale=True).body[5:] == b"\x0a\x0b" + key + b"\x38\x01"
    assert etcd.read("k", stale=False).body[5:] == b"\x0a\x0b" + key


# -- the load generator ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not Path("/usr/include/nghttp2/nghttp2.h").exists():
        pytest.skip("the load generator needs libnghttp2-dev; `make bench-etcd` installs it")
    return load.build(tmp_path_factory.mktemp("loadgen"))


@asynccontextmanager
async def serving(directory: Path, status: int) -> AsyncIterator[tuple[Path, int, list[bytes]]]:
    """An HTTPS server that answers `status` to everything: (authority, port, the requests)."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(next(iter(re.findall(rb"Content-Length: (\d+)", head)), 0))
                seen.append(head.splitlines()[0] + b" " + await reader.readexactly(size))
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\n{}" % status)
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    authority = Authority.create(directory / "ca", cluster_id="bench")
    files = authority.issue_node("n1", directory / "n1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield files.ca, server.sockets[0].getsockname()[1], seen
    finally:
        server.close()


REQUEST = load.Request("h1", "PUT", "/x/##########", ("A: b",), b'{"n":"##########"}')


async def test_every_request_has_a_number_of_its_own(tmp_path: Path, program: Path) -> None:
    async with serving(tmp_path, 200) as (ca, port, seen):
        generator = load.LoadGenerator(program, ca)
        result = await asyncio.to_thread(
            generator.run, REQUEST, [load.Target("127.0.0.1", port)], clients=3, seconds=0.3, warm_s=0.1, first=7
        )
    assert result.failed == 0
    assert 0 < result.answered <= len(seen) <= result.asked
    assert len(set(seen)) == len(seen)
    assert b'PUT /x/0000000007 HTTP/1.1 {"n":"0000000007"}' in seen


async def test_a_refusal_is_not_counted_as_done(tmp_path: Path, program: Path) -> None:
    async with serving(tmp_path, 503) as (ca, port, _):
        generator = load.LoadGenerator(program, ca)
        result = await asyncio.to_thread(
            generator.run, REQUEST, [load.Target("127.0.0.1", port)], clients=1, seconds=0.2, warm_s=0.0
        )
    assert result.answered == 0
    assert result.failures == {"503": result.failed}
    assert result.failed > 0


async def test_a_probe_tells_of_every_answer(tmp_path: Path, program: Path) -> None:
    async with serving(tmp_path, 200) as (ca, port, _):
        generator = load.LoadGenerator(program, ca)

        def first_three() -> list[load.Answer]:
            with generator.probe(REQUEST, [load.Target("127.0.0.1", port)], clients=2, every_s=0.01, first=0) as probe:
                return [answer for _, answer in zip(range(3), probe.answers(10), strict=False)]

        answers = await asyncio.to_thread(first_three)
    assert [answer.result for answer in answers] == [0, 0, 0]
    assert all(answer.begun_ns < answer.answered_ns for answer in answers)
