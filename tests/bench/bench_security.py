"""What TLS and roles cost a read through the API: requests a second and CPU, with and without each, in one run.

    python -m tests.bench.bench_security [--seconds 3] [--rounds 5]

The API with all of its layers serves one replica in memory, in two processes: one decides by roles (200 bindings), one
lets everybody pass; each listens with TLS and without. Connections are kept, as clients keep them; what a new
connection costs is shown apart. The four are asked in turn, several times, and compared by their medians. On a machine
that does other things the CPU of the server is what can be trusted.
"""

# ruff: noqa: T201 - a command that prints a table
from __future__ import annotations

import argparse
import asyncio
import logging
import socket
import ssl
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import structlog
import uvicorn
from bench import proc
from unit.api.rig import served

from controlplane.api.http.access import Asker
from controlplane.api.http.protocol import BoundedProtocol, ConnectionLimits

BINDINGS = 200
CLIENTS = 16
PATH = "/api/v2/namespaces/demo/microvms/web"
TOKEN = "flk_reader"


@dataclass(frozen=True)
class Door:
    """One way to ask: a port of one of the processes."""

    name: str
    pid: int
    port: int
    tls: ssl.SSLContext | None


# -- the server, a process of its own ----------------------------------------------------------------------------------


async def _let_pass(*_: object) -> None:
    """In place of a decision."""


def serve(*, roles: bool) -> None:
    """Prints its two ports and the file of its authority, and serves until its input ends."""
    # The access log goes to the standard output here, which is for the parent.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with TemporaryDirectory() as folder, served(Path(folder)) as api:
        api.with_host()
        api.put_vm("web")
        api.caller("reader")
        for number in range(BINDINGS):
            api.bind(f"other-{number}" if number else "reader", "viewer", f"namespace-{number}" if number else "demo")
        if not roles:
            Asker.require = Asker.require_any = _let_pass  # type: ignore[assignment,method-assign]
        protocol = BoundedProtocol.within(ConnectionLimits())
        config = uvicorn.Config(api.server.app, http=protocol, ws="none", lifespan="off", log_config=None)
        plain = uvicorn.Server(config)
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        serving = asyncio.run_coroutine_threadsafe(plain.serve(sockets=[listener]), api.loop)
        print(api.server.address[1], listener.getsockname()[1], api.session.verify, flush=True)
        sys.stdin.read()
        plain.should_exit = True
        serving.result(30)


# -- the clients -------------------------------------------------------------------------------------------------------

ASKED = f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(ASKED)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.split(b":")[1]))


async def _client(door: Door, until_s: float) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port, ssl=door.tls)
    asked = 0
    while time.monotonic() < until_s:
        await _ask(reader, writer)
        asked += 1
    writer.close()
    return asked


async def measure(door: Door, seconds: float) -> tuple[float, float]:
    """(requests a second, microseconds of the server's CPU for each)."""
    before_s, began_s = proc.cpu_s(door.pid), time.monotonic()
    asked = sum(await asyncio.gather(*(_client(door, began_s + seconds) for _ in range(CLIENTS))))
    return asked / (time.monotonic() - began_s), (proc.cpu_s(door.pid) - before_s) / asked * 1e6


async def connecting_us(door: Door, count: int = 200) -> float:
    """Microseconds of the server's CPU for a connection with one request."""
    before_s = proc.cpu_s(door.pid)
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port, ssl=door.tls)
        await _ask(reader, writer)
        writer.close()
    return (proc.cpu_s(door.pid) - before_s) / count * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", choices=["roles", "open"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(roles=options.serve == "roles")
        return 0
    doors: list[Door] = []
    servers: list[subprocess.Popen[str]] = []
    try:
        for kind in ("roles", "open"):
            command = [sys.executable, "-m", "tests.bench.bench_security", "--serve", kind]
            server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            servers.append(server)
            assert server.stdout is not None
            secure, plain, ca_file = server.stdout.readline().split()
            context = ssl.create_default_context(cafile=ca_file)
            doors.append(Door(f"TLS, {kind}", server.pid, int(secure), context))
            doors.append(Door(f"no TLS, {kind}", server.pid, int(plain), None))
        found: dict[str, list[tuple[float, float]]] = {door.name: [] for door in doors}
        for number in range(options.rounds + 1):
            for door in doors:
                measured = asyncio.run(measure(door, options.seconds if number else 0.5))
                if number:  # the first round warms up
                    found[door.name].append(measured)
        medians = {
            name: [statistics.median(column) for column in zip(*each, strict=True)] for name, each in found.items()
        }
        base_per_s, base_us = medians["no TLS, open"]
        for name, (per_s, cpu_us) in medians.items():
            ratios = f"{per_s / base_per_s:.2f} of the rate, {cpu_us / base_us:.2f} of the CPU"
            print(f"{name:<14} {per_s:8.0f} requests/s {cpu_us:7.0f} us of CPU each: {ratios}")
        for door in doors[:2]:
            print(f"{door.name:<14} a new connection and one request: {asyncio.run(connecting_us(door)):.0f} us of CPU")
    finally:
        for server in servers:
            assert server.stdin is not None
            server.stdin.close()
            server.wait(30)
    return 0


if __name__ == "__main__":
    sys.exit(main())
