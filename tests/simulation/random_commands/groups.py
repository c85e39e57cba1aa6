"""Groups of equal microVMs, and the steps by which they follow their templates."""

from __future__ import annotations

from simulation.random_commands.choices import Choices
from simulation.random_commands.users import recovery

from controlplane.machine.state import State
from controlplane.model.commands import Command, DeclareMicroVMGroup, NewMember, Stall, StepGroup
from controlplane.model.groups import MicroVMGroupSpec
from controlplane.model.spec import Kernel, MicroVMSpec, PowerState


def declare_group(choices: Choices, state: State) -> Command:
    namespace, name = choices.name(), choices.name()
    old = state.microvm_group(namespace, name)
    template = MicroVMSpec(
        vcpu=1,
        memory_in_mb=1,
        kernel=Kernel(image=choices.pick(("k:1", "k:2"))),
        metadata=choices.pick(({}, {"a": "b"})),
        recovery=recovery(choices),
        power_state=PowerState.STOPPED if choices.nonsense() else PowerState.RUNNING,
    )
    return DeclareMicroVMGroup(
        namespace=namespace,
        name=name,
        uid=choices.uid(),
        spec=MicroVMGroupSpec(replicas=choices.integer(0, 1, 2), template=template),
        labels=choices.labels(),
        when=choices.when(old.meta.intent_revision if old is not None else None),
    )


def step_group(choices: Choices, state: State) -> Command:
    """Of a group that is there, as a rule: any of its members, and microVMs that are none."""
    groups = list(state.microvm_groups.values())
    if not groups or choices.nonsense():
        return StepGroup(
            namespace=choices.name(), name=choices.name(), uid=choices.uid(), generation=choices.integer(1)
        )
    group = choices.pick(groups)
    members = [vm.meta.uid for vm in state.members_of(group.meta.uid)] + [choices.uid()]
    new = NewMember(name=f"{group.meta.name}-{choices.number}", uid=f"{choices.uid()}-{choices.number}")
    return StepGroup(
        namespace=str(group.meta.namespace),
        name=group.meta.name,
        uid=group.meta.uid,
        generation=group.meta.generation + choices.pick((0, 0, 0, 1)),
        end=[each for each in members if choices.chance(20)],
        renew=[each for each in members if choices.chance(40)],
        add=[new] if choices.chance(60) else [],
        stall=choices.pick((None, None, Stall(reason="Late", message="not ready"))),
    )
