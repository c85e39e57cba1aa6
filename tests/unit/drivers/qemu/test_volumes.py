"""Disks on a real file system."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from controlplane.drivers.qemu import volumes
from controlplane.images.store import LocalImageStore
from controlplane.model.spec import Kernel, MicroVMSpec, Volume, VolumeKind
from controlplane.ports import DriverError

MiB = 1 << 20


def spec_of(root: Volume | None = None, additional: Mapping[str, Volume] | None = None) -> MicroVMSpec:
    return MicroVMSpec(
        vcpu=1, memory_in_mb=64, kernel=Kernel(image="k"), root_volume=root, additional_volumes=dict(additional or {})
    )


@pytest.fixture
def store(tmp_path: Path) -> LocalImageStore:
    """Holds `os:1`: 3 MiB, of which the middle one is a hole."""
    store = LocalImageStore(tmp_path / "images")
    with (tmp_path / "os").open("wb") as file:
        file.write(b"a" * MiB)
        file.seek(2 * MiB)
        file.write(b"c" * MiB)
    store.add("os:1", {"disk": tmp_path / "os"}, {"disk": "disk"})
    return store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "vm"
    folder.mkdir()
    return folder


def test_disks_are_copied_grown_and_kept(store: LocalImageStore, folder: Path) -> None:
    root = Volume(container_source="os:1", size_in_mb=5)
    planned = volumes.plan(spec_of(root, {"root": Volume(size_in_mb=2), "a": Volume(container_source="os:1")}))
    assert [item.file for item in planned] == ["disk.root.raw", "disk-a.raw", "disk-root.raw"]
    volumes.make(folder, planned, store)
    content = b"a" * MiB + bytes(MiB) + b"c" * MiB
    assert (folder / "disk.root.raw").read_bytes() == content + bytes(2 * MiB)
    assert (folder / "disk-a.raw").read_bytes() == content
    assert (folder / "disk-root.raw").read_bytes() == bytes(2 * MiB)
    assert (folder / "disk-root.raw").stat().st_blocks == 0
    assert (folder / "disk-a.raw").stat().st_mode & 0o777 == 0o600

    (folder / "disk.root.raw").write_bytes(b"the guest's own")
    volumes.make(folder, planned, store)
    assert (folder / "disk.root.raw").read_bytes() == b"the guest's own"
    assert sorted(path.name for path in folder.iterdir()) == ["disk-a.raw", "disk-root.raw", "disk.root.raw"]


def test_holes_stay_holes(tmp_path: Path, folder: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.seek(64 * MiB)
        file.write(b"end")

    class Images:
        def resolve(self, image: str, filename: str | None, *, role: str) -> Path:
            return tmp_path / "sparse"

    volumes.make(folder, volumes.plan(spec_of(Volume(container_source="os:1"))), Images())
    disk = folder / "disk.root.raw"
    assert disk.stat().st_size == 64 * MiB + 3
    assert disk.stat().st_blocks * 512 < MiB
    with disk.open("rb") as file:
        file.seek(64 * MiB)
        assert file.read() == b"end"


def test_a_half_made_disk_is_made_again(store: LocalImageStore, folder: Path) -> None:
    (folder / "disk.root.raw.part").write_bytes(b"x" * 10 * MiB)
    volumes.make(folder, volumes.plan(spec_of(Volume(container_source="os:1"))), store)
    assert (folder / "disk.root.raw").stat().st_size == 3 * MiB
    assert os.listdir(folder) == ["disk.root.raw"]  # noqa: PTH208


@pytest.mark.parametrize(
    ("spec", "code", "pointer"),
    [
        (spec_of(Volume()), "InvalidVolume", "/spec/root_volume/container_source"),
        (spec_of(Volume(size_in_mb=1, kind=VolumeKind.SHARED)), "Unsupported", "/spec/root_volume/kind"),
        (spec_of(Volume(virtiofs_source="/x")), "Unsupported", "/spec/root_volume/virtiofs_source"),
        (
            spec_of(None, {"d": Volume(size_in_mb=1, partition_id="p")}),
            "Unsupported",
            "/spec/additional_volumes/d/partition_id",
        ),
    ],
)
def test_volumes_that_cannot_be(spec: MicroVMSpec, code: str, pointer: str) -> None:
    with pytest.raises(DriverError) as refusal:
        volumes.plan(spec)
    assert (refusal.value.code, refusal.value.pointer) == (code, pointer)


@pytest.mark.parametrize(
    ("volume", "code", "field"),
    [
        (Volume(container_source="os:2"), "ImageNotFound", "container_source"),
        (Volume(container_source="os:1", size_in_mb=2), "VolumeTooSmall", "size_in_mb"),
    ],
)
def test_sources_that_do_not_fit(store: LocalImageStore, folder: Path, volume: Volume, code: str, field: str) -> None:
    planned = volumes.plan(spec_of(None, {"data": volume}))
    with pytest.raises(DriverError) as refusal:
        volumes.make(folder, planned, store)
    assert (refusal.value.code, refusal.value.pointer) == (code, f"/spec/additional_volumes/data/{field}")
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named_by_its_volume(store: LocalImageStore) -> None:
    with pytest.raises(DriverError) as refusal:
        volumes.make(Path("/proc/self"), volumes.plan(spec_of(Volume(size_in_mb=1))), store)
    assert (refusal.value.code, refusal.value.pointer) == ("VolumeFailed", "/spec/root_volume")


def test_a_new_placement_keeps_only_what_is_worth_keeping(store: LocalImageStore, folder: Path) -> None:
    spec = spec_of(Volume(container_source="os:1"), {"keep": Volume(size_in_mb=1, kind=VolumeKind.LOCAL)})
    volumes.make(folder, volumes.plan(spec), store)
    volumes.remove_ephemeral(folder, spec)
    volumes.remove_ephemeral(folder, spec)
    assert [path.name for path in folder.iterdir()] == ["disk-keep.raw"]
