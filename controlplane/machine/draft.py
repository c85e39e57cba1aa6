"""One command's changes, collected on the side.

A handler edits a Draft and the caller keeps its result only if the handler accepted the command, so a refusal changes
nothing. Every put keeps the digest and the indexes in step, stamps the record's revision, and notes an event; putting
what is already there does nothing.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TypeVar

import msgspec
from immutables import Map

from controlplane.machine.convergence import amount_of
from controlplane.machine.events import Event, EventType
from controlplane.machine.state import State, audit_key
from controlplane.model.api_tokens import ApiToken
from controlplane.model.audit import AuditExport, AuditRecord
from controlplane.model.credentials import ClusterAuthority, Holder, JoinToken, holder_key
from controlplane.model.gc import Deletion, Tally, Trigger
from controlplane.model.groups import MicroVMGroup, group_key
from controlplane.model.policies import policies_named
from controlplane.model.resources import (
    Amount,
    Host,
    IdempotencyRecord,
    Incarnation,
    MicroVM,
    MicroVMPhase,
    Namespace,
    Operation,
    Override,
    Policy,
)
from controlplane.model.secrets import DataKey
from controlplane.model.types import Kind, replace

DIGEST_MODULUS = 1 << 128
DIGEST_FORMAT = 7
"""Raised with every change of what a digest covers or how it is reckoned, such as a new field of a record: digests of
two formats are never compared, neither with another node's during an upgrade nor with an older snapshot's.
"""
KEPT_OPERATIONS = 1_000
"""Ended operations that are remembered."""
KEPT_KEYS = 10_000
KEY_LIFETIME_MS = 24 * 3600 * 1000

_encoder = msgspec.msgpack.Encoder(order="deterministic")
Stamped = TypeVar("Stamped", Host, Namespace, Policy, MicroVM, MicroVMGroup)
Untold = (
    IdempotencyRecord
    | Incarnation
    | Tally
    | Override
    | AuditRecord
    | AuditExport
    | ApiToken
    | ClusterAuthority
    | JoinToken
    | Holder
    | DataKey
)
"""Records whose changes are no events."""
Record = Host | Namespace | Policy | MicroVM | MicroVMGroup | Operation | Untold
Place = tuple[type[Record | None], str]
"""Where a record is: its type says the table."""
Digests = tuple[int | None, int | None]
"""Of what is at one place before a command and after it; None: nothing."""


def digest_of(key: str, value: Record) -> int:
    """Digest of one record under its key; the kind is part of it, so equal bytes of two kinds differ."""
    data = type(value).__name__.encode() + b"\0" + key.encode() + b"\0" + _encoder.encode(value)
    return int.from_bytes(blake2b(data, digest_size=16).digest(), "big")


class Draft:
    def __init__(self, state: State, *, at: int, actor: str, term: int) -> None:
        self.state = state
        """As edited so far, but for `digest` and `revision`, which `result` puts in."""
        self.digest = state.digest
        self.base = state.digest
        """What `changed` compares with: the digest before the command; in a batch, before each of its commands."""
        self.at = at
        self.actor = actor
        self.term = term
        """The log's: what a leader decided from its memory counts in its own alone."""
        self.revision = state.revision + 1
        self.events: list[Event] = []
        self.digests: dict[Place, Digests] = {}

    @property
    def changed(self) -> bool:
        return self.digest != self.base

    def unchanged_from(self, state: State) -> bool:
        """Whether this draft of `state` says nothing new. The digest leaves out the audit chain and the version."""
        return (
            self.digest == state.digest
            and self.state.audit is state.audit
            and self.state.machine_version == state.machine_version
        )

    def result(self) -> State:
        """The state that the accepted commands lead to."""
        return replace(self.state, digest=self.digest, revision=self.revision)

    def because(self, reason: str, trigger: Trigger | None = None) -> Deletion:
        """An order to end something, given by this command."""
        return Deletion(actor=self.actor, at=self.at, reason=reason, trigger=trigger)

    # -- records -------------------------------------------------------------------------------------------------------

    def put_namespace(self, value: Namespace) -> None:
        key = value.meta.name
        old = self.state.namespaces.get(key)
        if (new := self._stamp(old, value)) is not None:
            self.state = replace(self.state, namespaces=self.state.namespaces.set(key, new))
            self._note(Kind.NAMESPACE, key, old, new)

    def drop_namespace(self, value: Namespace, why: Deletion) -> None:
        self.state = replace(self.state, namespaces=self.state.namespaces.delete(value.meta.name))
        self._note(Kind.NAMESPACE, value.meta.name, value, None, why)

    def put_policy(self, value: Policy) -> None:
        kind, key = value.meta.kind, value.meta.name
        policies = self.state.policies_of(kind)
        old = policies.get(key)
        if (new := self._stamp(old, value)) is not None:
            self.state = self.state.with_policies(kind, policies.set(key, new))
            self._note(kind, key, old, new)

    def drop_policy(self, value: Policy, why: Deletion) -> None:
        kind, key = value.meta.kind, value.meta.name
        self.state = self.state.with_policies(kind, self.state.policies_of(kind).delete(key))
        self._note(kind, key, value, None, why)

    def put_host(self, value: Host) -> None:
        key = value.meta.name
        old = self.state.hosts.get(key)
        if (new := self._stamp(old, value)) is not None:
            self.state = replace(self.state, hosts=self.state.hosts.set(key, new))
            self.state = reindex_host(self.state, old, new)
            self._note(Kind.HOST, key, old, new)

    def drop_host(self, value: Host, why: Deletion) -> None:
        self.state = replace(self.state, hosts=self.state.hosts.delete(value.meta.name))
        self.state = reindex_host(self.state, value, None)
        self._note(Kind.HOST, value.meta.name, value, None, why)

    def put_microvm(self, value: MicroVM) -> None:
        key = value.meta.uid
        old = self.state.microvms.get(key)
        if (new := self._stamp(old, value)) is not None:
            self.state = replace(self.state, microvms=self.state.microvms.set(key, new))
            self.state = reindex_microvm(self.state, old, new)
            self._hold(old, new)
            self._note(Kind.MICROVM, key, old, new)

    def drop_microvm(self, value: MicroVM, why: Deletion) -> None:
        old = self.state.microvms[value.meta.uid]
        self.state = replace(self.state, microvms=self.state.microvms.delete(value.meta.uid))
        self.state = reindex_microvm(self.state, old, None)
        self._hold(old, None)
        self._note(Kind.MICROVM, value.meta.uid, old, None, why)

    def put_group(self, value: MicroVMGroup) -> None:
        key = group_key(str(value.meta.namespace), value.meta.name)
        old = self.state.microvm_groups.get(key)
        if (new := self._stamp(old, value)) is not None:
            self.state = replace(self.state, microvm_groups=self.state.microvm_groups.set(key, new))
            self._note(Kind.MICROVM_GROUP, key, old, new)

    def drop_group(self, value: MicroVMGroup, why: Deletion) -> None:
        key = group_key(str(value.meta.namespace), value.meta.name)
        self.state = replace(self.state, microvm_groups=self.state.microvm_groups.delete(key))
        self._note(Kind.MICROVM_GROUP, key, value, None, why)

    def put_operation(self, value: Operation) -> None:
        old = self.state.operations.get(value.id)
        self.state = replace(self.state, operations=self.state.operations.set(value.id, value))
        self._note(Kind.OPERATION, value.id, old, value)
        if value.finished_at is not None and (old is None or old.finished_at is None):
            self.state = replace(self.state, finished=self.state.finished.push(value.id))
            while len(self.state.finished) > KEPT_OPERATIONS:
                oldest = self.state.operations[self.state.finished.first()]
                self.state = replace(
                    self.state,
                    finished=self.state.finished.pop(),
                    operations=self.state.operations.delete(oldest.id),
                )
                self._digest(oldest.id, oldest, None)

    def drop_oldest_operation(self, why: Deletion) -> None:
        """Forget the ended operation that is the next to be forgotten anyway."""
        oldest = self.state.operations[self.state.finished.first()]
        operations = self.state.operations.delete(oldest.id)
        self.state = replace(self.state, finished=self.state.finished.pop(), operations=operations)
        self._note(Kind.OPERATION, oldest.id, oldest, None, why)

    def put_key(self, key: str, value: IdempotencyRecord) -> None:
        old = self.state.keys.get(key)
        self.state = replace(self.state, keys=self.state.keys.set(key, value))
        if old is None:
            self.state = replace(self.state, key_order=self.state.key_order.push(key))
        self._digest(key, old, value)
        while len(self.state.key_order):
            first = self.state.key_order.first()
            held = self.state.keys[first]
            if self.at - held.at <= KEY_LIFETIME_MS and len(self.state.key_order) <= KEPT_KEYS:
                break
            self.state = replace(self.state, key_order=self.state.key_order.pop(), keys=self.state.keys.delete(first))
            self._digest(first, held, None)

    def put_incarnation(self, value: Incarnation) -> None:
        key = str(value.number)
        old = self.state.incarnations.get(key)
        self.state = replace(self.state, incarnations=self.state.incarnations.set(key, value), begun=value)
        self._digest(key, old, value)

    def put_tally(self, trigger: Trigger, value: Tally) -> None:
        old = self.state.tallies.get(trigger.value)
        self.state = replace(self.state, tallies=self.state.tallies.set(trigger.value, value))
        self._digest(trigger.value, old, value)

    def put_override(self, key: str, value: Override) -> None:
        old = self.state.overrides.get(key)
        self.state = replace(self.state, overrides=self.state.overrides.set(key, value))
        self._digest(key, old, value)

    def drop_override(self, key: str) -> None:
        old = self.state.overrides[key]
        self.state = replace(self.state, overrides=self.state.overrides.delete(key))
        self._digest(key, old, None)

    def put_api_token(self, value: ApiToken) -> None:
        old = self.state.api_tokens.get(value.name)
        self.state = replace(self.state, api_tokens=self.state.api_tokens.set(value.name, value))
        self._digest(value.name, old, value)

    def drop_api_token(self, value: ApiToken) -> None:
        self.state = replace(self.state, api_tokens=self.state.api_tokens.delete(value.name))
        self._digest(value.name, value, None)

    def put_audit_export(self, value: AuditExport) -> None:
        old = self.state.audit_exports.get(value.node)
        self.state = replace(self.state, audit_exports=self.state.audit_exports.set(value.node, value))
        self._digest(value.node, old, value)

    def raise_machine_version(self, version: int) -> None:
        self.state = replace(self.state, machine_version=version)

    def drop_audit(self, through: int) -> None:
        """Every record up to that sequence. The digest leaves the chain out."""
        keys = map(audit_key, range(self.state.audit_first, through + 1))
        self.state = replace(self.state, audit=self.state.audit.without(keys))

    def put_authority(self, value: ClusterAuthority) -> None:
        old = self.state.authorities.get(value.fingerprint)
        self.state = replace(self.state, authorities=self.state.authorities.set(value.fingerprint, value))
        self._digest(value.fingerprint, old, value)

    def drop_authority(self, value: ClusterAuthority) -> None:
        self.state = replace(self.state, authorities=self.state.authorities.delete(value.fingerprint))
        self._digest(value.fingerprint, value, None)

    def put_join_token(self, value: JoinToken) -> None:
        old = self.state.join_tokens.get(value.id)
        self.state = replace(self.state, join_tokens=self.state.join_tokens.set(value.id, value))
        self._digest(value.id, old, value)

    def drop_join_token(self, value: JoinToken) -> None:
        self.state = replace(self.state, join_tokens=self.state.join_tokens.delete(value.id))
        self._digest(value.id, value, None)

    def put_holder(self, value: Holder) -> None:
        key = holder_key(value.kind, value.name)
        old = self.state.holders.get(key)
        self.state = replace(self.state, holders=self.state.holders.set(key, value))
        self._digest(key, old, value)

    def drop_holder(self, value: Holder) -> None:
        key = holder_key(value.kind, value.name)
        self.state = replace(self.state, holders=self.state.holders.delete(key))
        self._digest(key, value, None)

    def put_data_key(self, value: DataKey) -> None:
        old = self.state.data_keys.get(value.id)
        self.state = replace(self.state, data_keys=self.state.data_keys.set(value.id, value))
        self._digest(value.id, old, value)

    def drop_data_key(self, value: DataKey) -> None:
        self.state = replace(self.state, data_keys=self.state.data_keys.delete(value.id))
        self._digest(value.id, value, None)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _stamp(self, old: Stamped | None, new: Stamped) -> Stamped | None:
        """`new` with this draft's revision, or None when it says nothing new."""
        if old is not None and replace(new, meta=replace(new.meta, revision=old.meta.revision)) == old:
            return None
        if new.meta.revision == self.revision:
            return new
        return replace(new, meta=replace(new.meta, revision=self.revision))

    def _hold(self, old: MicroVM | None, new: MicroVM | None) -> None:
        """Keep the hosts' allocations equal to the sum of what their microVMs hold."""
        if _holding(old) == _holding(new):
            return
        for vm, sign in ((old, -1), (new, +1)):
            if vm is None or vm.placement is None:
                continue
            host = self.state.hosts.get(vm.placement.host)
            if host is not None:
                held = host.allocated + vm.held if sign > 0 else host.allocated - vm.held
                self.put_host(replace(host, allocated=held))

    def _note(self, kind: Kind, key: str, old: Record | None, new: Record | None, why: Deletion | None = None) -> None:
        self._digest(key, old, new)
        subject = new if new is not None else old
        assert subject is not None
        assert not isinstance(subject, Untold)
        type_ = EventType.DELETED if new is None else EventType.ADDED if old is None else EventType.MODIFIED
        self.events.append(Event(revision=self.revision, type=type_, kind=kind, object=subject, deletion=why))

    def _digest(self, key: str, old: Record | None, new: Record | None) -> None:
        place = (type(old) if new is None else type(new), key)
        known = self.digests.get(place)
        # What this draft put there before need not be hashed again.
        first, was = known or ((digest := digest_of(key, old) if old is not None else None), digest)
        now = digest_of(key, new) if new is not None else None
        self.digests[place] = (first, now)
        self.digest = (self.digest - (was or 0) + (now or 0)) % DIGEST_MODULUS


