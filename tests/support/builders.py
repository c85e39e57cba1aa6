"""Specs and commands with sensible values: a test names only what it is about."""

from __future__ import annotations

from typing import Any

from controlplane.model.commands import (
    ActOnHost,
    AgentConnected,
    BeginIncarnation,
    ConfirmFenced,
    ConfirmOff,
    DeclareFailoverPolicy,
    DeclareGCPolicy,
    DeclareHost,
    DeclareMicroVM,
    DeclareMicroVMGroup,
    DeclareNamespace,
    DeclarePlacementPolicy,
    Destroyed,
    Evict,
    HostAction,
    HostDetached,
    HostFenced,
    HostHeard,
    HostSuspected,
    Place,
    Precondition,
    Report,
    Resurrect,
)
from controlplane.model.gc import Leftover, LeftoverKind
from controlplane.model.groups import MicroVMGroupSpec, Rollout
from controlplane.model.resources import (
    Amount,
    Bid,
    DriverFacts,
    Failure,
    Inventory,
    MicroVM,
    Observation,
    ObservedPower,
)
from controlplane.model.spec import (
    FailoverPolicySpec,
    GCPolicySpec,
    HostSpec,
    Kernel,
    MicroVMSpec,
    NamespaceSpec,
    PlacementPolicySpec,
)

KERNEL = Kernel(image="demo/kernel:6.1")
ALWAYS = Precondition()


def microvm_spec(**changes: Any) -> MicroVMSpec:
    """A microVM of 1 vcpu and 128 MB."""
    return MicroVMSpec(**{"vcpu": 1, "memory_in_mb": 128, "kernel": KERNEL, **changes})


def declare_namespace(name: str = "demo", *, when: Precondition = ALWAYS, **quotas: int | None) -> DeclareNamespace:
    return DeclareNamespace(name=name, uid=f"ns-{name}", spec=NamespaceSpec(**quotas), when=when)


def declare_policy(name: str = "spread", *, when: Precondition = ALWAYS, **spec: Any) -> DeclarePlacementPolicy:
    return DeclarePlacementPolicy(name=name, uid=f"policy-{name}", spec=PlacementPolicySpec(**spec), when=when)


def declare_gc_policy(name: str = "default", *, when: Precondition = ALWAYS, **spec: Any) -> DeclareGCPolicy:
    return DeclareGCPolicy(name=name, uid=f"policy-{name}", spec=GCPolicySpec(**spec), when=when)


def declare_failover_policy(name: str, *, when: Precondition = ALWAYS, **spec: Any) -> DeclareFailoverPolicy:
    return DeclareFailoverPolicy(name=name, uid=f"policy-{name}", spec=FailoverPolicySpec(**spec), when=when)


def declare_host(
    name: str = "h1", *, labels: dict[str, str] | None = None, when: Precondition = ALWAYS, **spec: Any
) -> DeclareHost:
    return DeclareHost(name=name, uid=f"host-{name}", spec=HostSpec(**spec), labels=labels or {}, when=when)


def declare_microvm(
    name: str = "web",
    *,
    namespace: str = "demo",
    uid: str | None = None,
    labels: dict[str, str] | None = None,
    when: Precondition = ALWAYS,
    **spec: Any,
) -> DeclareMicroVM:
    return DeclareMicroVM(
        namespace=namespace,
        name=name,
        uid=uid or f"vm-{name}",
        spec=microvm_spec(**spec),
        labels=labels or {},
        when=when,
    )


def declare_group(
    name: str = "web",
    *,
    replicas: int = 3,
    template: MicroVMSpec | None = None,
    rollout: Rollout | None = None,
    labels: dict[str, str] | None = None,
    **spec: Any,
) -> DeclareMicroVMGroup:
    """A group in `demo` of microVMs of 1 vcpu and 128 MB."""
    declared = MicroVMGroupSpec(
        replicas=replicas, template=template or microvm_spec(), rollout=rollout or Rollout(), **spec
    )
    return DeclareMicroVMGroup(namespace="demo", name=name, uid=f"group-{name}", spec=declared, labels=labels or {})


def inventory(
    *,
    vcpu: int = 8,
    memory_in_mb: int = 4096,
    microvms: int = 0,
    drivers: tuple[str, ...] = ("simulated",),
    fences: bool = True,
    boot_id: str = "boot-1",
) -> Inventory:
    return Inventory(
        agent_version="0.1.0",
        boot_id=boot_id,
        drivers=[DriverFacts(name=name, version="1", simulated=name == "simulated", fences=fences) for name in drivers],
        capacity=Amount(microvms=microvms, vcpu=vcpu, memory_in_mb=memory_in_mb),
    )


def agent_connected(
    host: str = "h1", *, session: str | None = None, node: str = "n1", lease_ttl_ms: int = 10_000, **inventoried: Any
) -> AgentConnected:
    return AgentConnected(
        host=host,
        uid=f"host-{host}",
        session=session or session_of(host),
        node=node,
        inventory=inventory(**inventoried),
        lease_ttl_ms=lease_ttl_ms,
    )


