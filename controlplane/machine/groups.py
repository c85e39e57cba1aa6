"""Commands about groups: what users declare, and the next few changes of their members that the runner asks for.

A step says which members to end, to renew and to add, and nothing of what they are to be: that is read here, in the
group as it is. One that was decided for another generation is refused, and what of a step makes no sense any more is
left out, so a step that comes late or twice does no harm. Members are declared as a user's microVMs are: what quotas,
policies or hosts refuse stops the group with the reason, and so it stays until a step gets through (docs/adr/0184).
"""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.machine.declare import declare_microvm, declared, meta_of
from controlplane.machine.delete import end_group, end_microvm
from controlplane.machine.draft import Draft
from controlplane.machine.holding import microvm_hold
from controlplane.machine.outcome import Applied, Code, Rejected
from controlplane.machine.policy_rules import reference_refusal
from controlplane.machine.recovery_rules import recovery_refusal
from controlplane.machine.refusals import amount_refusal, declaration_refusal
from controlplane.machine.steps import applied, stale
from controlplane.model.commands import DeclareMicroVM, DeclareMicroVMGroup, StepGroup
from controlplane.model.groups import (
    GROUP_LABEL,
    MAX_REPLICAS,
    GroupStop,
    MicroVMGroup,
    MicroVMGroupSpec,
    member_labels,
    member_spec,
)
from controlplane.model.resources import MicroVM, MicroVMPhase
from controlplane.model.spec import PowerState
from controlplane.model.types import Kind, replace

MAX_NAME = 57
"""A member's name has 6 characters more, and 63 at most."""

Result = Applied | Rejected


# -- declaring ---------------------------------------------------------------------------------------------------------


def declare_group(draft: Draft, command: DeclareMicroVMGroup) -> Result:
    if command.namespace not in draft.state.namespaces:
        message = f"namespace {command.namespace} does not exist"
        return Rejected(code=Code.NAMESPACE_NOT_FOUND, message=message, pointer="/namespace")
    old = draft.state.microvm_group(command.namespace, command.name)
    if (refused := declaration_refusal(command, old.meta if old is not None else None)) is not None:
        return refused
    if old is not None and old.deletion is not None:
        return Rejected(
            code=Code.BEING_DELETED,
            message=f"group {command.namespace}/{command.name} is being deleted",
            pointer="/name",
            uid=old.meta.uid,
        )
    if (refused := _name_refusal(command) or _spec_refusal(draft, command.spec)) is not None:
        return refused
    changed = old is not None and old.spec != command.spec
    meta = meta_of(draft, command, Kind.MICROVM_GROUP, old, spec_changed=changed, namespace=command.namespace)
    # What stopped it may be what has changed: the runner finds out anew.
    stopped = old.stopped if old is not None and old.meta == meta else None
    draft.put_group(MicroVMGroup(meta=meta, spec=command.spec, stopped=stopped))
    return declared(draft, Kind.MICROVM_GROUP, meta, created=old is None)


def _name_refusal(command: DeclareMicroVMGroup) -> Rejected | None:
    if len(command.name) > MAX_NAME:
        message = f"a group's name has at most {MAX_NAME} characters: its members' names are longer"
        return Rejected(code=Code.INVALID, message=message, pointer="/name")
    if GROUP_LABEL in command.labels:
        message = f"{GROUP_LABEL} is given to members, with the group's name"
        return Rejected(code=Code.INVALID, message=message, pointer=f"/labels/{GROUP_LABEL.replace('/', '~1')}")
    return None


def _spec_refusal(draft: Draft, spec: MicroVMGroupSpec) -> Rejected | None:
    for pointer, message in _mistakes(spec):
        return Rejected(code=Code.INVALID, message=message, pointer=f"/spec/{pointer}")
    template = spec.template
    refused = amount_refusal(template) or recovery_refusal(template) or reference_refusal(draft.state, template)
    if refused is not None and refused.pointer is not None:
        return replace(refused, pointer=refused.pointer.replace("/spec/", "/spec/template/", 1))
    return refused


