"""What a command is about, as the audit chain names it, and the digest of that in a state."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.machine.draft import Record, digest_of
from controlplane.machine.state import State
from controlplane.model.access import AccessKind
from controlplane.model.commands import (
    Act,
    ActOnHost,
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
    Release,
    Resurrect,
    RevokeApiToken,
    RevokeCertificates,
    RevokeJoinToken,
    RotateApiToken,
    StepGroup,
)
from controlplane.model.credentials import holder_key
from controlplane.model.groups import group_key
from controlplane.model.policies import KIND_DECLARED, POLICIES
from controlplane.model.resources import BREAKER
from controlplane.model.types import Kind

CLUSTER = "Cluster"
"""What is about no object: the log, an incarnation, the breaker, its authority."""
JOIN_TOKEN = "JoinToken"  # noqa: S105 - a kind, not a secret
CERTIFICATE = "Certificate"
"""Those of one member, `host/h1`."""
API_TOKEN = AccessKind.API_TOKEN.value


@dataclass(frozen=True, slots=True)
class Target:
    kind: str | None = None
    namespace: str | None = None
    name: str | None = None
    uid: str | None = None


NOTHING = Target()
_DECLARED: dict[type[Declaration], Kind] = {
    DeclareMicroVM: Kind.MICROVM,
    DeclareMicroVMGroup: Kind.MICROVM_GROUP,
    DeclareHost: Kind.HOST,
    DeclareNamespace: Kind.NAMESPACE,
    **KIND_DECLARED,
}
_POLICY_KINDS = {kind.value: kind for kind in POLICIES}


def target_of(state: State, command: Command) -> Target:
    """By the names that the command gives, or those that its uid has in `state`."""
    match command:
        case Act():
            return Target(Kind.MICROVM.value, command.namespace, command.name)
        case Delete() | Hold() | Release():
            return Target(command.kind.value, command.namespace, command.name)
        case Collect():
            subject = command.subject
            return Target(subject.kind.value, subject.namespace, subject.name, subject.uid)
        case Place() | Resurrect() | Evict() | MarkStaying():
            vm = state.microvms.get(command.uid)
            namespace, name = (vm.meta.namespace, vm.meta.name) if vm is not None else (None, None)
            return Target(Kind.MICROVM.value, namespace, name, command.uid)
        case ActOnHost() | ConfirmFenced() | ConfirmOff() | HostDetached() | HostFenced() | HostEvacuated():
            return Target(Kind.HOST.value, name=command.host)
        case Adopt():
            return target_of(state, command.declaration)
        case StepGroup():
            return Target(Kind.MICROVM_GROUP.value, command.namespace, command.name, command.uid)
        case OverrideBreaker() | CancelOverride():
            return Target(CLUSTER, name=command.of if isinstance(command, CancelOverride) else BREAKER)
        case BeginIncarnation():
            return Target(CLUSTER, name=f"incarnation {command.incarnation}")
        case CreateApiToken() | RotateApiToken() | RevokeApiToken():
            return Target(API_TOKEN, name=command.name, uid=command.uid)
        case _ if isinstance(command, Declaration):
            namespace = command.namespace if isinstance(command, DeclareMicroVM | DeclareMicroVMGroup) else None
            return Target(_DECLARED[type(command)].value, namespace, command.name)
        case _:
            return _credential_of(command)


def _credential_of(command: Command) -> Target:
    match command:
        case CreateJoinToken() | RevokeJoinToken():
            return Target(JOIN_TOKEN, name=command.id)
        case Join():
            return Target(CERTIFICATE, name=holder_key(command.role, command.name))
        case RevokeCertificates():
            return Target(CERTIFICATE, name=holder_key(command.kind, command.name))
        case EstablishAuthority():
            return Target(CLUSTER, name=f"authority {command.fingerprint}")
        case _:
            return NOTHING


def digest_in(state: State, target: Target) -> str | None:
    """The digest that the state's own is a sum of; None where there is no such object."""
    found = _found(state, target)
    return f"{digest_of(*found):032x}" if found is not None else None


def _found(state: State, target: Target) -> tuple[str, Record] | None:
    """(key in its table, record)."""
    key = target.name or ""
    record: Record | None
    match target.kind:
        case "MicroVM":
            key = target.uid or state.names.get(f"{target.namespace}/{key}") or ""
            record = state.microvms.get(key)
        case "MicroVMGroup":
            key = group_key(target.namespace or "", key)
            record = state.microvm_groups.get(key)
        case "Host":
            record = state.hosts.get(key)
        case "Namespace":
            record = state.namespaces.get(key)
        case "Operation":
            record = state.operations.get(key)
        case "ApiToken":
            record = state.api_tokens.get(key)
        case "JoinToken":
            record = state.join_tokens.get(key)
        case "Certificate":
            record = state.holders.get(key)
        case "Cluster":
            record = state.overrides.get(key)
        case _:
            kind = _POLICY_KINDS.get(target.kind or "")
            record = state.policies_of(kind).get(key) if kind is not None else None
    return (key, record) if record is not None else None
