"""Local volumes of destroyed microVMs, kept for a while: `STATE/quarantine/UID-EPOCH/`, the disks and a manifest.

A microVM is destroyed in one step, the rename of its folder. With a local volume the folder goes here instead of into
the trash. The manifest was written into it before, so a crash leaves either a microVM whose destruction is repeated, or
an entry that says what it is. Everything in an entry but the manifest and the disks that it names is deleted
afterwards, and by every `tidy` once more. Nothing here is looked at by anything that runs microVMs.

Once a cluster has said that its policy tells when entries go (`keep_until_told`), an entry goes by its order; before,
and on a host that no cluster ever told so, once its time is over by the host's clock. The one that was put here first
goes earlier while the disk is nearly full. It goes as everything does: renamed into the trash, then deleted.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from controlplane.drivers.qemu import volumes
from controlplane.drivers.qemu.layout import Folder, sync_folder
from controlplane.model.spec import VolumeKind
from controlplane.model.types import DECODE_ERRORS
from controlplane.ports import DriverError

MANIFEST = "manifest.json"
MIN_FREE = 0.1
"""The share of its file system below which entries go before their time."""

_log = structlog.get_logger(__name__)


class Manifest(msgspec.Struct, frozen=True):
    """What an entry is of. Times are seconds since the Unix epoch."""

    cluster_id: str
    uid: str
    namespace: str
    name: str
    epoch: int
    destroyed_at: int
    until: int
    volumes: dict[str, str]
    """Pointer into the spec to the name of its file."""


@dataclass(frozen=True, slots=True)
class Entry:
    path: Path
    manifest: Manifest
    bytes: int
    """Blocks that it takes; the files are sparse."""


_decoder = msgspec.json.Decoder(Manifest)


@dataclass(frozen=True, slots=True)
class Quarantine:
    """keep_s: how long an entry is kept while no cluster says when they go; 0: none is made then."""

    path: Path
    trash: Path
    keep_s: int

    def take(self, folder: Folder, now_s: int) -> bool:
        """Move a folder whose microVM is gone here, if it has local volumes; else leave it as it is.

        Raises DriverError(`StateUnavailable`).
        """
        manifest = self._manifest(folder, now_s)
        if manifest is None:
            return False
        folder.write(MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            entry = self._free_name(f"{manifest.uid}-{manifest.epoch}")
            folder.path.rename(entry)
            sync_folder(self.path)
            sync_folder(folder.path.parent)
            _strip(entry, manifest)
        except OSError as error:
            raise DriverError("StateUnavailable", f"cannot keep {folder.path}: {error.strerror}") from error
        _log.info("quarantine.kept", entry=str(entry), uid=manifest.uid, until=manifest.until)
        return True

    @property
    def by_order(self) -> bool:
        """Whether a cluster says when entries go. Outlives the agent: what it said may be longer than `keep_s`."""
        return self._told.exists()

    def keep_until_told(self) -> None:
        """Raises OSError."""
        if not self.by_order:
            self._told.touch(mode=0o600)
            sync_folder(self._told.parent)

    @property
    def _told(self) -> Path:
        return self.path.with_name(f"{self.path.name}.by-order")

    def entries(self) -> list[Entry]:
        """The oldest first."""
        found = [entry for _, entry in self.look() if entry is not None]
        return sorted(found, key=lambda each: (each.manifest.destroyed_at, each.path.name))

    def look(self) -> Iterator[tuple[Path, Entry | None]]:
        """Everything in here by name; None for what is no entry (any more): somebody put hands on it, it is theirs."""
        for path in self._names():
            yield path, _read(path)

    def delete(self, name: str, reason: str) -> None:
        """Absent is success, and so is what is no entry any more. Raises OSError."""
        path = self.path / name
        if path.parent == self.path and (entry := _read(path)) is not None:
            self._drop(entry, reason)

    def tidy(self, now_s: int) -> None:
        """Finish what a crash interrupted, and delete what is kept no longer."""
        for entry in self.entries():
            _strip(entry.path, entry.manifest)
            if entry.manifest.until <= now_s and not self.by_order:
                self._drop(entry, "its time is over")
            elif self._is_tight():
                self._drop(entry, f"less than {MIN_FREE:.0%} of the disk is free")

    def _manifest(self, folder: Folder, now_s: int) -> Manifest | None:
        definition = folder.definition()
        if definition is None or (self.keep_s == 0 and not self.by_order):
            return None
        local = {
            item.pointer: item.file
            for item in volumes.listed(definition.spec)
            if item.volume.kind is VolumeKind.LOCAL and (folder.path / item.file).exists()
        }
        if not local:
            return None
        return Manifest(
            cluster_id=definition.cluster_id,
            uid=definition.uid,
            namespace=definition.namespace,
            name=definition.name,
            epoch=definition.epoch,
            destroyed_at=now_s,
            until=now_s + self.keep_s,
            volumes=local,
        )

    def _free_name(self, name: str) -> Path:
        """An epoch may have been destroyed here before, and what is kept is never written over."""
        names = (self.path / (f"{name}.{number}" if number else name) for number in range(len(self._names()) + 1))
        return next(path for path in names if not path.exists())

    def _names(self) -> list[Path]:
        return sorted(self.path.iterdir()) if self.path.is_dir() else []

    def _is_tight(self) -> bool:
        usage = shutil.disk_usage(self.path)
        return usage.free < usage.total * MIN_FREE

    def _drop(self, entry: Entry, reason: str) -> None:
        self.trash.mkdir(mode=0o700, parents=True, exist_ok=True)
        doomed = self.trash / entry.path.name
        if doomed.exists():
            shutil.rmtree(doomed)
        entry.path.rename(doomed)
        shutil.rmtree(doomed)
        known = entry.manifest
        _log.warning("quarantine.deleted", uid=known.uid, name=f"{known.namespace}/{known.name}", reason=reason)


def _read(path: Path) -> Entry | None:
    try:
        manifest = _decoder.decode((path / MANIFEST).read_bytes())
        taken = sum((path / name).stat().st_blocks * 512 for name in manifest.volumes.values())
    except (OSError, *DECODE_ERRORS):
        return None
    return Entry(path=path, manifest=manifest, bytes=taken)


def _strip(path: Path, manifest: Manifest) -> None:
    """Delete what is no data of the guest: its console, its ephemeral disks, its records.

    Two may do so at once: whoever destroys, and who tidies.
    """
    kept = {MANIFEST, *manifest.volumes.values()}
    for each in path.iterdir():
        if each.name in kept:
            continue
        if each.is_dir() and not each.is_symlink():
            with suppress(FileNotFoundError):
                shutil.rmtree(each)
        else:
            each.unlink(missing_ok=True)