def _mistakes(spec: MicroVMGroupSpec) -> Iterator[tuple[str, str]]:
    """(pointer below the spec, what is wrong)."""
    template, rollout = spec.template, spec.rollout
    if not 0 <= spec.replicas <= MAX_REPLICAS:
        yield "replicas", f"replicas must be between 0 and {MAX_REPLICAS}, not {spec.replicas}"
    if rollout.max_surge <= 0 and rollout.max_unavailable <= 0:
        yield "rollout/max_unavailable", "with max_surge = 0 it must be above 0: nothing could ever be replaced"
    if template.power_state is not PowerState.RUNNING:
        yield "template/power_state", "members of a group run: with replicas = 0 there are none"
    if template.sensitive_metadata:
        yield "template/sensitive_metadata", "is sealed for one microVM alone: use metadata"
    if template.placement.host is not None:
        yield "template/placement/host", "would put every member on one host: use required_host_labels or spread"
    if spec.spread is not None and template.placement.spread is not None:
        yield "spread", "excludes the spread of the template's placement"
    for name, interface in sorted(template.interfaces.items()):
        if interface.guest_mac is not None:
            yield f"template/interfaces/{name}/guest_mac", "every member would have the same address"
        if interface.address is not None:
            yield f"template/interfaces/{name}/address", "every member would have the same address"


# -- stepping ----------------------------------------------------------------------------------------------------------


def step_group(draft: Draft, command: StepGroup) -> Result:
    group = draft.state.microvm_group(command.namespace, command.name)
    if group is None or group.meta.uid != command.uid:
        return stale(f"there is no group {command.namespace}/{command.name} with uid {command.uid}")
    if group.meta.generation != command.generation:
        return stale(f"group {command.name} is at generation {group.meta.generation}, not {command.generation}")
    for vm in _members(draft, group, command.end):
        if microvm_hold(vm) is None:
            end_microvm(draft, vm, group.deletion or draft.because(command.reason))
    if group.deletion is not None:
        if group.meta.uid not in draft.state.members:
            end_group(draft, group, group.deletion)
        return applied(draft, group.meta.uid)
    stop = next(_declare_members(draft, group, command), None)
    if stop is None and command.stall is not None:
        stop = GroupStop(reason=command.stall.reason, message=command.stall.message, since=draft.at)
    was = group.stopped
    if stop is not None and was is not None and was.reason == stop.reason:
        # It goes on being stopped; only the words may be others.
        stop = replace(stop, since=was.since)
    draft.put_group(replace(group, stopped=stop))
    return applied(draft, group.meta.uid)


def _members(draft: Draft, group: MicroVMGroup, uids: list[str]) -> Iterator[MicroVM]:
    """Of `uids`, those that are members and are not being ended."""
    for uid in uids:
        vm = draft.state.microvms.get(uid)
        if vm is not None and vm.group == group.meta.uid and vm.phase is not MicroVMPhase.DELETING:
            yield vm


def _declare_members(draft: Draft, group: MicroVMGroup, command: StepGroup) -> Iterator[GroupStop]:
    """Declares what the step asks for, until something is refused: then why."""
    wanted = [(vm.meta.name, vm.meta.uid) for vm in _members(draft, group, command.renew)]
    wanted += [(new.name, new.uid) for new in command.add if _is_free(draft, group, new.name, new.uid)]
    for name, uid in wanted:
        declaration = DeclareMicroVM(
            namespace=command.namespace, name=name, uid=uid, spec=member_spec(group), labels=member_labels(group)
        )
        outcome = declare_microvm(draft, declaration, group=group)
        if isinstance(outcome, Rejected):
            yield GroupStop(reason=_camel_case(outcome.code), message=outcome.message, since=draft.at)


def _is_free(draft: Draft, group: MicroVMGroup, name: str, uid: str) -> bool:
    """Another microVM of that name is nobody's fault: the next step brings another name."""
    inside = name.startswith(f"{group.meta.name}-")
    namespace = str(group.meta.namespace)
    return inside and draft.state.microvm(namespace, name) is None and uid not in draft.state.microvms


def _camel_case(code: Code) -> str:
    return code.value.title().replace("_", "")