def session_of(host: str) -> str:
    """The session that `agent_connected` opens unless told another."""
    return f"session-{host}"


def suspected(host: str = "h1", *, session: str | None = None) -> HostSuspected:
    return HostSuspected(host=host, session=session or session_of(host), reason="silent for 3 s")


def heard(host: str = "h1", *, session: str | None = None) -> HostHeard:
    return HostHeard(host=host, session=session or session_of(host))


def detached(host: str = "h1", *, session: str | None = None, term: int = 1) -> HostDetached:
    return HostDetached(host=host, session=session or session_of(host), term=term, reason="its lease ended")


def fenced(host: str = "h1", *, term: int = 1, since: int | None = None) -> HostFenced:
    return HostFenced(host=host, term=term, reason="silent for 14.3 s", since=since)


def confirm_fenced(host: str = "h1", *, revision: int | None = None) -> ConfirmFenced:
    """As logs of before `confirm_off` hold it."""
    return ConfirmFenced(host=host, revision=revision)


def confirm_off(host: str = "h1", *, revision: int | None = None) -> ConfirmOff:
    return ConfirmOff(host=host, revision=revision)


def begin_incarnation(number: int = 2, *, term: int = 1) -> BeginIncarnation:
    return BeginIncarnation(incarnation=number, term=term)


def resurrect(vm: MicroVM, *, term: int = 1, **changes: Any) -> Resurrect:
    """The leader's order to give up `vm` where it is."""
    host = vm.placement.host if vm.placement is not None else "h1"
    given: dict[str, Any] = {"uid": vm.meta.uid, "epoch": vm.epoch, "host": host, "term": term, "reason": "fenced"}
    return Resurrect(**{**given, **changes})


def act_on_host(action: HostAction, host: str = "h1", **changes: Any) -> ActOnHost:
    return ActOnHost(host=host, action=action, **changes)


def evict(vm: MicroVM) -> Evict:
    """The order to move `vm` off its host."""
    host = vm.placement.host if vm.placement is not None else "h1"
    return Evict(host=host, uid=vm.meta.uid, epoch=vm.epoch)


def place(vm: MicroVM, host: str = "h1", *, score: float = 0.5) -> Place:
    """The scheduler's choice of `host` for `vm` as it is now."""
    return Place(
        uid=vm.meta.uid,
        generation=vm.meta.generation,
        host=host,
        score=score,
        bids=[Bid(host=host, score=score, parts={"load": score})],
    )


def observation(vm: MicroVM, **changes: Any) -> Observation:
    """What a host says that has done everything `vm` asks for."""
    seen: dict[str, Any] = {
        "uid": vm.meta.uid,
        "host": vm.placement.host if vm.placement is not None else "h1",
        "epoch": vm.epoch,
        "at": 5_000,
        "power": ObservedPower(vm.spec.power_state.value),
        "generation": vm.meta.generation,
        "repair_seq": vm.repair_seq,
        "restart_seq": vm.restart_seq,
        "ready": True,
        "vcpu": vm.spec.vcpu,
        "memory_in_mb": vm.spec.memory_in_mb,
        "driver": "simulated",
        "simulated": True,
    }
    return Observation(**{**seen, **changes})


def failure(*, permanent: bool = True, message: str = "there is no image demo/kernel:6.1") -> Failure:
    return Failure(code="ImageNotFound", message=message, pointer="/spec/kernel/image", permanent=permanent)


def report(*observed: Observation, host: str = "h1", session: str | None = None, **changes: Any) -> Report:
    return Report(host=host, session=session or session_of(host), observed=list(observed), **changes)


def tap(**changes: Any) -> Leftover:
    """Left on a host by a microVM that is gone."""
    facts: dict[str, Any] = {"driver": "qemu", "kind": LeftoverKind.TAP, "name": "tap/fl0", "uid": "vm-old", "epoch": 3}
    return Leftover(**{**facts, "ours": True, **changes})


def kept_volumes(**changes: Any) -> Leftover:
    """In quarantine."""
    facts: dict[str, Any] = {
        "driver": "qemu",
        "kind": LeftoverKind.VOLUMES,
        "name": "quarantine/vm-old-3",
        "uid": "vm-old",
        "microvm": "demo/old",
        "epoch": 3,
        "bytes": 4096,
        "ours": True,
    }
    return Leftover(**{**facts, **changes})


def destroyed(vm: MicroVM, *, epoch: int | None = None) -> Report:
    """The confirmation by `vm`'s host that nothing is left of it."""
    assert vm.placement is not None
    gone = Destroyed(uid=vm.meta.uid, epoch=vm.epoch if epoch is None else epoch)
    return report(host=vm.placement.host, destroyed=[gone])
