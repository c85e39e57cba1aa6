"""Disks: raw, sparse files in the microVM's folder, copied from images when they are first needed.

A disk is made under another name and renamed when it is whole and on stable storage, so a disk that is there is
complete and is never made again. Blocks are shared with the image where the file system can.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from controlplane.drivers.common import unsupported
from controlplane.model.spec import MicroVMSpec, Volume, VolumeKind
from controlplane.ports import DriverError, ImageStore

ROOT = "root"
_FICLONE = 0x40049409
_CHUNK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Planned:
    name: str
    pointer: str
    volume: Volume

    @property
    def file(self) -> str:
        # A dot keeps the root volume apart from an additional one that is called `root`.
        return "disk.root.raw" if self.pointer == "/spec/root_volume" else f"disk-{self.name}.raw"


def plan(spec: MicroVMSpec) -> Sequence[Planned]:
    """The volumes in the order of the guest's disks: the root volume first, then by id.

    Raises DriverError(`Unsupported` or `InvalidVolume`).
    """
    planned = listed(spec)
    for item in planned:
        _check(item)
    return planned


def listed(spec: MicroVMSpec) -> Sequence[Planned]:
    """The same, whether this driver can make them or not."""
    planned = [Planned(ROOT, "/spec/root_volume", spec.root_volume)] if spec.root_volume else []
    for name in sorted(spec.additional_volumes):
        planned.append(Planned(name, f"/spec/additional_volumes/{name}", spec.additional_volumes[name]))
    return planned


def _check(item: Planned) -> None:
    volume = item.volume
    if volume.virtiofs_source is not None:
        raise unsupported("the qemu driver has no virtiofs volumes", pointer=f"{item.pointer}/virtiofs_source")
    if volume.kind is VolumeKind.SHARED:
        raise unsupported("the qemu driver has no shared volumes", pointer=f"{item.pointer}/kind")
    if volume.partition_id is not None and item.pointer != "/spec/root_volume":
        raise unsupported("only the root volume has a partition_id", pointer=f"{item.pointer}/partition_id")
    if volume.container_source is None and volume.size_in_mb is None:
        raise DriverError(
            "InvalidVolume",
            "a volume needs a container_source to copy from, or a size_in_mb to start empty with",
            pointer=f"{item.pointer}/container_source",
            retryable=False,
        )


def refuse_changes(present: MicroVMSpec, wanted: MicroVMSpec) -> None:
    """Raises DriverError(`ReplaceRequired`) when the volumes differ: disks are kept as they are."""
    for field in ("root_volume", "additional_volumes"):
        if getattr(present, field) != getattr(wanted, field):
            raise DriverError(
                "ReplaceRequired",
                "the volumes of an existing microVM cannot be changed: delete it and create another",
                pointer=f"/spec/{field}",
                retryable=False,
            )


def source_of(item: Planned, images: ImageStore) -> Path | None:
    """The image file that a volume starts from. Raises DriverError, with the volume's pointer."""
    if item.volume.container_source is None:
        return None
    pointer = f"{item.pointer}/container_source"
    try:
        source = images.resolve(item.volume.container_source, None, role="disk")
    except DriverError as error:
        raise DriverError(error.code, error.message, pointer=pointer, retryable=error.retryable) from error
    if item.volume.size_in_mb is not None and item.volume.size_in_mb << 20 < source.stat().st_size:
        raise DriverError(
            "VolumeTooSmall",
            f"{item.volume.container_source} has {-(-source.stat().st_size >> 20)} MiB, "
            f"size_in_mb is {item.volume.size_in_mb}",
            pointer=f"{item.pointer}/size_in_mb",
            retryable=False,
        )
    return source


def make(folder: Path, planned: Sequence[Planned], images: ImageStore) -> None:
    """Make every disk that is not there yet. Blocks for the time of the copy."""
    for item in planned:
        target = folder / item.file
        if target.exists():
            continue
        part = folder / f"{item.file}.part"
        try:
            _fill(part, source_of(item, images), item.volume.size_in_mb)
            part.rename(target)
        except OSError as error:
            part.unlink(missing_ok=True)
            code = "HostDiskFull" if error.errno == errno.ENOSPC else "VolumeFailed"
            raise DriverError(code, f"cannot make {target.name}: {error.strerror}", pointer=item.pointer) from error


def remove_ephemeral(folder: Path, spec: MicroVMSpec) -> None:
    """Forget what is worth nothing under a new placement."""
    for item in plan(spec):
        if item.volume.kind is VolumeKind.EPHEMERAL:
            (folder / item.file).unlink(missing_ok=True)


def _fill(target: Path, source: Path | None, size_in_mb: int | None) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        length = 0
        if source is not None:
            with source.open("rb") as reader:
                length = os.fstat(reader.fileno()).st_size
                _copy(reader.fileno(), descriptor, length)
        os.ftruncate(descriptor, max(length, (size_in_mb or 0) << 20))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy(source: int, target: int, length: int) -> None:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        os.ftruncate(target, length)
        for begin, end in _data_ranges(source, length):
            offset = begin
            while offset < end:
                copied = os.copy_file_range(source, target, min(end - offset, _CHUNK_BYTES), offset, offset)
                if copied == 0:
                    raise OSError(errno.EIO, "the image became shorter while it was copied") from None
                offset += copied


def _data_ranges(descriptor: int, length: int) -> Iterator[tuple[int, int]]:
    """Where a sparse file has data; holes need no copying."""
    offset = 0
    while offset < length:
        try:
            begin = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        offset = os.lseek(descriptor, begin, os.SEEK_HOLE)
        yield begin, offset
