"""What policies may say, and that those which are named exist.

Types and bounds are checked at the edge; here is what one field says about another.
"""

from __future__ import annotations

from controlplane.machine.access_rules import binding_refusal, role_refusal
from controlplane.machine.outcome import Code, Rejected
from controlplane.machine.state import State
from controlplane.model.commands import (
    DeclareFailoverPolicy,
    DeclareGCPolicy,
    DeclarePlacementPolicy,
    DeclarePolicy,
    DeclareRole,
    DeclareRoleBinding,
)
from controlplane.model.policies import GC_POLICY_NAME, POLICIES, policies_named
from controlplane.model.spec import FailoverPolicySpec, MicroVMSpec, Restart


def policy_refusal(state: State, command: DeclarePolicy) -> Rejected | None:
    """Why nothing may be as `command` declares it, with the field."""
    match command:
        case DeclarePlacementPolicy():
            return None
        case DeclareFailoverPolicy():
            return _failover_refusal(command.spec)
        case DeclareGCPolicy():
            return _gc_refusal(command.name)
        case DeclareRole():
            return role_refusal(command.name, command.spec)
        case DeclareRoleBinding():
            return binding_refusal(state, command.spec)


def reference_refusal(state: State, spec: MicroVMSpec) -> Rejected | None:
    """Why a microVM may not be as `spec` says: it names a policy that does not exist."""
    for named in policies_named(spec):
        if named.name not in state.policies_of(named.kind):
            return Rejected(
                code=Code.POLICY_NOT_FOUND,
                message=f"{POLICIES[named.kind].noun} {named.name} does not exist",
                pointer=named.pointer,
            )
    return None


def _gc_refusal(name: str) -> Rejected | None:
    if name == GC_POLICY_NAME:
        return None
    message = f"there is one GC policy for the whole cluster, and it is called {GC_POLICY_NAME}"
    return Rejected(code=Code.INVALID, message=message, pointer="/name")


def _failover_refusal(spec: FailoverPolicySpec) -> Rejected | None:
    if spec.restart is Restart.DELAYED and spec.delay_s is None:
        return _invalid("delay_s", "is required with restart = delayed: how long a fenced host is waited for")
    if spec.restart is not Restart.DELAYED and spec.delay_s is not None:
        return _invalid("delay_s", f"has no meaning with restart = {spec.restart.value}: it needs restart = delayed")
    if spec.restart is Restart.NEVER:
        for name, value in (("max_per_minute", spec.max_per_minute), ("priority", spec.priority)):
            if value:
                return _invalid(name, "has no meaning with restart = never: nothing is restarted")
    return None


def _invalid(name: str, words: str) -> Rejected:
    return Rejected(code=Code.INVALID, message=f"{name} {words}", pointer=f"/spec/{name}")
