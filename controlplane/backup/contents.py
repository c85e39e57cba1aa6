"""What is in a snapshot: from its header alone, or by building the whole state from its chunks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.backup.repository import Entry, Repository
from controlplane.machine.codec import Loader, read_header
from controlplane.machine.state import State
from controlplane.manifest import Manifest
from controlplane.ports import StoreError


@dataclass(frozen=True, slots=True)
class Contents:
    revision: int
    machine_version: int
    digest: str
    """Of the state, as the header claims; `load_state` finds out whether it is so."""
    counts: Mapping[str, int]
    """Records by kind."""


def describe(entry: Entry, manifest: Manifest) -> Contents:
    """Raises StoreError when the header is not one that this program reads."""
    try:
        header = read_header(manifest.header)
    except ValueError as error:
        raise StoreError("damaged", f"{entry.name}: {error}") from None
    if header.cluster_id != manifest.cluster_id:
        raise StoreError("damaged", f"{entry.name}: its state is of cluster {header.cluster_id}")
    return Contents(header.revision, header.machine_version, header.digest, header.counts)


def load_state(repository: Repository, entry: Entry, manifest: Manifest) -> State:
    """The state, built from every chunk: each has its hash, and together they have the digest. Raises StoreError."""
    describe(entry, manifest)
    loader = Loader(manifest.header)
    try:
        for chunk in repository.chunks(manifest.chunks):
            loader.add(chunk)
        return loader.finish()
    except ValueError as error:
        raise StoreError("damaged", f"{repository.store.location}: {entry.name}: {error}") from None
