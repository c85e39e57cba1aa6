"""Starts the provider again and again, as Terraform does, and counts what fails.

`python tests/acceptance/terraform/provider_starts.py --count 1000` starts the executable of a fresh mirror, reads the
handshake as go-plugin does (no padding allowed), fetches the schema over TLS, asks it to stop, and waits for its end. A
failure is printed and counted; the exit code says whether there was one. Times are from exec to the handshake line.

After each start, a Python that only imports grpc and cryptography, which no plugin of this kind can do without, is
timed in the same way: the ratio of the two says what the provider itself adds, whatever else the machine does.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import select
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
from provider_shim.mirror import lay_out
from provider_shim.protocol.messages import SERVICE, message
from provider_shim.protocol.server import COOKIE_NAME, COOKIE_VALUE

IMPORTS = "import grpc, cryptography.x509; print(flush=True)"
_UNPADDED = re.compile(r"[A-Za-z0-9+/]+")
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Start:
    handshake_ms: float
    schema_ms: float
    imports_ms: float


def start_once(executable: Path, scratch: Path) -> Start:
    """One life of a provider. Raises with what went wrong."""
    began = time.perf_counter()
    environment = {
        "PATH": os.environ["PATH"],
        "TMPDIR": str(scratch),
        COOKIE_NAME: COOKIE_VALUE,
        "PLUGIN_CLIENT_CERT": "any",
    }
    with subprocess.Popen(
        [executable],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            line = _first_line(process)
            handshake_ms = (time.perf_counter() - began) * 1000
            schemas = _use(line)
            assert schemas >= 4, f"only {schemas} resource types"
            schema_ms = (time.perf_counter() - began) * 1000
            code = process.wait(timeout=TIMEOUT_S)
            assert code == 0, f"exit code {code}"
        finally:
            process.kill()
            _, errors = process.communicate()
    assert "Traceback" not in errors, errors
    assert not list(scratch.iterdir()), "the socket was left behind"
    return Start(handshake_ms, schema_ms, imports_ms())


def imports_ms() -> float:
    """From exec until grpc and cryptography are imported."""
    began = time.perf_counter()
    command = [sys.executable, "-I", "-c", IMPORTS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        _first_line(process)
        return (time.perf_counter() - began) * 1000


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], TIMEOUT_S)
    assert ready, "no handshake in time"
    return process.stdout.readline().rstrip("\n")


def _use(line: str) -> int:
    """Connect as the handshake says, read the schema, ask for the end. Returns the number of resource types."""
    core, protocol, network, address, kind, certificate = line.split("|")
    assert (core, protocol, network, kind) == ("1", "6", "unix", "grpc"), line
    assert _UNPADDED.fullmatch(certificate), "the certificate is not unpadded base64"
    assert Path(address).parent.stat().st_mode & 0o777 == 0o700
    body = base64.b64encode(base64.b64decode(certificate + "=" * (-len(certificate) % 4))).decode()
    pem = f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n".encode()
    options = [("grpc.ssl_target_name_override", "localhost")]
    with grpc.secure_channel(f"unix:{address}", grpc.ssl_channel_credentials(pem), options=options) as channel:
        ask = channel.unary_unary(
            f"/{SERVICE}/GetProviderSchema",
            request_serializer=message("GetProviderSchema.Request").SerializeToString,
            response_deserializer=message("GetProviderSchema.Response").FromString,
        )
        schema = ask(message("GetProviderSchema.Request")(), timeout=TIMEOUT_S)
        stop = channel.unary_unary("/plugin.GRPCController/Shutdown")
        stop(b"", timeout=TIMEOUT_S)
    return len(schema.resource_schemas)


def quantile_ms(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Start the provider COUNT times; none may fail.")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON line")
    chosen = parser.parse_args(arguments)
    done: list[Start] = []
    failures: list[str] = []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="starts-") as name:
        executable = lay_out(Path(name) / "mirror", Path(sys.executable))
        scratch = Path(name) / "tmp"
        scratch.mkdir()
        for number in range(1, chosen.count + 1):
            try:
                done.append(start_once(executable, scratch))
            except Exception as problem:
                failures.append(f"start {number}: {type(problem).__name__}: {problem}")
            if number % 100 == 0:
                sys.stderr.write(f"{number} starts, {len(failures)} failed, {time.perf_counter() - began:.0f} s\n")
    sys.stderr.writelines(f"{each}\n" for each in failures[:20])
    handshakes = [each.handshake_ms for each in done] or [0.0]
    ratios = [each.handshake_ms / each.imports_ms for each in done] or [0.0]
    figures = {
        "starts": chosen.count,
        "failed": len(failures),
        "handshake_ms_p50": round(statistics.median(handshakes), 1),
        "handshake_ms_p99": round(quantile_ms(handshakes, 0.99), 1),
        "imports_ms_p50": round(statistics.median([each.imports_ms for each in done] or [0.0]), 1),
        "ratio_p50": round(statistics.median(ratios), 2),
        "schema_ms_p50": round(statistics.median([each.schema_ms for each in done] or [0.0]), 1),
        "wall_s": round(time.perf_counter() - began, 1),
    }
    if chosen.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        sys.stdout.writelines(f"{name:18} {value}\n" for name, value in figures.items())
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
