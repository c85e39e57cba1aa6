"""What users declare, delete and ask for: namespaces, hosts and microVMs."""

from __future__ import annotations

from simulation.random_commands.choices import Choices
from simulation.random_commands.policies import spread
from simulation.random_commands.secrets import DIGESTS, sealed_values

from controlplane.machine.state import State
from controlplane.model.commands import Act, Action, Command, DeclareHost, DeclareMicroVM, DeclareNamespace, Delete
from controlplane.model.spec import (
    Evacuation,
    HostFailure,
    HostMode,
    HostSpec,
    Kernel,
    MicroVMSpec,
    NamespaceSpec,
    OnDetach,
    Placement,
    PowerState,
    Recovery,
    Volume,
    VolumeKind,
)
from controlplane.model.types import Kind


def declare_namespace(choices: Choices, state: State) -> Command:
    name = choices.name()
    old = state.namespaces.get(name)
    spec = NamespaceSpec()
    if choices.chance(20):
        spec = NamespaceSpec(
            max_microvms=choices.pick((None, choices.integer(0, 1, 3))),
            max_vcpu=choices.pick((None, choices.integer(2, 8))),
            max_memory_in_mb=choices.pick((None, choices.integer(2, 8))),
        )
    return DeclareNamespace(
        name=name,
        uid=choices.uid(),
        spec=spec,
        labels=choices.labels(),
        when=choices.when(old.meta.intent_revision if old is not None else None),
    )


def declare_host(choices: Choices, state: State) -> Command:
    name = choices.name()
    old = state.hosts.get(name)
    return DeclareHost(
        name=name,
        uid=choices.uid(),
        spec=HostSpec(
            schedulable=not choices.chance(10),
            mode=choices.pick(list(HostMode)) if choices.chance(15) else HostMode.ACTIVE,
            evacuation=Evacuation(max_parallel=choices.integer(1, 2), allow_data_loss=choices.chance(50)),
        ),
        labels=choices.labels(),
        when=choices.when(old.meta.intent_revision if old is not None else None),
    )


def declare_microvm(choices: Choices, state: State) -> DeclareMicroVM:
    namespace, name = choices.name(), choices.name()
    if state.namespaces and not choices.nonsense():
        namespace = choices.pick(sorted(state.namespaces))
    old = state.microvm(namespace, name)
    sealed = sealed_values(choices, state)
    placement = Placement()
    if choices.chance(25):
        placement = Placement(
            host=choices.pick((None, choices.name())),
            policy=choices.pick((None, choices.name())),
            required_host_labels=choices.pick(({}, {"zone": "a"})),
            spread=choices.pick((None, spread(choices))),
        )
    spec = MicroVMSpec(
        vcpu=choices.integer(1, 1, 2, 3),
        memory_in_mb=choices.integer(1, 1, 2, 3),
        kernel=Kernel(image=choices.pick(("k:1", "k:2"))),
        provider="qemu" if choices.nonsense() else None,
        power_state=choices.pick(list(PowerState)),
        placement=placement,
        recovery=recovery(choices),
        root_volume=Volume(kind=VolumeKind.LOCAL) if choices.chance(10) else None,
        sensitive_metadata={name: choices.pick(DIGESTS) for name in sealed},
    )
    uid = choices.uid()
    if any(uid in host.stale for host in state.hosts.values()):
        # No proposer of ours makes a uid twice, and an order to destroy is about the first of it.
        uid = f"{uid}-{choices.number}"
    return DeclareMicroVM(
        namespace=namespace,
        name=name,
        uid=uid,
        spec=spec,
        labels=choices.labels(),
        when=choices.when(old.meta.intent_revision if old is not None else None),
        sealed=sealed,
    )


def recovery(choices: Choices) -> Recovery:
    move = choices.chance(75)
    return Recovery(
        on_host_failure=HostFailure.RESTART_ELSEWHERE if move else HostFailure.NEVER,
        on_detach=choices.pick((None, None, None, None, *OnDetach)),
        allow_data_loss=choices.chance(60),
    )


def delete(choices: Choices, state: State) -> Command:
    kind = choices.pick((Kind.MICROVM, Kind.MICROVM, *Kind))
    namespace, name = choices.pick((None, choices.name())), choices.name()
    vm = choices.vm(state)
    if kind is Kind.MICROVM and vm is not None:
        namespace, name = vm.meta.namespace, vm.meta.name
    return Delete(
        kind=kind,
        namespace=namespace,
        name=name,
        revision=choices.pick((None, None, None, choices.integer(1, state.revision))),
    )


def act(choices: Choices, state: State) -> Command:
    vm = choices.vm(state)
    return Act(
        namespace=str(vm.meta.namespace) if vm is not None else choices.name(),
        name=vm.meta.name if vm is not None else choices.name(),
        action=choices.pick(list(Action)),
        revision=choices.pick((None, None, choices.integer(1))),
    )
