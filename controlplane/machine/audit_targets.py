"""What a command is about, as the audit chain names it, and the digest of that in a state."""

from __future__ import annotations

from typing import Literal

from controlplane.machine.draft import Record, digest_of
from controlplane.machine.effect import Effect
from controlplane.machine.state import State
from controlplane.model.access import AccessKind
from controlplane.model.commands import (
    AbortRotation,
    Act,
    ActOnHost,
    AddDataKey,
    Adopt,
    BeginIncarnation,
    CancelOverride,
    Collect,
    Command,
    ConfirmFenced,
    ConfirmOff,
    CreateApiToken,
    CreateJoinToken,
    Declaration,
    DeclareHost,
    DeclareMicroVM,
    DeclareMicroVMGroup,
    DeclareNamespace,
    Delete,
    DropDataKey,
    EstablishAuthority,
    Evict,
    Hold,
    HostDetached,
    HostEvacuated,
    HostFenced,
    Join,
    MarkStaying,
    OverrideBreaker,
    Place,
    RaiseMachineVersion,
    Release,
    Reseal,
    Resurrect,
    RetireAuthority,
    RevokeApiToken,
    RevokeCertificates,
    RevokeJoinToken,
    RotateApiToken,
    RotateAuthority,
    StepGroup,
)
from controlplane.model.credentials import holder_key
from controlplane.model.groups import group_key
from controlplane.model.policies import KIND_DECLARED, POLICIES
from controlplane.model.resources import BREAKER
from controlplane.model.types import Kind, record

CLUSTER = "Cluster"
"""What is about no object: the log, an incarnation, the breaker, its authority."""
JOIN_TOKEN = "JoinToken"  # noqa: S105 - a kind, not a secret
CERTIFICATE = "Certificate"
"""Those of one member, `host/h1`."""
API_TOKEN = AccessKind.API_TOKEN.value


@record
class Target:
    kind: str | None = None
    namespace: str | None = None
    name: str | None = None
    uid: str | None = None


NOTHING = Target()
_MICROVM = Kind.MICROVM.value
_DECLARED: dict[type[Declaration], str] = {
    DeclareMicroVM: _MICROVM,
    DeclareMicroVMGroup: Kind.MICROVM_GROUP.value,
    DeclareHost: Kind.HOST.value,
    DeclareNamespace: Kind.NAMESPACE.value,
    **{declared: kind.value for declared, kind in KIND_DECLARED.items()},
}
_POLICY_KINDS = {kind.value: kind for kind in POLICIES}


def target_of(state: State, command: Command) -> Target:
    """By the names that the command gives, or those that its uid has in `state`."""
    if isinstance(command, Declaration):  # most of what is recorded is
        namespace = command.namespace if isinstance(command, DeclareMicroVM | DeclareMicroVMGroup) else None
        return Target(kind=_DECLARED[type(command)], namespace=namespace, name=command.name)
    match command:
        case Act():
            return Target(kind=_MICROVM, namespace=command.namespace, name=command.name)
        case Delete() | Hold() | Release():
            return Target(kind=command.kind.value, namespace=command.namespace, name=command.name)
        case Collect():
            subject = command.subject
            return Target(kind=subject.kind.value, namespace=subject.namespace, name=subject.name, uid=subject.uid)
        case Place() | Resurrect() | Evict() | MarkStaying():
            vm = state.microvms.get(command.uid)
            namespace, name = (vm.meta.namespace, vm.meta.name) if vm is not None else (None, None)
            return Target(kind=_MICROVM, namespace=namespace, name=name, uid=command.uid)
        case ActOnHost() | ConfirmFenced() | ConfirmOff() | HostDetached() | HostFenced() | HostEvacuated():
            return Target(kind=Kind.HOST.value, name=command.host)
        case Adopt():
            return target_of(state, command.declaration)
        case StepGroup():
            kind = Kind.MICROVM_GROUP.value
            return Target(kind=kind, namespace=command.namespace, name=command.name, uid=command.uid)
        case OverrideBreaker() | CancelOverride() | BeginIncarnation() | RaiseMachineVersion():
            return Target(kind=CLUSTER, name=_of_cluster(command))
        case CreateApiToken() | RotateApiToken() | RevokeApiToken():
            return Target(kind=API_TOKEN, name=command.name, uid=command.uid)
        case _:
            return _credential_of(command)


def _of_cluster(command: OverrideBreaker | CancelOverride | BeginIncarnation | RaiseMachineVersion) -> str:
    match command:
        case OverrideBreaker():
            return BREAKER
        case CancelOverride():
            return command.of
        case BeginIncarnation():
            return f"incarnation {command.incarnation}"
        case RaiseMachineVersion():
            return f"machine version {command.version}"


def _credential_of(command: Command) -> Target:
    match command:
        case CreateJoinToken() | RevokeJoinToken():
            return Target(kind=JOIN_TOKEN, name=command.id)
        case Join():
            return Target(kind=CERTIFICATE, name=holder_key(command.role, command.name))
        case RevokeCertificates():
            return Target(kind=CERTIFICATE, name=holder_key(command.kind, command.name))
        case EstablishAuthority() | RotateAuthority():
            return Target(kind=CLUSTER, name=f"authority {command.fingerprint}")
        case AbortRotation() | RetireAuthority():
            return Target(kind=CLUSTER, name="authority")
        case AddDataKey() | DropDataKey():
            return Target(kind=CLUSTER, name=f"data key {command.id}")
        case Reseal():
            return Target(kind=CLUSTER, name="secrets")
        case _:
            return NOTHING


def digests_of(effect: Effect, target: Target) -> tuple[str | None, str | None]:
    """Of the object before and after, as the state's own digest counts it; None where there is no such object."""
    before, after = _found(effect.before, target), _found(effect.after, target)
    if before is not None and after is not None and before[1] is after[1]:
        same = f"{digest_of(*before):032x}"
        return same, same
    return _digest(effect, before, 0), _digest(effect, after, 1)


def _digest(effect: Effect, found: tuple[str, Record] | None, side: Literal[0, 1]) -> str | None:
    """Of what was `found` before (0) or after (1)."""
    if found is None:
        return None
    key, record = found
    known = effect.digests.get((type(record), key))
    digest = known[side] if known is not None else digest_of(key, record)
    return f"{digest:032x}"


def _found(state: State, target: Target) -> tuple[str, Record] | None:
    """(key in its table, record)."""
    key = target.name or ""
    found: Record | None
    match target.kind:
        case "MicroVM":
            key = target.uid or state.names.get(f"{target.namespace}/{key}") or ""
            found = state.microvms.get(key)
        case "MicroVMGroup":
            key = group_key(target.namespace or "", key)
            found = state.microvm_groups.get(key)
        case "Host":
            found = state.hosts.get(key)
        case "Namespace":
            found = state.namespaces.get(key)
        case "Operation":
            found = state.operations.get(key)
        case "ApiToken":
            found = state.api_tokens.get(key)
        case "JoinToken":
            found = state.join_tokens.get(key)
        case "Certificate":
            found = state.holders.get(key)
        case "Cluster":
            found = state.overrides.get(key)
        case _:
            kind = _POLICY_KINDS.get(target.kind or "")
            found = state.policies_of(kind).get(key) if kind is not None else None
    return (key, found) if found is not None else None
