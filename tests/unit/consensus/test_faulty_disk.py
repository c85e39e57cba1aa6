"""The disk that tests break is itself right: it fails as told, and a power loss takes exactly what was not synced."""

from __future__ import annotations

import errno
import random
import time
from pathlib import Path

import pytest
from support.faulty_disk import FaultyDisk, lose_power, write_control


@pytest.fixture
def control(tmp_path: Path) -> Path:
    return tmp_path / "control"


def opened(disk: FaultyDisk, path: Path) -> int:
    disk.replace(path, b"head")
    return disk.open_append(path)


def test_it_obeys_the_control_file_at_the_next_operation(tmp_path: Path, control: Path) -> None:
    disk = FaultyDisk(control=control)
    fd = opened(disk, tmp_path / "wal-1")
    disk.append(fd, b"one")
    write_control(control, "eio", operations=["sync"])
    disk.append(fd, b"two")
    with pytest.raises(OSError, match="Input/output error") as failure:
        disk.sync(fd)
    assert failure.value.errno == errno.EIO
    write_control(control, "enospc")
    with pytest.raises(OSError, match="No space left") as failure:
        disk.append(fd, b"three!")
    assert (tmp_path / "wal-1").read_bytes() == b"headonetwothr"
    with pytest.raises(OSError, match="No space left"):
        disk.replace(tmp_path / "other", b"x")
    write_control(control, "slow", ms=30, path="wal")
    started = time.monotonic()
    disk.sync(fd)
    disk.replace(tmp_path / "other", b"x")
    assert time.monotonic() - started >= 0.03
    control.unlink()
    disk.append(fd, b"four")
    disk.sync(fd)


def test_a_power_loss_takes_what_was_not_synced_and_nothing_else(tmp_path: Path, control: Path) -> None:
    ledger = tmp_path / "ledger"
    disk = FaultyDisk(control=control, ledger=ledger)
    path = tmp_path / "wal-1"
    fd = opened(disk, path)
    disk.append(fd, b"synced")
    disk.sync(fd)
    disk.append(fd, b"lost")
    assert lose_power(ledger, random.Random(1)).get(str(path), 0) in range(5)
    lose_power(ledger)
    assert path.read_bytes() == b"headsynced"
    assert lose_power(ledger) == {}


def test_a_disk_that_only_pretends_to_sync_loses_what_it_promised(tmp_path: Path, control: Path) -> None:
    ledger = tmp_path / "ledger"
    disk = FaultyDisk(control=control, ledger=ledger)
    path = tmp_path / "wal-1"
    fd = opened(disk, path)
    write_control(control, "no-sync")
    disk.append(fd, b"promised")
    disk.sync(fd)
    assert lose_power(ledger) == {str(path): 8}
    assert path.read_bytes() == b"head"
