"""The data directory: whole or refused, and never another node's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from controlplane.consensus.configuration import founding
from controlplane.consensus.datadir import DataDirectory
from controlplane.consensus.disk import Disk
from controlplane.consensus.errors import CorruptDataError, DataDirectoryLockedError, DiskError, IdentityMismatchError

DISK = Disk(durable=False)


@pytest.mark.parametrize(("node", "cluster", "field"), [("n2", "c", "node 'n1'"), ("n1", "d", "cluster_id 'c'")])
def test_a_data_directory_is_never_used_by_another_node(tmp_path: Path, node: str, cluster: str, field: str) -> None:
    DataDirectory(tmp_path, "n1", "c", DISK).close()
    with pytest.raises(IdentityMismatchError, match=field):
        DataDirectory(tmp_path, node, cluster, DISK)
    DataDirectory(tmp_path, "n1", "c", DISK).close()


def test_a_data_directory_is_used_by_one_process_at_a_time(tmp_path: Path) -> None:
    first = DataDirectory(tmp_path, "n1", "c", DISK)
    with pytest.raises(DataDirectoryLockedError):
        DataDirectory(tmp_path, "n1", "c", DISK)
    first.close()
    DataDirectory(tmp_path, "n1", "c", DISK).close()


def test_a_node_that_lost_its_journal_does_not_start_anew(tmp_path: Path) -> None:
    DataDirectory(tmp_path, "n1", "c", DISK).close()
    shutil.rmtree(tmp_path / "wal")
    with pytest.raises(CorruptDataError, match="term and vote"):
        DataDirectory(tmp_path, "n1", "c", DISK)


def test_a_log_without_an_identity_is_refused_but_an_interrupted_first_start_is_not(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path, "n1", "c", DISK)
    (tmp_path / "identity.json").unlink()
    directory.close()
    directory = DataDirectory(tmp_path, "n1", "c", DISK)
    directory.journal.set_term(1, "n1")
    directory.close()
    (tmp_path / "identity.json").unlink()
    with pytest.raises(CorruptDataError, match="holds a log"):
        DataDirectory(tmp_path, "n1", "c", DISK)


def test_a_directory_remembers_how_it_began_and_whom_it_met(tmp_path: Path) -> None:
    founders = founding("n1", "h:1", {"n2": "h:2"})
    directory = DataDirectory(tmp_path, "n1", "c", DISK, founding=founders)
    store = directory.store
    directory.remember_store("n2", "disk-2")
    directory.remember_incarnation(3)
    directory.close()
    again = DataDirectory(tmp_path, "n1", "c", DISK, founding=founding("n1", "h:1", {"n3": "h:3"}), join=True)
    assert (again.founding, again.store, again.stores) == (founders, store, {"n2": "disk-2"})
    assert again.incarnation == 3
    again.close()
    (tmp_path / "peers.json").write_bytes(b'{"n2": ')
    with pytest.raises(CorruptDataError, match=r"peers\.json: not readable"):
        DataDirectory(tmp_path, "n1", "c", DISK)


def test_a_node_that_joined_never_takes_itself_for_a_founder(tmp_path: Path) -> None:
    founders = founding("n1", "h:1", {"n2": "h:2"})
    DataDirectory(tmp_path, "n1", "c", DISK, founding=founders, join=True).close()
    directory = DataDirectory(tmp_path, "n1", "c", DISK, founding=founders)
    assert directory.founding is None
    directory.close()


def test_every_disk_has_another_id(tmp_path: Path) -> None:
    stores: set[str] = set()
    for name in ("a", "b", "c"):
        directory = DataDirectory(tmp_path / name, "n1", "c", DISK)
        stores.add(directory.store)
        directory.close()
    assert len(stores) == 3
    assert all(len(store) == 32 for store in stores)


# -- data directories of format 1, whose journal is one file -----------------------------------------------------------

GOLDEN = Path(__file__).with_name("golden") / "format-1"
GOLDEN_LOG = [
    (b"\x01", 4, 1),
    *((b"\x00entry-%d" % i, i, 1) for i in (5, 6, 7)),
    (b"\x00other-8", 8, 3),
    (b"\x00" + bytes(600), 9, 3),
    (b"\x00last", 10, 3),
]


def golden(directory: Path) -> Path:
    """A copy of a data directory as the first release left it."""
    return Path(shutil.copytree(GOLDEN, directory / "data"))


def opened(data: Path, disk: Disk = DISK) -> tuple[object, ...]:
    directory = DataDirectory(data, "n1", "test-cluster", disk)
    journal = directory.journal
    try:
        return journal[:], journal.current_term, journal.voted_for, journal.commit_index
    finally:
        directory.close()


def test_a_directory_of_format_1_is_converted_once(tmp_path: Path) -> None:
    data = golden(tmp_path)
    for _ in range(3):
        assert opened(data) == (GOLDEN_LOG, 4, "n2", 8)
        assert json.loads((data / "identity.json").read_text())["format"] == 2
        assert not (data / "journal").exists()


def test_a_node_of_format_1_was_a_founder_whatever_the_settings_say_now(tmp_path: Path) -> None:
    data, founders = golden(tmp_path), founding("n1", "h:1", {"n2": "h:2"})
    directory = DataDirectory(data, "n1", "test-cluster", DISK, founding=founders, join=True)
    assert directory.founding == founders
    store = directory.store
    directory.close()
    directory = DataDirectory(data, "n1", "test-cluster", DISK, founding=founding("n1", "h:1", {}))
    assert (directory.founding, directory.store) == (founders, store)
    directory.close()


def test_a_conversion_may_be_interrupted_anywhere(tmp_path: Path) -> None:
    class Interrupted(Disk):
        def __init__(self, after: int) -> None:
            super().__init__(durable=False)
            self.left = after

        def count(self) -> None:
            self.left -= 1
            if self.left < 0:
                raise InterruptedError

        def replace(self, path: Path, *parts: bytes | bytearray) -> None:
            self.count()
            super().replace(path, *parts)

        def remove(self, path: Path) -> None:
            self.count()
            super().remove(path)

    for after in range(3):
        data = golden(tmp_path / str(after))
        with pytest.raises((InterruptedError, DiskError)):
            opened(data, Interrupted(after))
        assert opened(data) == (GOLDEN_LOG, 4, "n2", 8)


def test_a_damaged_journal_of_format_1_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    data = golden(tmp_path)
    raw = bytearray((data / "journal").read_bytes())
    raw[700] ^= 4
    (data / "journal").write_bytes(raw)
    for _ in range(2):
        with pytest.raises(CorruptDataError, match="journal: "):
            opened(data)
    assert (data / "journal").read_bytes() == raw
    (data / "journal").unlink()
    with pytest.raises(CorruptDataError, match="journal: missing"):
        opened(data)


def test_the_directories_above_a_new_one_are_made_durable(tmp_path: Path) -> None:
    synced: list[Path] = []

    class Watched(Disk):
        def sync_directory(self, path: Path) -> None:
            synced.append(path)

    DataDirectory(tmp_path / "a" / "b", "n1", "c", Watched(durable=True)).close()
    assert synced[:2] == [tmp_path, tmp_path / "a"]
