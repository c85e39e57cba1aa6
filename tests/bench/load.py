"""The load generator (tests/bench/loadgen, in C) as seen from here: built, described, run.

Every client is one TLS connection with one request in flight, for both systems. Numbers replace runs of ten '#' in a
path or body, so that every request is about keys of its own.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile

SOURCES = Path(__file__).with_name("loadgen")
NUMBER = "#" * 10
END_S = 30.0
MAX_CORE = 0.8
"""Above this share of a core the generator itself may be what is measured, and the run says so."""


@dataclass(frozen=True)
class Request:
    """One kind of request. A gRPC body has its five-byte prefix."""

    protocol: str
    """`h1` or `grpc`."""
    method: str
    path: str
    headers: tuple[str, ...] = ()
    """`Name: value`."""
    body: bytes = b""
    step: int = 1
    """Numbers that one request uses."""
    forbid: str = ""
    """What no answer of success holds."""


@dataclass(frozen=True)
class Target:
    host: str
    port: int


@dataclass(frozen=True)
class Load:
    """What came of one run; `failures` by HTTP status, 1000 + gRPC status, -1 (broken), -2 (forbidden text)."""

    answered: int
    failed: int
    seconds: float
    per_s: float
    mean_ms: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    loadgen_core: float
    """Share of a core that the generator used."""
    asked: int
    """With those of the warming up."""
    failures: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """One traced request; times of CLOCK_MONOTONIC in nanoseconds."""

    begun_ns: int
    answered_ns: int
    result: int
    """0 is success."""
    target: int


def build(directory: Path) -> Path:
    """Compile the generator into `directory`."""
    program = directory / "loadgen"
    sources = sorted(SOURCES.glob("*.c"))
    newest = max(path.stat().st_mtime for path in SOURCES.iterdir())
    if program.exists() and program.stat().st_mtime > newest:
        return program
    compiler = shutil.which("cc")
    if compiler is None:
        raise SystemExit("needs a C compiler, nghttp2 and OpenSSL: bash tests/bench/etcd-parts.sh")
    directory.mkdir(parents=True, exist_ok=True)
    libraries = ("-lnghttp2", "-lssl", "-lcrypto")
    subprocess.run(
        [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, *sources, *libraries], check=True, timeout=120
    )
    return program


class LoadGenerator:
    """Runs `program` against targets whose certificates `ca` signed."""

    def __init__(self, program: Path, ca: Path) -> None:
        self._program = program
        self._ca = ca

    def run(
        self,
        request: Request,
        targets: Sequence[Target],
        *,
        clients: int,
        seconds: float,
        warm_s: float = 0.5,
        first: int = 0,
        modulo: int = 0,
    ) -> Load:
        """A closed loop of `clients`, spread over `targets`, warmed up for at least `warm_s`.

        `modulo`: how many numbers there are, 0 without end.
        """
        lines = [f"clients {clients}", f"warm_ms {round(warm_s * 1000)}", f"run_ms {round(seconds * 1000)}"]
        lines += [f"first {first}", f"modulo {modulo}"]
        with self._started(request, targets, lines) as process:
            try:
                output, complaint = process.communicate(timeout=warm_s + seconds + END_S)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            raise RuntimeError(f"the load generator ended with {process.returncode}: {complaint[-2000:]}")
        if complaint:
            print(f"    refused, for instance: {complaint.splitlines()[0][:300]}", flush=True)  # noqa: T201
        return Load(**json.loads(output))

    def _started(self, request: Request, targets: Sequence[Target], lines: list[str]) -> subprocess.Popen[str]:
        with NamedTemporaryFile(prefix="bench-body-") as body:
            body.write(request.body)
            body.flush()
            lines = [
                f"protocol {request.protocol}",
                f"ca {self._ca}",
                *(f"target {target.host} {target.port}" for target in targets),
                f"method {request.method}",
                f"path {request.path}",
                f"step {request.step}",
                *(f"header {header}" for header in request.headers),
                *([f"forbid {request.forbid}"] if request.forbid else []),
                *([f"body {body.name}"] if request.body else []),
                *lines,
            ]
            process = subprocess.Popen(
                [self._program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            assert process.stdin is not None
            process.stdin.write("\n".join(lines) + "\nend\n")
            process.stdin.flush()
            # The body is read when the description is; the clients connect after that.
            _await_read(body.name, process)
            return process

    def probe(self, request: Request, targets: Sequence[Target], *, clients: int, every_s: float, first: int) -> Probe:
        """One request every `every_s`, on whichever client is free, until closed."""
        lines = [f"clients {clients}", f"every_us {round(every_s * 1e6)}", f"first {first}"]
        return Probe(self._started(request, targets, lines))


def _await_read(path: str, process: subprocess.Popen[str]) -> None:
    """Until the generator holds no file and has opened its connections, hence has read `path`."""
    give_up = time.monotonic() + 10
    folder = Path(f"/proc/{process.pid}/fd")
    while time.monotonic() < give_up and process.poll() is None:
        try:
            links = [str(link.readlink()) for link in folder.iterdir()]
        except OSError:
            continue
        if path not in links and any("eventpoll" in link for link in links):
            return
        time.sleep(0.002)


class Probe:
    """Light load whose every answer is seen. Use as a context."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._rest = b""

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._process.__exit__(None, None, None)

    def answers(self, timeout_s: float) -> Iterator[Answer]:
        """Answers as they come; ends when none is seen to arrive for so long as is left of `timeout_s`."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        give_up = time.monotonic() + timeout_s
        while (left := give_up - time.monotonic()) > 0:
            if not select.select([descriptor], [], [], left)[0]:
                return
            data = os.read(descriptor, 65536)
            if not data:
                raise RuntimeError("the load generator ended")
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                yield Answer(*map(int, line.split()))
