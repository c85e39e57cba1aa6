"""The replicated state: maps of records that share structure between versions.

A State is a value. Whoever holds one holds a consistent snapshot for free. `digest` is the sum, modulo 2**128, of the
digests of every record, so that it costs what changed; two nodes at one log index must have equal digests. The fields
marked as indexes follow from the records (and from the order of what is to be forgotten, which snapshots keep), are not
part of the digest, and are rebuilt on load.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

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
class Queue:
    """A first-in first-out queue that shares structure: keys in the order in which they are to be forgotten."""

    items: Map[int, str] = Map()
    head: int = 0
    tail: int = 0

    def __len__(self) -> int:
        return self.tail - self.head

    def __iter__(self) -> Iterator[str]:
        for position in range(self.head, self.tail):
            yield self.items[position]

    def push(self, key: str) -> Queue:
        return replace(self, items=self.items.set(self.tail, key), tail=self.tail + 1)

    def first(self) -> str:
        return self.items[self.head]

    def pop(self) -> Queue:
        return replace(self, items=self.items.delete(self.head), head=self.head + 1)


@record
class State:
    cluster_id: str
    machine_version: int = 1
    """Gates behaviour across upgrades: raised by a committed command once every node can do it."""
    revision: int = 0
    """Raised by every command that changed something."""
    digest: int = 0
    hosts: Map[str, Host] = Map()
    namespaces: Map[str, Namespace] = Map()
    policies: Map[str, PlacementPolicy] = Map()
    microvms: Map[str, MicroVM] = Map()
    """By uid."""
    operations: Map[str, Operation] = Map()
    keys: Map[str, IdempotencyRecord] = Map()
    """By actor and idempotency key."""

    names: Map[str, str] = Map()
    """Index: `namespace/name` to the uid of a microVM."""
    pending: Map[str, None] = Map()
    """Index: uids of the microVMs that wait for a host."""
    on_host: Map[str, Map[str, None]] = Map()
    """Index: host to the uids placed on it, tombstones included."""
    usage: Map[str, Amount] = Map()
    """Index: namespace to what its microVMs ask for."""
    policy_users: Map[str, int] = Map()
    """Index: placement policy to the number of microVMs that name it."""
    finished: Queue = Queue()
    """Index: ended operations, in the order in which they are to be forgotten."""
    key_order: Queue = Queue()
    """Index: idempotency keys, in the order in which they are to be forgotten."""

    def microvm(self, namespace: str, name: str) -> MicroVM | None:
        uid = self.names.get(f"{namespace}/{name}")
        return None if uid is None else self.microvms.get(uid)

    def microvms_on(self, host: str) -> Iterator[MicroVM]:
        """Everything placed on `host`, tombstones included, in order of uid."""
        uids = self.on_host.get(host)
        for uid in sorted(uids) if uids is not None else ():
            yield self.microvms[uid]
