from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from support import stores
from support.stores import keep, refused, sha256

from controlplane.backup.directory import DirectoryStore


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "backup")


def test_conforms(tmp_path: Path) -> None:
    for number, check in enumerate(
        (
            stores.check_round_trip,
            stores.check_replaces_and_deletes,
            stores.check_refuses_other_bytes,
            stores.check_refuses_names,
            stores.check_bounded,
        )
    ):
        check(DirectoryStore(tmp_path / str(number)))


@pytest.mark.parametrize("damage", ["cut", "altered", "grown"])
def test_damage_is_refused_on_read(store: DirectoryStore, tmp_path: Path, damage: str) -> None:
    data = b"state " * 1000
    keep(store, "chunks/aa/x", data)
    path = tmp_path / "backup" / "chunks" / "aa" / "x"
    path.write_bytes({"cut": data[:-1], "altered": b"S" + data[1:], "grown": data + b"!"}[damage])
    with refused("damaged") as caught:
        store.get("chunks/aa/x", sha256=sha256(data))
    assert "chunks/aa/x" in caught.value.message


def test_only_its_owner_reads_it(store: DirectoryStore, tmp_path: Path) -> None:
    keep(store, "chunks/aa/x", b"secret")
    path = tmp_path / "backup" / "chunks" / "aa" / "x"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_what_a_killed_writer_left_is_not_listed_and_goes(store: DirectoryStore, tmp_path: Path) -> None:
    keep(store, "chunks/aa/x", b"1")
    leftover = tmp_path / "backup" / ".partial" / "0123"
    leftover.write_bytes(b"half")
    assert [each.name for each in store.list("")] == ["chunks/aa/x"]
    os.utime(leftover, (1, 1))
    keep(store, "chunks/bb/y", b"2")
    assert not leftover.exists()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "backup").write_text("a file")
    with refused("failed") as caught:
        keep(DirectoryStore(tmp_path / "backup"), "a/b", b"x")
    assert str(tmp_path / "backup") in caught.value.message
    assert "a file is where a directory is needed" in caught.value.hint
