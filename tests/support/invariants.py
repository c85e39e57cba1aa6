"""What has to hold of every state that the machine can reach, and of every step between two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from controlplane.machine.codec import TABLES, full_digest
from controlplane.machine.convergence import amount_of
from controlplane.machine.draft import KEPT_KEYS, KEPT_OPERATIONS, reindex_host, reindex_microvm
from controlplane.machine.evacuation_rules import availability
from controlplane.machine.events import Declared, Event, EventType
from controlplane.machine.lifecycle import AVAILABILITY
from controlplane.machine.outcome import Outcome, Rejected
from controlplane.machine.recent_events import KEPT
from controlplane.machine.recovery_rules import is_off
from controlplane.machine.state import BLOCK, State
from controlplane.machine.table import Table
from controlplane.model.commands import (
    AbortRotation,
    AddDataKey,
    Batch,
    BeginIncarnation,
    CancelOverride,
    Collect,
    Command,
    CreateApiToken,
    CreateJoinToken,
    Destroyed,
    DropAudit,
    DropDataKey,
    EstablishAuthority,
    ExportedAudit,
    Join,
    NoteApiTokenUses,
    OverrideBreaker,
    Place,
    RaiseMachineVersion,
    RenewCertificate,
    Report,
    Resurrect,
    RetireAuthority,
    RevokeApiToken,
    RevokeCertificates,
    RevokeJoinToken,
    RotateApiToken,
    RotateAuthority,
)
from controlplane.model.gc import Trigger
from controlplane.model.groups import MicroVMGroup, group_key
from controlplane.model.policies import policies_named
from controlplane.model.resources import (
    Amount,
    Availability,
    Host,
    HostPhase,
    MicroVM,
    MicroVMPhase,
    Namespace,
    Operation,
    OperationPhase,
    Policy,
)
from controlplane.model.spec import HostMode, OnDetach
from controlplane.model.types import Kind
from support.snapshots import dump, load

_WITH_ORDERS = (HostPhase.FENCED, HostPhase.REJOINING, HostPhase.DETACHED)
"""Phases in which a host may have orders to destroy what was given up there: it gets no lease before they are done."""


def check_state(state: State) -> None:
    """Raises AssertionError naming what does not hold."""
    assert state.digest == full_digest(state), "the incremental digest is the digest of all records"
    _check_indexes(state)
    _check_capacity(state)
    _check_operations(state)
    _check_phases(state)
    _check_copies(state)
    _check_incarnations(state)
    _check_secrets(state)
    _check_recent(state)


def _check_recent(state: State) -> None:
    recent = state.recent
    places = [recent.at(position).place for position in range(recent.head, recent.tail)]
    assert places == sorted(set(places)), (
        "events are in the order in which they came about, each with a place of its own"
    )
    assert len(recent) <= KEPT, "so many events are held at most"
    assert not places or (recent.forgotten < places[0] and places[-1][0] <= state.revision)


def _check_secrets(state: State) -> None:
    for vm in state.microvms.values():
        assert vm.sealed.keys() == vm.spec.sensitive_metadata.keys(), "a secret is a digest and a value"
        assert {each.key_id for each in vm.sealed.values()} <= state.data_keys.keys(), "what is sealed can be opened"


def check_snapshot(state: State) -> None:
    """A dump loads into an equal state: records, indexes, digest, and the order in which things are forgotten."""
    data = dump(state)
    loaded = load(data)
    assert loaded.digest == state.digest
    assert dump(loaded) == data
    for name in TABLES:
        assert getattr(loaded, name) == getattr(state, name), name
    for name in ("names", "pending", "failed", "on_host", "members", "with_strangers"):
        assert getattr(loaded, name) == getattr(state, name), name
    for name in ("usage", "policy_users", "revision", "cluster_id", "machine_version", "audit_head", "begun"):
        assert getattr(loaded, name) == getattr(state, name), name
    for name in ("finished", "key_order", "recent"):
        assert getattr(loaded, name) == getattr(state, name), name
    assert list(loaded.finished) == list(state.finished)
    assert list(loaded.key_order) == list(state.key_order)


_UNTOLD = (
    BeginIncarnation
    | OverrideBreaker
    | CancelOverride
    | CreateApiToken
    | RotateApiToken
    | RevokeApiToken
    | NoteApiTokenUses
    | ExportedAudit
    | DropAudit
    | EstablishAuthority
    | CreateJoinToken
    | RevokeJoinToken
    | Join
    | RenewCertificate
    | RevokeCertificates
    | RotateAuthority
    | AbortRotation
    | RetireAuthority
    | AddDataKey
    | DropDataKey
    | RaiseMachineVersion
)
"""What changes no declared object, so that no watcher hears of it."""


def _is_of_the_audit(command: Command) -> bool:
    """It ends audit records, which are no declared objects either."""
    return isinstance(command, Collect) and command.trigger is Trigger.AUDIT_RECORDS


def check_step(
    before: State, command: Command, after: State, outcome: Outcome, events: Sequence[Event], *, keyed: bool
) -> None:
    """What one command may do."""
    if isinstance(outcome, Rejected):
        assert after is before, "a refusal changes nothing"
        assert not events
        assert outcome.message
        return
    # The digest leaves the audit chain and the machine version out.
    changed = after.digest != before.digest or isinstance(command, DropAudit | RaiseMachineVersion)
    assert after.revision == before.revision + int(changed), "the revision counts changes"
    assert outcome.revision == after.revision
    assert changed or not events
    told = keyed or isinstance(command, _UNTOLD) or _is_of_the_audit(command)
    assert told or not changed or events, "every change is told"
    _check_events(after, events)
    _check_epochs(before, command, after)
    _check_vanished(before, command, after)
    _check_left_behind(before, command, after)
    _check_begun(before, command, after)
    _check_availability(before, command, after)
    if isinstance(command, Place):
        _check_placed(before, command, after)


def _check_indexes(state: State) -> None:
    rebuilt = State(cluster_id=state.cluster_id)
    for uid in sorted(state.microvms):
        assert state.microvms[uid].meta.uid == uid
        rebuilt = reindex_microvm(rebuilt, None, state.microvms[uid])
    for host in state.hosts.values():
        rebuilt = reindex_host(rebuilt, None, host)
    for name in ("names", "pending", "failed", "on_host", "members", "with_strangers", "usage", "policy_users"):
        assert getattr(state, name) == getattr(rebuilt, name), f"index {name} follows from the records"
    assert len(state.names) == len(state.microvms), "at most one microVM has a name"
    assert state.begun == max(state.incarnations.values(), key=lambda each: each.number, default=None)
    assert sorted(state.key_order) == sorted(state.keys)
    assert len(state.key_order) <= KEPT_KEYS
    ended = sorted(each.id for each in state.operations.values() if each.finished_at is not None)
    assert sorted(state.finished) == ended
    assert len(state.finished) <= KEPT_OPERATIONS
    for queue in (state.finished, state.key_order):
        held = sum(map(len, queue.blocks.values()))
        assert len(queue) <= held < len(queue) + BLOCK, "what is forgotten is let go of, a block at a time"


def _check_capacity(state: State) -> None:
    for name, host in state.hosts.items():
        held = sum((vm.held for vm in state.microvms_on(name)), Amount())
        assert host.allocated == held, f"host {name} keeps what its microVMs hold"
    for name in state.on_host:
        assert name in state.hosts, f"host {name} holds microVMs"
    for name, used in state.usage.items():
        quota = state.namespaces[name].spec
        assert quota.max_microvms is None or used.microvms <= quota.max_microvms
        assert quota.max_vcpu is None or used.vcpu <= quota.max_vcpu
        assert quota.max_memory_in_mb is None or used.memory_in_mb <= quota.max_memory_in_mb
    for vm in state.microvms.values():
        wanted = amount_of(vm.spec)
        if vm.placement is not None:
            assert vm.held.microvms == 1
            assert vm.held.vcpu >= wanted.vcpu
            assert vm.held.memory_in_mb >= wanted.memory_in_mb
        else:
            assert vm.held == Amount()


def _check_operations(state: State) -> None:
    for operation in state.operations.values():
        assert (operation.phase is OperationPhase.RUNNING) == (operation.finished_at is None)
        assert (operation.finished_at is None) == (operation.finished_revision is None)
        if operation.phase is OperationPhase.RUNNING:
            vm = state.microvms.get(operation.target.uid)
            assert vm is not None, "what runs has something to run on"
            assert vm.operation == operation.id, "one operation runs on a microVM"


def _check_phases(state: State) -> None:
    for vm in state.microvms.values():
        placed = vm.phase is not MicroVMPhase.PENDING
        assert placed == (vm.placement is not None)
        assert vm.epoch > 0 if placed else (vm.epoch > 0) == (vm.resurrection is not None or vm.move is not None)
        assert placed or (vm.observed is None and vm.detach is OnDetach.KEEP)
        assert vm.resurrection is None or vm.resurrection.epoch <= vm.epoch
        assert vm.placement is None or vm.placement.epoch == vm.epoch
        assert vm.unplaced is None or not placed
        assert (vm.phase is MicroVMPhase.DELETING) == (vm.meta.deletion_requested_at is not None)
        assert vm.meta.namespace in state.namespaces
        assert all(named.name in state.policies_of(named.kind) for named in policies_named(vm.spec))
        if vm.stay is not None:
            assert vm.placement is not None
            mode = state.hosts[vm.placement.host].spec.mode
            assert mode is not HostMode.ACTIVE
            assert mode is HostMode.MAINTENANCE or not vm.stay.halted, "what a drain leaves runs on"
    for host in state.hosts.values():
        assert (host.evacuating is None) == (host.spec.mode is HostMode.ACTIVE)
        emptied = availability(host) is Availability.DRAINED
        assert not emptied or host.meta.name not in state.on_host, "drained is said of an empty host"
        assert host.declared == (host.phase is not HostPhase.PENDING)
        if host.phase is not HostPhase.SUSPECT:  # it has none where it was lost before there were leases
            connected = host.phase in (HostPhase.READY, HostPhase.PENDING, HostPhase.REJOINING)
            assert (host.session is not None) == connected, f"host {host.meta.name} is {host.phase.value}"
        assert (host.session is None) == (host.node is None)
        assert host.inventory is not None or host.phase is HostPhase.EXPECTED
        lost = host.phase in (HostPhase.DETACHED, HostPhase.FENCED)
        assert host.confirmed_by is None or lost, "whoever is heard again is not off"
    for record in (*state.hosts.values(), *state.microvms.values()):
        assert 0 < record.meta.revision <= state.revision
        assert record.meta.intent_revision <= record.meta.revision


def _check_copies(state: State) -> None:
    """At most one host may run a microVM, and what may run elsewhere has an order to destroy."""
    for name, host in state.hosts.items():
        assert set(host.orders) <= set(host.stale), "a reason is of an order"
        # A copy that nobody declares is collected from a host that is well.
        given_up = {uid: epoch for uid, epoch in host.stale.items() if not _is_collected(host, uid)}
        assert not given_up or host.phase in _WITH_ORDERS, f"host {name} has orders and is {host.phase.value}"
        for uid, epoch in given_up.items():
            vm = state.microvms.get(uid)
            if vm is not None:
                assert 0 < epoch <= vm.epoch, "an order is for a copy that there was"
                assert vm.placement is None or vm.placement.host != name, "no copy beside the one to be destroyed"
                assert vm.placement is None or epoch < vm.epoch, "the present copy has no order"
    for vm in state.microvms.values():
        host = state.hosts.get(vm.placement.host) if vm.placement is not None else None
        if vm.detach is not OnDetach.KEEP:
            assert host is not None
            assert host.lease_ttl_ms > 0, "what no lease ends is kept"


def _is_collected(host: Host, uid: str) -> bool:
    order = host.orders.get(uid)
    return order is not None and order.trigger is Trigger.UNMANAGED_MICROVM


def _check_incarnations(state: State) -> None:
    """Whoever is waited for has no lease, and nobody said that it is off."""
    for key, each in state.incarnations.items():
        assert key == str(each.number)
        assert 1 < each.number <= state.incarnation
    for name in state.begun.awaited if state.begun is not None else ():
        host = state.hosts[name]
        assert host.declared
        assert host.phase in _WITH_ORDERS
        assert host.confirmed_by is None


def _check_begun(before: State, command: Command, after: State) -> None:
    if after.incarnation == before.incarnation:
        assert before.begun is None or after.begun is not None
        if before.begun is not None and after.begun is not None:
            assert set(after.begun.awaited) <= set(before.begun.awaited), "a loss since then is another matter"
        return
    assert isinstance(command, BeginIncarnation)
    assert after.incarnation == command.incarnation > before.incarnation
    assert after.microvms == before.microvms
    assert after.begun is not None
    for name, host in after.hosts.items():
        waits = host.declared and host.inventory is not None
        assert (name in after.begun.awaited) == waits, "everything that ever connected has to tell"
        assert not waits or host.phase is HostPhase.DETACHED


def _check_placed(before: State, command: Place, after: State) -> None:
    """Nothing is placed while somebody may hold another copy that the state does not know of."""
    vm = after.microvms[command.uid]
    assert before.hosts[command.host].spec.mode is HostMode.ACTIVE
    assert vm.epoch > (after.incarnation - 1) * 1_000_000
    if not after.hosts[command.host].lease_ttl_ms:
        return  # as before there were leases
    assert before.begun is None or not before.begun.awaited
    for host in before.hosts.values():
        assert is_off(host) or command.uid not in {each.uid for each in host.unmanaged}


def _check_events(after: State, events: Sequence[Event]) -> None:
    last: dict[tuple[Kind, str], Event] = {}
    for event in events:
        assert event.revision == after.revision
        last[event.kind, _key(event.object)] = event
    for (kind, key), event in last.items():
        now = _records(after, kind).get(key)
        if event.type is EventType.DELETED:
            assert now is None
        else:
            assert now == event.object, "the last event of an object shows it as it is"


def _check_epochs(before: State, command: Command, after: State) -> None:
    for uid, vm in before.microvms.items():
        if (now := after.microvms.get(uid)) is not None and now is not vm:
            assert now.epoch >= vm.epoch, "epochs only rise"
            # A batch may delete what was never placed and make another of the same uid: no proposer of ours does.
            assert now.meta.generation >= vm.meta.generation or (isinstance(command, Batch) and vm.placement is None)
            if vm.placement is not None and now.placement is None:
                _check_resurrected(before, command, after, vm)
            elif vm.placement is not None and now.placement is not None:
                assert (now.epoch, now.placement.host) == (vm.epoch, vm.placement.host), "a host is left by its loss"


def _check_resurrected(before: State, command: Command, after: State, vm: MicroVM) -> None:
    """A placement ends without its host's word only when that is fenced, and leaves an order to destroy behind."""
    if isinstance(command, Report):
        _check_moved(command, after, vm)
        return
    assert isinstance(command, Resurrect), f"{vm.meta.uid} was moved by {type(command).__name__}"
    assert vm.placement is not None
    host = before.hosts[vm.placement.host]
    assert host.phase is HostPhase.FENCED
    assert vm.detach is not OnDetach.KEEP or host.confirmed_by is not None, "what is kept may still run"
    assert after.hosts[vm.placement.host].stale[vm.meta.uid] == vm.epoch
    now = after.microvms[vm.meta.uid]
    assert now.epoch == vm.epoch
    assert now.resurrection is not None
    assert (now.resurrection.host, now.resurrection.epoch) == (vm.placement.host, vm.epoch)


