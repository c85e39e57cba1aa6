"""Three members of Debian's etcd on loopback, with TLS to clients and among themselves; and what is asked of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.load import NUMBER, Request, Target

from controlplane.cli.dev.layout import LOOPBACK, free_ports
from controlplane.identity.authority import Authority

CACHE = Path(".cache/bench-etcd")
READY_S = 60.0
MAX_LAG = 1000
_POLL_S = 0.05


def program() -> str:
    """Where etcd is. Raises SystemExit with what to do when it is not there."""
    unpacked = CACHE / "usr/bin/etcd"
    found = shutil.which("etcd") or (str(unpacked.resolve()) if unpacked.exists() else None)
    if found is None:
        raise SystemExit("etcd is not installed: bash tests/bench/etcd-parts.sh unpacks Debian's etcd-server")
    return found


def version() -> str:
    first = subprocess.run([program(), "--version"], capture_output=True, text=True, check=True, timeout=20).stdout
    return first.splitlines()[0].rpartition(" ")[2]


# -- protobuf by hand, since numbers are put into it as it is sent -----------------------------------------------------


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _bytes_field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _call(method: str, message: bytes, step: int = 1) -> Request:
    body = b"\0" + len(message).to_bytes(4, "big") + message
    return Request("grpc", "POST", f"/etcdserverpb.KV/{method}", body=body, step=step)


def _put(key: str, value: bytes) -> bytes:
    return _bytes_field(1, key.encode()) + _bytes_field(2, value)


def put(prefix: str, value: bytes) -> Request:
    return _call("Put", _put(f"{prefix}{NUMBER}", value))


def put_many(prefix: str, value: bytes, count: int) -> Request:
    """One transaction of `count` puts."""
    operation = _bytes_field(2, _bytes_field(2, _put(f"{prefix}{NUMBER}", value)))
    return _call("Txn", operation * count, step=count)


def read(prefix: str, *, stale: bool) -> Request:
    message = _bytes_field(1, f"{prefix}{NUMBER}".encode())
    return _call("Range", message + (_varint(7 << 3) + b"\1" if stale else b""))


# -- the cluster -------------------------------------------------------------------------------------------------------


class Etcd:
    """Members e1..e3. Defaults of etcd throughout, but for addresses, directories and certificates."""

    name = "etcd"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._program = program()
        authority = Authority.create(directory / "ca", cluster_id="bench-etcd")
        self.ca = authority.certificate_path
        self.members = ("e1", "e2", "e3")
        self._tls = {name: authority.issue_node(name, directory / name / "pki") for name in self.members}
        ports = free_ports(6)
        self._client_port = dict(zip(self.members, ports[:3], strict=True))
        self._peer_port = dict(zip(self.members, ports[3:], strict=True))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._context = ssl.create_default_context(cafile=str(self.ca))

    def put(self, prefix: str, value: bytes) -> Request:
        return put(prefix, value)

    def put_many(self, prefix: str, value: bytes, count: int) -> Request:
        return put_many(prefix, value, count)

    def read(self, prefix: str, *, stale: bool) -> Request:
        return read(prefix, stale=stale)

    def start(self, *names: str) -> None:
        cluster = ",".join(f"{name}=https://{LOOPBACK}:{self._peer_port[name]}" for name in self.members)
        for name in names or self.members:
            tls = self._tls[name]
            client, peer = (f"https://{LOOPBACK}:{ports[name]}" for ports in (self._client_port, self._peer_port))
            arguments = {
                "name": name,
                "data-dir": self._directory / name / "data",
                "listen-client-urls": client,
                "advertise-client-urls": client,
                "listen-peer-urls": peer,
                "initial-advertise-peer-urls": peer,
                "initial-cluster": cluster,
                "initial-cluster-token": "bench",
                "cert-file": tls.certificate,
                "key-file": tls.key,
                "peer-cert-file": tls.certificate,
                "peer-key-file": tls.key,
                "peer-trusted-ca-file": tls.ca,
                "peer-client-cert-auth": "true",
                "logger": "zap",
                "log-level": "warn",
            }
            with (self._directory / name / "log").open("ab") as log:
                self._processes[name] = subprocess.Popen(
                    [self._program, *(f"--{key}={value}" for key, value in arguments.items())],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={key: value for key, value in os.environ.items() if not key.startswith("ETCD_")},
                )

    def await_ready(self) -> None:
        """Every member that runs knows one leader, and is not far behind."""
        self.leader()

    def leader(self) -> str:
        give_up = time.monotonic() + READY_S
        while (found := self._agreed()) is None:
            if time.monotonic() > give_up:
                tails = [(self._directory / name / "log").read_text()[-500:] for name in self.members]
                raise TimeoutError(f"etcd is not ready after {READY_S:g} s:\n" + "\n".join(tails))
            time.sleep(_POLL_S)
        return found

    def _agreed(self) -> str | None:
        names = [name for name in self.members if self._processes[name].poll() is None]
        states = [state for name in names if (state := self._status(name)) is not None]
        leaders = {state["leader"] for state in states}
        if len(states) != len(names) or len(leaders) != 1:
            return None
        heads = [int(state["header"]["revision"]) for state in states]
        if max(heads) - min(heads) > MAX_LAG:
            return None
        found = (name for name, state in zip(names, states, strict=True) if state["header"]["member_id"] in leaders)
        return next(found, None)

    def _status(self, name: str) -> Mapping[str, Any] | None:
        url = f"https://{LOOPBACK}:{self._client_port[name]}/v3/maintenance/status"
        request = urllib.request.Request(url, data=b"{}", method="POST")
        try:
            with urllib.request.urlopen(request, timeout=2, context=self._context) as answer:
                state = json.load(answer)
        except (OSError, ValueError):
            return None
        return {"leader": "0", **state}

    def targets(self, *names: str) -> list[Target]:
        return [Target(LOOPBACK, self._client_port[name]) for name in names or self.members]

    def pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in self._processes.items()}

    def kill(self, name: str) -> int:
        """kill -9; gives the moment before it, on CLOCK_MONOTONIC in nanoseconds."""
        at = time.monotonic_ns()
        self._processes[name].send_signal(signal.SIGKILL)
        return at

    def freeze(self, name: str) -> int:
        at = time.monotonic_ns()
        self._processes[name].send_signal(signal.SIGSTOP)
        return at

    def thaw(self, name: str) -> None:
        self._processes[name].send_signal(signal.SIGCONT)

    def restart(self, name: str) -> None:
        self._processes[name].wait(10)
        self.start(name)

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()


@contextmanager
def running(directory: Path) -> Iterator[Etcd]:
    """A fresh cluster; gone afterwards."""
    cluster = Etcd(directory)
    try:
        cluster.start()
        cluster.await_ready()
        yield cluster
    finally:
        cluster.close()
