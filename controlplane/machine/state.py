"""The replicated state: maps of records that share structure between versions.

A State is a value. Whoever holds one holds a consistent snapshot for free. `digest` is the sum, modulo 2**128, of the
digests of every record, so that it costs what changed; two nodes at one log index must have equal digests. The indexes
(`names`, `on_host`, `usage`) follow from the records, are not part of the digest, and are rebuilt on load.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field

from immutables import Map

from controlplane.model.resources import (
    Amount,
    Host,
    IdempotencyRecord,
    MicroVM,
    Namespace,
    Operation,
    PlacementPolicy,
)
from controlplane.model.types import record


@record
class State:
    cluster_id: str
    machine_version: int = 1
    """Gates behaviour across upgrades: raised by a committed command once every node can do it."""
    revision: int = 0
    """Raised by every command that changed something."""
    digest: int = 0
    hosts: Map[str, Host] = field(default_factory=Map)
    namespaces: Map[str, Namespace] = field(default_factory=Map)
    policies: Map[str, PlacementPolicy] = field(default_factory=Map)
    microvms: Map[str, MicroVM] = field(default_factory=Map)
    """By uid."""
    operations: Map[str, Operation] = field(default_factory=Map)
    finished: Map[int, str] = field(default_factory=Map)
    """Ended operations by the revision at which they ended: the oldest are forgotten first."""
    keys: Map[str, IdempotencyRecord] = field(default_factory=Map)
    keys_by_revision: Map[int, str] = field(default_factory=Map)
    names: Map[str, str] = field(default_factory=Map)
    """Index: `namespace/name` to the uid of a microVM."""
    on_host: Map[str, Map[str, None]] = field(default_factory=Map)
    """Index: host to the uids placed on it, tombstones included."""
    usage: Map[str, Amount] = field(default_factory=Map)
    """Index: namespace to what its microVMs ask for."""
    policy_users: Map[str, int] = field(default_factory=Map)
    """Index: placement policy to the number of microVMs that name it."""

    def microvm(self, namespace: str, name: str) -> MicroVM | None:
        uid = self.names.get(f"{namespace}/{name}")
        return None if uid is None else self.microvms.get(uid)

    def microvms_on(self, host: str) -> Iterator[MicroVM]:
        """Everything placed on `host`, in order of uid."""
        for uid in sorted(self.on_host.get(host, Map())):
            yield self.microvms[uid]
