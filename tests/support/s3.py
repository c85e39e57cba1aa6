"""A real S3-compatible server on loopback: SeaweedFS's `weed` from its wheel, with one identity, as a child process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from controlplane.backup.credentials import S3Access
from controlplane.backup.s3 import S3BackupStore
from controlplane.cli.dev.layout import free_ports

KEY, SECRET = "AKIDTESTKEY", "s3cr3t-that-nobody-may-see"
READER_KEY, READER_SECRET = "AKIDREADER", "reader-s3cr3t"
WRITER_KEY, WRITER_SECRET = "AKIDWRITER", "writer-s3cr3t"
"""May do everything but make buckets, which this server does by itself for an administrator's first object."""
BUCKET = "backups"


@dataclass(frozen=True)
class S3Server:
    port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def access(self, key: str = KEY, secret: str = SECRET) -> S3Access:
        return S3Access(access_key_id=key, secret_access_key=secret, endpoint=self.endpoint)

    def store(self, prefix: str = "", *, bucket: str = BUCKET, key: str = KEY, secret: str = SECRET) -> S3BackupStore:
        return S3BackupStore(bucket, prefix, self.access(key, secret), retry_s=2)

    def raw(self) -> S3Store:
        """The bucket without our checks, to tamper with it."""
        return S3Store(
            BUCKET,
            access_key_id=KEY,
            secret_access_key=SECRET,
            endpoint=self.endpoint,
            region="us-east-1",
            client_options={"allow_http": True},
        )

    @property
    def environment(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL_S3": self.endpoint}


@contextmanager
def s3_server(directory: Path) -> Iterator[S3Server]:
    """Serving, with the bucket in it; ended and gone afterwards."""
    program = Path(sysconfig.get_path("scripts")) / "weed"
    found = str(program) if program.is_file() else shutil.which("weed")
    assert found, "the weed program is not installed: `make setup-dev` installs it"
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "s3.json"
    everywhere = ["Read", "List", "Write"]
    identities = [
        {"name": "owner", "credentials": _keys(KEY, SECRET), "actions": ["Admin", *everywhere]},
        {"name": "writer", "credentials": _keys(WRITER_KEY, WRITER_SECRET), "actions": everywhere},
        {
            "name": "reader",
            "credentials": _keys(READER_KEY, READER_SECRET),
            "actions": [f"Read:{BUCKET}", f"List:{BUCKET}"],
        },
    ]
    config.write_text(json.dumps({"identities": identities}))
    ports = iter(free_ports(8))
    s3_port = next(ports)
    options = {
        "dir": directory / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.port": next(ports),
        "master.port.grpc": next(ports),
        "volume.port": next(ports),
        "volume.port.grpc": next(ports),
        "filer": "true",
        "filer.port": next(ports),
        "filer.port.grpc": next(ports),
        "s3": "true",
        "s3.port": s3_port,
        "s3.port.grpc": next(ports),
        "s3.config": config,
        "master.volumeSizeLimitMB": 64,
        "volume.max": 20,
    }
    (directory / "data").mkdir()
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [found, "server", *(f"-{name}={value}" for name, value in options.items())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(directory)},
        )
    try:
        server = S3Server(s3_port)
        _await_bucket(server, process, directory / "log")
        yield server
    finally:
        # It takes its time to leave politely, and what it holds is thrown away.
        process.kill()
        process.wait(20)


def _keys(key: str, secret: str) -> list[dict[str, str]]:
    return [{"accessKey": key, "secretKey": secret}]


def _await_bucket(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """A bucket is there once the service takes an object into it."""
    give_up = time.monotonic() + 60
    while True:
        with suppress(BaseError, OSError):
            _make_bucket(server)
            obstore.put(server.raw(), "probe", b"probe", use_multipart=False)
            obstore.delete(server.raw(), "probe")
            return
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < give_up, log.read_text()[-2000:]
        time.sleep(0.2)


def _make_bucket(server: S3Server) -> None:
    """PUT on the bucket itself: for object_store that is an object of an empty path, so it is signed by hand."""
    from support.sigv4 import signed_put

    signed_put(f"{server.endpoint}/{BUCKET}", KEY, SECRET)
