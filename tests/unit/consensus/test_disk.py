"""Large files are given back to the file system in steps, unless somebody reads them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from controlplane.consensus import disk as module
from controlplane.consensus.disk import Disk

STEP = 1000


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHRINK_BYTES", STEP)


def test_a_large_file_shrinks_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * 3500)
    sizes: list[int] = []

    def rest(_: float) -> None:
        sizes.append(path.stat().st_size)

    monkeypatch.setattr(module, "sleep", rest)
    Disk(durable=False).shrink(path)
    assert sizes == [2500, 1500, 500]


def test_a_file_that_somebody_reads_stays_whole(tmp_path: Path) -> None:
    path = tmp_path / "read"
    path.write_bytes(b"x" * 3500)
    with path.open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        disk = Disk(durable=False)
        disk.shrink(path)
        disk.remove(path)
        assert len(os.pread(reader.fileno(), 4000, 0)) == 3500
    assert not path.exists()


def test_a_small_file_and_a_missing_one_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(b"x" * STEP)
    disk = Disk(durable=False)
    disk.shrink(path)
    disk.shrink(tmp_path / "missing")
    assert path.stat().st_size == STEP
