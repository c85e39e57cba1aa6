"""Backups: snapshots of the replicated state outside the cluster.

`open_store` gives a SnapshotStore (a directory, an archive file, an S3-compatible bucket) for the text an operator
wrote; `repository` lays snapshots out in one, as manifests that name content-addressed chunks.
"""

from __future__ import annotations

from controlplane.backup.locations import open_store

__all__ = ["open_store"]