def _holding(vm: MicroVM | None) -> tuple[str, Amount] | None:
    return (vm.placement.host, vm.held) if vm is not None and vm.placement is not None else None


def reindex_host(state: State, old: Host | None, new: Host | None) -> State:
    """The state with its index moved from `old` to `new`."""
    had, has = old is not None and bool(old.unmanaged), new is not None and bool(new.unmanaged)
    if new is not None and has and not had:
        return replace(state, with_strangers=state.with_strangers.set(new.meta.name, None))
    if old is not None and had and not has:
        return replace(state, with_strangers=state.with_strangers.delete(old.meta.name))
    return state


def reindex_microvm(state: State, old: MicroVM | None, new: MicroVM | None) -> State:
    """The state with its indexes moved from `old` to `new`."""
    names, pending, on_host, usage, users = state.names, state.pending, state.on_host, state.usage, state.policy_users
    failed, members = state.failed, state.members
    if old is not None:
        names = names.delete(f"{old.meta.namespace}/{old.meta.name}")
        if old.phase is MicroVMPhase.PENDING:
            pending = pending.delete(old.meta.uid)
        if old.phase is MicroVMPhase.FAILED:
            failed = failed.delete(old.meta.uid)
        if old.placement is not None:
            left = on_host[old.placement.host].delete(old.meta.uid)
            on_host = on_host.set(old.placement.host, left) if left else on_host.delete(old.placement.host)
        if old.group is not None:
            others = members[old.group].delete(old.meta.uid)
            members = members.set(old.group, others) if others else members.delete(old.group)
        usage = _add(usage, str(old.meta.namespace), Amount() - amount_of(old.spec))
        for named in policies_named(old.spec):
            users = _count(users, (named.kind, named.name), -1)
    if new is not None:
        names = names.set(f"{new.meta.namespace}/{new.meta.name}", new.meta.uid)
        if new.phase is MicroVMPhase.PENDING:
            pending = pending.set(new.meta.uid, None)
        if new.phase is MicroVMPhase.FAILED:
            failed = failed.set(new.meta.uid, None)
        if new.placement is not None:
            there = on_host.get(new.placement.host) or Map[str, None]()
            on_host = on_host.set(new.placement.host, there.set(new.meta.uid, None))
        if new.group is not None:
            others = members.get(new.group) or Map[str, None]()
            members = members.set(new.group, others.set(new.meta.uid, None))
        usage = _add(usage, str(new.meta.namespace), amount_of(new.spec))
        for named in policies_named(new.spec):
            users = _count(users, (named.kind, named.name), +1)
    return replace(
        state,
        names=names,
        pending=pending,
        failed=failed,
        on_host=on_host,
        members=members,
        usage=usage,
        policy_users=users,
    )


def _add(usage: Map[str, Amount], namespace: str, amount: Amount) -> Map[str, Amount]:
    total = usage.get(namespace, Amount()) + amount
    return usage.delete(namespace) if total == Amount() else usage.set(namespace, total)


def _count(users: Map[tuple[Kind, str], int], policy: tuple[Kind, str], change: int) -> Map[tuple[Kind, str], int]:
    total = users.get(policy, 0) + change
    return users.delete(policy) if total == 0 else users.set(policy, total)
