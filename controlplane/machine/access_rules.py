"""What roles and their bindings may say, and when a role is still needed.

The bounds of lists are checked at the edge; here is what no declaration may do to what is built in.
"""

from __future__ import annotations

from controlplane.machine.outcome import Code, Rejected
from controlplane.machine.state import State
from controlplane.model.access import ADMIN, BUILT_IN, GUARDED, MEMBER_ROLES, RoleBindingSpec, RoleSpec, Verb
from controlplane.model.resources import Meta

_CHANGES = (Verb.DECLARE, Verb.DELETE)
_NAMED = 3
"""So many of the bindings that are in the way are named."""


def role_refusal(name: str, spec: RoleSpec) -> Rejected | None:
    """Why the role `name` may not be as `spec` says."""
    if name in BUILT_IN:
        message = f"role {name} is built in and cannot be changed: declare one of another name"
        return Rejected(code=Code.ROLE_BUILT_IN, message=message, pointer="/name")
    for number, rule in enumerate(spec.rules):
        for verb in rule.verbs:
            guarded = next((kind for kind in rule.kinds if kind in GUARDED), None)
            if verb in _CHANGES and guarded is not None:
                return Rejected(
                    code=Code.INVALID,
                    message=f"only the built-in role {ADMIN} may {verb.value} a {guarded.value}",
                    pointer=f"/spec/rules/{number}/verbs",
                )
    return None


def binding_refusal(state: State, spec: RoleBindingSpec) -> Rejected | None:
    """Why no binding may be as `spec` says."""
    if spec.role in MEMBER_ROLES:
        message = f"role {spec.role} is held by certificates alone and cannot be bound"
        return Rejected(code=Code.ROLE_BUILT_IN, message=message, pointer="/spec/role")
    if spec.role not in BUILT_IN and spec.role not in state.roles:
        message = f"role {spec.role} does not exist"
        return Rejected(code=Code.ROLE_NOT_FOUND, message=message, pointer="/spec/role")
    return None


def role_in_use(state: State, role: Meta) -> Rejected | None:
    """Why `role` cannot go: bindings give it."""
    bound = sorted(name for name, each in state.role_bindings.items() if each.spec.role == role.name)
    if not bound:
        return None
    more = ", ..." if len(bound) > _NAMED else ""
    message = f"role {role.name} is given by {len(bound)} binding(s): {', '.join(bound[:_NAMED])}{more}"
    return Rejected(code=Code.ROLE_IN_USE, message=message, pointer="/name", uid=role.uid)
