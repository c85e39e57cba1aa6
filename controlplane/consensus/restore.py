"""A fresh data directory from a snapshot that was kept elsewhere: how a lost cluster begins again.

Offline. Every node is restored from the same snapshot with the same incarnation, and its members are those of the
settings. The log begins right above the snapshot, in a term that nobody has led, and what the old cluster's members
still have is refused by its lower incarnation: their logs never merge with this one.

The directory is built beside its place and takes its name when it is complete and durable, so an interrupted restore
leaves nothing that a node would start with.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from controlplane.consensus.configuration import FOUNDING_INDEX, Configuration, encode, founding
from controlplane.consensus.datadir import DataDirectory
from controlplane.consensus.disk import Disk
from controlplane.consensus.errors import ConsensusError
from controlplane.consensus.journal import FIRST_INDEX
from controlplane.consensus.settings import RaftSettings
from controlplane.manifest import MAX_INCARNATION, Manifest, ManifestError, encode_manifest, verify_chunk
from controlplane.ports import ReplicatedState


class RestoreError(ConsensusError):
    """The snapshot cannot be restored there; nothing was changed."""


def plan_restore(settings: RaftSettings, manifest: Manifest, incarnation: int | None = None) -> Configuration:
    """The configuration that the restored node will have. Raises RestoreError saying what is in the way.

    `incarnation` None is the snapshot's and one; a higher one is needed when the cluster had that one already.
    """
    if manifest.cluster_id != settings.cluster_id:
        raise RestoreError(
            f"cluster_id: the snapshot is of cluster {manifest.cluster_id!r}, the settings say {settings.cluster_id!r}"
        )
    if settings.join:
        raise RestoreError("raft.join: a restored node founds the cluster anew with raft.peers: set it to false")
    _require_empty(settings.data_dir)
    least = max(manifest.incarnation, 1) + 1
    if incarnation is not None and incarnation < least:
        raise RestoreError(f"incarnation: must be at least {least}, above the snapshot's")
    if (incarnation or least) > MAX_INCARNATION:
        raise RestoreError(f"incarnation: must be at most {MAX_INCARNATION}")
    made = founding(settings.node, settings.address, settings.peers)
    return msgspec.structs.replace(made, incarnation=incarnation or least)


def restore(
    settings: RaftSettings,
    manifest: Manifest,
    chunks: Iterable[bytes],
    state: ReplicatedState,
    *,
    incarnation: int | None = None,
) -> Configuration:
    """Write the data directory of `settings` from a snapshot; `chunks` go with the manifest's. `state`, which must be
    empty, is what they are loaded into, so that what was not a whole state is found out before anything is published.

    Gives the new configuration. Raises RestoreError, CorruptDataError, OSError, and what `chunks` raises.
    """
    configuration = plan_restore(settings, manifest, incarnation)
    target = settings.data_dir
    building = target.with_name(target.name + ".restoring")
    if building.exists():
        shutil.rmtree(building)
    building.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    disk = Disk(durable=True)
    try:
        _build(building, disk, settings, manifest, chunks, state, configuration)
        disk.sync_directory(building)
        _require_empty(target)
        if target.exists():
            target.rmdir()
        disk.rename(building, target)
        disk.sync_directory(target.parent)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return configuration


def _build(
    path: Path,
    disk: Disk,
    settings: RaftSettings,
    manifest: Manifest,
    chunks: Iterable[bytes],
    state: ReplicatedState,
    configuration: Configuration,
) -> None:
    index = max(manifest.index, FIRST_INDEX)
    local = msgspec.structs.replace(
        manifest,
        index=index,
        incarnation=configuration.incarnation,
        configuration=encode(configuration),
        configuration_index=FOUNDING_INDEX,
    )
    directory = DataDirectory(path, settings.node, settings.cluster_id, disk, founding=configuration)
    try:
        snapshots = directory.snapshots
        snapshots.recover(state)
        pack = snapshots.begin_receiving()
        for ref, chunk in zip(local.chunks, chunks, strict=True):
            try:
                verify_chunk(ref, chunk)
            except ManifestError as error:
                raise RestoreError(str(error)) from None
            if ref.sha256 not in pack.places:
                pack.add(ref.sha256, chunk)
        loaded = snapshots.receive(encode_manifest(local), local, pack, state)
        if not callable(loaded):
            raise RestoreError("the snapshot names chunks that it did not bring")
        loaded()
        directory.journal.reset(index, local.term)
        directory.journal.set_term(local.term, None)
        directory.journal.sync()
    finally:
        directory.close()


def _require_empty(path: Path) -> None:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RestoreError(
            f"{path}: is not empty. A restore never overwrites a log: if this node's log is to be given up for good, "
            f"move it away first (mv {path} {path}.old)"
        )
