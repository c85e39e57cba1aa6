from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from support.stores import check_bounded, check_refuses_names, check_refuses_other_bytes, keep, refused, sha256

from controlplane.backup.archive import ArchiveStore

ONE, TWO, LAST = b"1" * 700, b"2" * 512, b"manifest"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.flsnap"


def write(path: Path) -> None:
    store = ArchiveStore(path)
    keep(store, "chunks/aa/one", ONE)
    keep(store, "chunks/bb/two", TWO)
    assert not path.exists()
    keep(store, "snapshots/c/1.manifest", LAST)


def test_is_there_when_the_manifest_is(path: Path) -> None:
    write(path)
    assert not path.with_name("x.flsnap.part").exists()
    again = ArchiveStore(path)
    assert again.get("chunks/aa/one", sha256=sha256(ONE)) == ONE
    assert again.get("chunks/bb/two") == TWO
    assert again.get("snapshots/c/1.manifest") == LAST
    assert [each.name for each in again.list("snapshots")] == ["snapshots/c/1.manifest"]
    assert len(list(again.list(""))) == 3


def test_is_a_tar_that_other_programs_read(path: Path) -> None:
    write(path)
    with tarfile.open(path) as tar:
        assert tar.getnames() == ["chunks/aa/one", "chunks/bb/two", "snapshots/c/1.manifest"]
        member = tar.extractfile("chunks/aa/one")
        assert member is not None
        assert member.read() == ONE


def test_refuses_like_every_store(tmp_path: Path) -> None:
    for check in (check_refuses_names, check_refuses_other_bytes, check_bounded):
        check(ArchiveStore(tmp_path / f"{check.__name__}.flsnap"))


def test_goes_on_after_an_interruption_at_every_byte(path: Path) -> None:
    part = path.with_name("x.flsnap.part")
    store = ArchiveStore(path)
    keep(store, "chunks/aa/one", ONE)
    whole = len(part.read_bytes())
    keep(store, "chunks/bb/two", TWO)
    raw = part.read_bytes()
    for length in [*range(0, len(raw), 37), whole, whole + 512, len(raw)]:
        part.write_bytes(raw[:length])
        resumed = ArchiveStore(path)
        assert resumed.exists("chunks/aa/one") == (length >= whole)
        assert resumed.exists("chunks/bb/two") == (length == len(raw))
        for name, data in (("chunks/aa/one", ONE), ("chunks/bb/two", TWO), ("snapshots/c/1.manifest", LAST)):
            if not resumed.exists(name):
                keep(resumed, name, data)
        finished = ArchiveStore(path)
        assert [finished.get(f"chunks/{name}") for name in ("aa/one", "bb/two")] == [ONE, TWO]
        path.unlink()


def test_a_finished_one_is_not_changed(path: Path) -> None:
    write(path)
    with refused("invalid") as caught:
        keep(ArchiveStore(path), "chunks/cc/three", b"3")
    assert "exists already" in caught.value.message
    with refused("invalid"):
        ArchiveStore(path).delete("chunks/aa/one")


def test_altered_bytes_are_refused(path: Path) -> None:
    write(path)
    raw = bytearray(path.read_bytes())
    raw[512 + 3] ^= 1
    path.write_bytes(raw)
    with refused("damaged"):
        ArchiveStore(path).get("chunks/aa/one", sha256=sha256(ONE))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + bytes(2000), bytes(4096)])
def test_a_file_that_is_none_is_named(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with refused("damaged") as caught:
        ArchiveStore(path).exists("chunks/aa/one")
    assert "no snapshot archive" in caught.value.message


def test_one_that_was_cut_short_is_refused(path: Path) -> None:
    write(path)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with refused("damaged"):
        list(ArchiveStore(path).list(""))
