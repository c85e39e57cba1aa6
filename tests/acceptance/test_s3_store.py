"""The S3 store against a real S3-compatible server: what it promises, and what it says when something is wrong."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import obstore
import pytest
from support import stores
from support.s3 import READER_KEY, READER_SECRET, SECRET, WRITER_KEY, WRITER_SECRET, S3Server, s3_server
from support.stores import keep, refused, sha256

from controlplane.backup import open_store
from controlplane.backup.repository import Repository
from controlplane.backup.s3 import S3BackupStore
from controlplane.cli.dev.layout import free_ports


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3") / "s") as running:
        yield running


@pytest.fixture
def prefix() -> str:
    return f"test/{secrets.token_hex(6)}"


@pytest.mark.parametrize(
    "check",
    [
        stores.check_round_trip,
        stores.check_replaces_and_deletes,
        stores.check_refuses_other_bytes,
        stores.check_refuses_names,
        stores.check_bounded,
    ],
)
def test_conforms(server: S3Server, prefix: str, check) -> None:
    check(server.store(prefix))


def test_lists_more_than_a_page(server: S3Server, prefix: str) -> None:
    store, raw = server.store(prefix), server.raw()
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(
            lambda n: obstore.put(raw, f"{prefix}/chunks/{n:04d}", b"x", use_multipart=False), range(1100)
        ):
            pass
    assert [each.name for each in sorted(store.list("chunks"), key=lambda each: each.name)] == [
        f"chunks/{number:04d}" for number in range(1100)
    ]


@pytest.mark.parametrize("damage", [b"state", b"altered bytes", b"", b"state bytes and more"])
def test_what_was_altered_in_the_bucket_is_refused(server: S3Server, prefix: str, damage: bytes) -> None:
    store, data = server.store(prefix), b"state bytes"
    keep(store, "chunks/aa/x", data)
    obstore.put(server.raw(), f"{prefix}/chunks/aa/x", damage, use_multipart=False)
    with refused("damaged") as caught:
        store.get("chunks/aa/x", sha256=sha256(data))
    assert "chunks/aa/x" in caught.value.message


def test_reached_as_an_operator_names_it(server: S3Server, prefix: str) -> None:
    store = open_store(f"s3://backups/{prefix}", server.environment)
    keep(store, "a/b", b"x")
    assert server.store(prefix).get("a/b") == b"x"


def said(error: object) -> str:
    text = f"{error} {getattr(error, 'hint', '')} {error!r}"
    assert SECRET not in text
    assert "Signature" not in text.replace("the secret access key", "")
    return text


def test_wrong_credentials(server: S3Server, prefix: str) -> None:
    for bad, why in (
        (server.store(prefix, secret="wrong"), "the secret access key is not the one of the access key id"),
        (server.store(prefix, key="AKIDNOBODY"), "does not know the access key id"),
    ):
        for call in (lambda s: keep(s, "a/b", b"x"), lambda s: s.get("a/b"), lambda s: list(s.list("a"))):
            with refused("denied") as caught:
                call(bad)
            assert why in said(caught.value)
        with refused("denied") as caught:
            bad.exists("a/b")
        assert "check the credentials" in said(caught.value)


def test_credentials_that_may_only_read(server: S3Server, prefix: str) -> None:
    keep(server.store(prefix), "a/b", b"x")
    reader = server.store(prefix, key=READER_KEY, secret=READER_SECRET)
    assert reader.get("a/b") == b"x"
    with refused("denied") as caught:
        keep(reader, "a/c", b"y")
    assert "may not do that" in said(caught.value)


def test_missing_bucket(server: S3Server) -> None:
    store = server.store(bucket="no-such-bucket", key=WRITER_KEY, secret=WRITER_SECRET)
    for call in (lambda: list(store.list("")), lambda: store.get("a/b"), lambda: Repository(store).entries()):
        with refused("no_bucket") as caught:
            call()
        assert "the bucket no-such-bucket does not exist" in said(caught.value)
    with refused("denied") as caught:
        keep(store, "a/b", b"x")
    assert "that the bucket exists" in said(caught.value)


def test_server_down(server: S3Server) -> None:
    access = S3Server(free_ports(1)[0]).access()
    store = S3BackupStore("backups", "", access, retry_s=1)
    with refused("unreachable") as caught:
        store.exists("a/b")
    assert access.endpoint is not None
    assert access.endpoint in said(caught.value)
    assert "does not answer" in said(caught.value)
