"""The replicated state: tables of records that share structure between versions.

A State is a value. Whoever holds one holds a consistent snapshot for free. `digest` is the sum, modulo 2**128, of the
digests of every record, so that it costs what changed; two nodes at one log index must have equal digests. The fields
marked as indexes follow from the records (and from the order of what is to be forgotten, which snapshots keep), are not
part of the digest, and are rebuilt on load.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from immutables import Map

from controlplane.machine.recent_events import RecentEvents
from controlplane.machine.table import Table
from controlplane.model.api_tokens import ApiToken
from controlplane.model.audit import AuditExport, AuditRecord
from controlplane.model.credentials import ClusterAuthority, Holder, JoinToken
from controlplane.model.gc import Tally
from controlplane.model.groups import MicroVMGroup, group_key
from controlplane.model.policies import POLICIES
from controlplane.model.resources import (
    Amount,
    FailoverPolicy,
    GCPolicy,
    Host,
    IdempotencyRecord,
    Incarnation,
    MicroVM,
    Namespace,
    Operation,
    Override,
    PlacementPolicy,
    Policy,
    Role,
    RoleBinding,
)
from controlplane.model.secrets import DataKey
from controlplane.model.types import Kind, record, replace

BLOCK = 256
FOUNDING = 1
"""The incarnation of a log that was never restored nor recovered."""


@record
class Queue:
    """A first-in first-out queue that shares structure: keys in the order in which they are to be forgotten.

    Items lie in blocks by position. Positions only grow and are kept by snapshots, so a block that is full never
    changes again; what stands in it before `head` is forgotten.
    """

    blocks: Map[int, tuple[str, ...]] = Map()
    head: int = 0
    tail: int = 0

    def __len__(self) -> int:
        return self.tail - self.head

    def __iter__(self) -> Iterator[str]:
        for position in range(self.head, self.tail):
            yield self.blocks[position // BLOCK][position % BLOCK]

    def push(self, key: str) -> Queue:
        number = self.tail // BLOCK
        block = (*self.blocks.get(number, ()), key)
        return Queue(blocks=self.blocks.set(number, block), head=self.head, tail=self.tail + 1)

    def first(self) -> str:
        return self.blocks[self.head // BLOCK][self.head % BLOCK]

    def pop(self) -> Queue:
        head = self.head + 1
        # A block goes when its last position is behind the head; the one that is being filled stays.
        blocks = self.blocks.delete(self.head // BLOCK) if head % BLOCK == 0 else self.blocks
        return Queue(blocks=blocks, head=head, tail=self.tail)


Named = Host | Namespace | Policy | MicroVM | MicroVMGroup
"""What is declared under a name."""


@record
class State:
    cluster_id: str
    machine_version: int = 1
    """What every node is known to read (`model.commands.versions`): raised by a committed command."""
    revision: int = 0
    """Raised by every command that changed something."""
    digest: int = 0
    hosts: Table[Host] = Table()
    namespaces: Table[Namespace] = Table()
    policies: Table[PlacementPolicy] = Table()
    failover_policies: Table[FailoverPolicy] = Table()
    gc_policies: Table[GCPolicy] = Table()
    microvms: Table[MicroVM] = Table()
    """By uid."""
    operations: Table[Operation] = Table()
    keys: Table[IdempotencyRecord] = Table()
    """By actor and idempotency key."""
    incarnations: Table[Incarnation] = Table()
    """By number: those that began after the founding one, whose log needs no wait."""
    tallies: Table[Tally] = Table()
    """By trigger: what was collected."""
    overrides: Table[Override] = Table()
    """By what they override; one that has ended stays until the next."""
    roles: Table[Role] = Table()
    role_bindings: Table[RoleBinding] = Table()
    api_tokens: Table[ApiToken] = Table()
    audit: Table[AuditRecord] = Table()
    """By sequence, see `audit_key`: the newest of the audit chain. Empty: it has not begun."""
    audit_exports: Table[AuditExport] = Table()
    """By node."""
    authorities: Table[ClusterAuthority] = Table()
    """By fingerprint: the cluster's own; none where its certificates come from elsewhere."""
    join_tokens: Table[JoinToken] = Table()
    holders: Table[Holder] = Table()
    """By kind and name (`holder_key`): the certificates that the cluster issued."""
    microvm_groups: Table[MicroVMGroup] = Table()
    """By namespace and name (`group_key`)."""
    data_keys: Table[DataKey] = Table()
    """By id: what secrets are sealed with; none before the first."""
    recent: RecentEvents = RecentEvents()
    """What came about lately, as operators are told of it; no part of the digest."""

    names: Map[str, str] = Map()
    """Index: `namespace/name` to the uid of a microVM."""
    pending: Map[str, None] = Map()
    """Index: uids of the microVMs that wait for a host."""
    failed: Map[str, None] = Map()
    """Index: uids of the microVMs whose host cannot run them."""
    on_host: Map[str, Map[str, None]] = Map()
    """Index: host to the uids placed on it, tombstones included."""
    members: Map[str, Map[str, None]] = Map()
    """Index: uid of a group to the uids of its members, tombstones included."""
    with_strangers: Map[str, None] = Map()
    """Index: hosts that tell of microVMs that nobody declares."""
    usage: Map[str, Amount] = Map()
    """Index: namespace to what its microVMs ask for."""
    policy_users: Map[tuple[Kind, str], int] = Map()
    """Index: kind and name of a policy to the number of microVMs that name it."""
    finished: Queue = Queue()
    """Index: ended operations, in the order in which they are to be forgotten."""
    key_order: Queue = Queue()
    """Index: idempotency keys, in the order in which they are to be forgotten."""
    audit_head: int = 0
    """Index: sequence of the newest audit record."""
    begun: Incarnation | None = None
    """Index: the incarnation that began last; None in the founding one."""

    @property
    def incarnation(self) -> int:
        """The one whose hosts were waited for: while the log's is higher, nothing may be granted or placed."""
        return self.begun.number if self.begun is not None else FOUNDING

    def policies_of(self, kind: Kind) -> Table[Policy]:
        """The policies of one kind, by name. Raises KeyError for what is no kind of policy."""
        return cast("Table[Policy]", getattr(self, POLICIES[kind].table))

    def with_policies(self, kind: Kind, policies: Table[Policy]) -> State:
        changed: dict[str, Any] = {POLICIES[kind].table: policies}
        return replace(self, **changed)

    @property
    def audit_first(self) -> int:
        """Sequence of the oldest audit record that is held: what is held has no gap."""
        return self.audit_head - len(self.audit) + 1

    def audit_at(self, sequence: int) -> AuditRecord:
        """Raises KeyError."""
        return self.audit[audit_key(sequence)]

    def named(self, kind: Kind, namespace: str | None, name: str) -> Named | None:
        """What is declared under that name. Raises KeyError for a kind that is not declared by name."""
        match kind:
            case Kind.MICROVM:
                return self.microvm(namespace or "", name)
            case Kind.MICROVM_GROUP:
                return self.microvm_group(namespace or "", name)
            case Kind.HOST:
                return self.hosts.get(name)
            case Kind.NAMESPACE:
                return self.namespaces.get(name)
            case _:
                return self.policies_of(kind).get(name)

    def microvm(self, namespace: str, name: str) -> MicroVM | None:
        uid = self.names.get(f"{namespace}/{name}")
        return None if uid is None else self.microvms.get(uid)

    def microvm_group(self, namespace: str, name: str) -> MicroVMGroup | None:
        return self.microvm_groups.get(group_key(namespace, name))

    def members_of(self, group: str) -> Iterator[MicroVM]:
        """Every member of the group with this uid, tombstones included, in order of uid."""
        uids = self.members.get(group)
        for uid in sorted(uids) if uids is not None else ():
            yield self.microvms[uid]

    def microvms_on(self, host: str) -> Iterator[MicroVM]:
        """Everything placed on `host`, tombstones included, in order of uid."""
        uids = self.on_host.get(host)
        for uid in sorted(uids) if uids is not None else ():
            yield self.microvms[uid]


def audit_key(sequence: int) -> str:
    return f"{sequence:016d}"
