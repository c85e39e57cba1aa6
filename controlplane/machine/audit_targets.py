"""What a command is about, as the audit chain names it, and the digest of that in a state."""

from __future__ import annotations

from typing import Literal, cast

from controlplane.machine import draft
from controlplane.machine.draft import Record, digest_of
from controlplane.machine.effect import Effect
from controlplane.machine.state import State
from controlplane.machine.table import Table
from controlplane.model.access import AccessKind
from controlplane.model.api_tokens import ApiToken
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
from controlplane.model.credentials import Holder, JoinToken, holder_key
from controlplane.model.groups import MicroVMGroup, group_key
from controlplane.model.policies import KIND_DECLARED, POLICIES
from controlplane.model.resources import BREAKER, Host, MicroVM, Namespace, Operation, Override, Policy
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
_NAMESPACED = (DeclareMicroVM, DeclareMicroVMGroup)
_HELD: dict[str, tuple[type[Record | None], str]] = {
    _MICROVM: (MicroVM, "microvms"),
    Kind.MICROVM_GROUP.value: (MicroVMGroup, "microvm_groups"),
    Kind.HOST.value: (Host, "hosts"),
    Kind.NAMESPACE.value: (Namespace, "namespaces"),
    Kind.OPERATION.value: (Operation, "operations"),
    API_TOKEN: (ApiToken, "api_tokens"),
    JOIN_TOKEN: (JoinToken, "join_tokens"),
    CERTIFICATE: (Holder, "holders"),
    CLUSTER: (Override, "overrides"),
    **{kind.value: (cast("type[Policy]", policy.record), policy.table) for kind, policy in POLICIES.items()},
}
"""By the kind of a target: the type of its record, and the field of State that holds it."""


def target_of(state: State, command: Command) -> Target:
    """By the names that the command gives, or those that its uid has in `state`."""
    if isinstance(command, Declaration):  # most of what is recorded is
        namespace = command.namespace if isinstance(command, _NAMESPACED) else None
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
    held = _HELD.get(target.kind or "")
    if held is None:
        return None, None
    before, after = (held[0], _key(effect.before, target)), (held[0], _key(effect.after, target))
    if before == after and before not in effect.digests:
        # What did not change is the same after it.
        same = _hex(_reckoned(effect.before, held[1], before[1]))
        return same, same
    return _digest(effect, effect.before, held[1], before, 0), _digest(effect, effect.after, held[1], after, 1)


def _key(state: State, target: Target) -> str:
    """Where its table has it in `state`; of a microVM that is not there by that name, nowhere."""
    name = target.name or ""
    match target.kind:
        case "MicroVM":
            return target.uid or state.names.get(f"{target.namespace}/{name}") or ""
        case "MicroVMGroup":
            return group_key(target.namespace or "", name)
        case _:
            return name


def _digest(effect: Effect, state: State, table: str, place: draft.Place, side: Literal[0, 1]) -> str | None:
    """Of what is at `place` before (0) or after (1), which the draft has reckoned if it changed."""
    known = effect.digests.get(place)
    return _hex(known[side] if known is not None else _reckoned(state, table, place[1]))


def _reckoned(state: State, table: str, key: str) -> int | None:
    found = cast("Table[Record]", getattr(state, table)).get(key)
    return digest_of(key, found) if found is not None else None


def _hex(digest: int | None) -> str | None:
    return f"{digest:032x}" if digest is not None else None