def _check_moved(command: Report, after: State, vm: MicroVM) -> None:
    """What moves waits for its next host once the last one has said that nothing is left of it there."""
    assert vm.phase is MicroVMPhase.MOVING, f"{vm.meta.uid} was not told to move"
    assert vm.placement is not None
    assert command.host == vm.placement.host
    assert Destroyed(uid=vm.meta.uid, epoch=vm.epoch) in command.destroyed
    now = after.microvms[vm.meta.uid]
    assert now.move is not None
    assert (now.move.host, now.move.epoch, now.epoch) == (vm.placement.host, vm.epoch, vm.epoch)


def _check_availability(before: State, command: Command, after: State) -> None:
    """What a host is for changes as its table says. A batch may do two steps at once."""
    for name, host in before.hosts.items():
        now = after.hosts.get(name)
        if now is None or not (host.declared and now.declared) or isinstance(command, Batch):
            continue
        was, is_ = availability(host), availability(now)
        assert was is is_ or any(start is was and end is is_ for (start, _), end in AVAILABILITY.items()), (was, is_)


def _check_vanished(before: State, command: Command, after: State) -> None:
    """A placed microVM ends only in `deleting`, by the word of its host about its epoch, or of an operator about it.

    An order to destroy ends by the word of its host, or with a host that an operator confirmed as off.
    """
    for name, host in before.hosts.items():
        same = _still_there(host, after)
        left = after.hosts[name].stale if same else {}
        for uid in host.stale.keys() - left.keys():
            if not same:
                assert is_off(host), f"the orders of {name} were dropped"
            else:
                assert isinstance(command, Report)
                assert command.host == name
                assert any(gone.uid == uid and gone.epoch >= host.stale[uid] for gone in command.destroyed)
    for uid, vm in before.microvms.items():
        if uid in after.microvms or vm.placement is None:
            continue
        host = before.hosts[vm.placement.host]
        if not _still_there(host, after):
            assert is_off(host), f"{uid} vanished with its host"
            continue
        assert vm.phase is MicroVMPhase.DELETING, f"{uid} had no tombstone"
        if isinstance(command, Collect):
            assert is_off(host), f"host {host.meta.name} may confirm the tombstone of {uid}"
            assert after.hosts[host.meta.name].stale[uid] == vm.epoch, "the order is lost"
            continue
        assert isinstance(command, Report), f"{uid} vanished by {type(command).__name__}"
        assert command.host == vm.placement.host
        assert Destroyed(uid=uid, epoch=vm.epoch) in command.destroyed
    counts = Counter(vm.phase for vm in after.microvms.values())
    assert sum(counts.values()) == len(after.names)


