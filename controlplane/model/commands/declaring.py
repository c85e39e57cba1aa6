"""What users declare and ask for: objects of every kind, deletions, actions on microVMs and hosts."""

from __future__ import annotations

from enum import StrEnum

from msgspec import field

from controlplane.model.access import RoleBindingSpec, RoleSpec
from controlplane.model.groups import MicroVMGroupSpec
from controlplane.model.secrets import SealedValue
from controlplane.model.spec import (
    FailoverPolicySpec,
    GCPolicySpec,
    HostSpec,
    MicroVMSpec,
    NamespaceSpec,
    PlacementPolicySpec,
    PowerState,
)
from controlplane.model.types import Kind, record


@record
class Precondition:
    """What must hold for a declaration to be accepted. `create_only`: there is no such object yet."""

    revision: int | None = None
    create_only: bool = False


@record
class DeclareNamespace:
    name: str
    uid: str
    """Used if this creates the object; ids come from the proposer."""
    spec: NamespaceSpec
    labels: dict[str, str] = field(default_factory=dict[str, str])
    annotations: dict[str, str] = field(default_factory=dict[str, str])
    when: Precondition = Precondition()


@record
class DeclarePlacementPolicy:
    name: str
    uid: str
    spec: PlacementPolicySpec
    labels: dict[str, str] = field(default_factory=dict[str, str])
    annotations: dict[str, str] = field(default_factory=dict[str, str])
    when: Precondition = Precondition()


@record
class DeclareFailoverPolicy:
    name: str
    uid: str
    spec: FailoverPolicySpec
    labels: dict[str, str] = field(default_factory=dict[str, str])
    annotations: dict[str, str] = field(default_factory=dict[str, str])
    when: Precondition = Precondition()


@record
class DeclareGCPolicy:
    name: str
    uid: str
    spec: GCPolicySpec
    labels: dict[str, str] = field(default_factory=dict[str, str])
    annotations: dict[str, str] = field(default_factory=dict[str, str])
    when: Precondition = Precondition()


@record
class DeclareRole:
    name: str
    uid: str
    spec: RoleSpec
    labels: dict[str, str] = field(default_factory=dict[str, str])
    annotations: dict[str, str] = field(default_factory=dict[str, str])
    when: Precondition = Precondition()


@record
class DeclareRoleBinding:
    name: str
    uid: str
    spec: RoleBindingSpec
    labels: dict[str, str] = field(default_factory=dict[str, str])
    annotations: dict[str, str] = field(default_factory=dict[str, str])
    when: Precondition = Precondition()


DeclarePolicy = DeclarePlacementPolicy | DeclareFailoverPolicy | DeclareGCPolicy | DeclareRole | DeclareRoleBinding


@record
class DeclareHost:
    name: str
    uid: str
    spec: HostSpec
    labels: dict[str, str] = field(default_factory=dict[str, str])
    annotations: dict[str, str] = field(default_factory=dict[str, str])
    when: Precondition = Precondition()


@record
class DeclareMicroVM:
    namespace: str
    name: str
    uid: str
    spec: MicroVMSpec
    labels: dict[str, str] = field(default_factory=dict[str, str])
    annotations: dict[str, str] = field(default_factory=dict[str, str])
    when: Precondition = Precondition()
    sealed: dict[str, SealedValue] = field(default_factory=dict[str, SealedValue])
    """Values of `spec.sensitive_metadata`; those that it has already may be left out."""


@record
class DeclareMicroVMGroup:
    namespace: str
    name: str
    uid: str
    spec: MicroVMGroupSpec
    labels: dict[str, str] = field(default_factory=dict[str, str])
    annotations: dict[str, str] = field(default_factory=dict[str, str])
    when: Precondition = Precondition()


Declaration = DeclareNamespace | DeclarePolicy | DeclareHost | DeclareMicroVM | DeclareMicroVMGroup


@record
class Delete:
    """Asks for the end of a declared resource; of a microVM, it commits the tombstone."""

    kind: Kind
    name: str
    namespace: str | None = None
    revision: int | None = None
    reason: str = ""


class Action(StrEnum):
    REPAIR = "repair"
    START = "start"
    STOP = "stop"
    PAUSE = "pause"
    RESUME = "resume"
    RESTART = "restart"


POWER_OF_ACTION: dict[Action, PowerState] = {
    Action.START: PowerState.RUNNING,
    Action.RESUME: PowerState.RUNNING,
    Action.STOP: PowerState.STOPPED,
    Action.PAUSE: PowerState.PAUSED,
}
"""The actions that are changes of the intent."""


@record
class Act:
    """A verb on a microVM."""

    namespace: str
    name: str
    action: Action
    revision: int | None = None


class HostAction(StrEnum):
    CORDON = "cordon"
    UNCORDON = "uncordon"
    DRAIN = "drain"
    MAINTENANCE = "maintenance"


@record
class ActOnHost:
    """A verb on a host: it changes that part of the intent alone."""

    host: str
    action: HostAction
    max_parallel: int | None = None
    """Of the evacuation; None keeps what the intent says."""
    allow_data_loss: bool | None = None
    revision: int | None = None
