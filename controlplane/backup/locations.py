"""Where an operator says a backup is: `s3://BUCKET/PREFIX`, `FILE.flsnap`, or a directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from controlplane.backup.archive import SUFFIX, ArchiveStore
from controlplane.backup.credentials import s3_access
from controlplane.backup.directory import DirectoryStore
from controlplane.ports import SnapshotStore, StoreError


def open_store(location: str, environ: Mapping[str, str], *, credentials: Path | None = None) -> SnapshotStore:
    """The store that `location` names; nothing is read or written yet. `credentials` is for S3, see `credentials`.

    Raises StoreError.
    """
    scheme, separator, rest = location.partition("://")
    if separator and scheme == "s3":
        # Its library is large, and only this needs it.
        from controlplane.backup.s3 import S3BackupStore

        bucket, _, prefix = rest.partition("/")
        return S3BackupStore(bucket, prefix, s3_access(environ, credentials))
    if separator or not location or "\0" in location:
        raise StoreError(
            "invalid",
            f"{location[:200]!r} is no place for snapshots",
            hint=f"a directory, FILE{SUFFIX}, or s3://BUCKET/PREFIX",
        )
    path = Path(location).expanduser()
    return ArchiveStore(path) if path.suffix == SUFFIX else DirectoryStore(path)