def _check_left_behind(before: State, command: Command, after: State) -> None:
    """Only what is ours is ever ordered to go, by a collection, and such an order ends by a look of its host."""
    for name, host in after.hosts.items():
        told = {left.key: left for left in host.left_behind}
        assert set(host.clearing) <= set(told), "an order is about what is there"
        old = before.hosts.get(name)
        if old is None or not _still_there(old, after):
            continue
        for key in host.clearing.keys() - old.clearing.keys():
            assert told[key].ours, "an order is about what is ours"
            assert isinstance(command, Collect)
            assert host.phase is HostPhase.READY
        if old.clearing.keys() - host.clearing.keys() and host.declared and not isinstance(command, Batch):
            assert isinstance(command, Report)
            assert command.host == name


def _still_there(host: Host, after: State) -> bool:
    """Whether the host is still the one it was; a batch may delete it and declare another of its name."""
    now = after.hosts.get(host.meta.name)
    return now is not None and now.meta.uid == host.meta.uid


def _key(value: Declared) -> str:
    if isinstance(value, Operation):
        return value.id
    if isinstance(value, MicroVMGroup):
        return group_key(str(value.meta.namespace), value.meta.name)
    return value.meta.uid if isinstance(value, MicroVM) else value.meta.name


def _records(
    state: State, kind: Kind
) -> Table[Host] | Table[Namespace] | Table[Policy] | Table[MicroVM] | Table[MicroVMGroup] | Table[Operation]:
    match kind:
        case Kind.HOST:
            return state.hosts
        case Kind.NAMESPACE:
            return state.namespaces
        case Kind.PLACEMENT_POLICY | Kind.FAILOVER_POLICY | Kind.GC_POLICY | Kind.ROLE | Kind.ROLE_BINDING:
            return state.policies_of(kind)
        case Kind.MICROVM:
            return state.microvms
        case Kind.MICROVM_GROUP:
            return state.microvm_groups
        case Kind.OPERATION:
            return state.operations
