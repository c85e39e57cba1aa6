"""What may be resurrected, and what a host applies when its lease ends (docs/adr/0100).

The decision and the machine both use `resurrection_refusal`, so what is decided from a fresh state is what is accepted.

A host whose session was opened without a lease (`lease_ttl_ms` 0: by a build of before leases, whose logs are still
read) ends nothing by itself, and neither does a driver that does not `fence`: what runs there counts as kept.
"""

from __future__ import annotations

from controlplane.machine.outcome import Code, Rejected
from controlplane.model.resources import Host, HostPhase, MicroVM, MicroVMPhase
from controlplane.model.spec import HostFailure, MicroVMSpec, OnDetach, VolumeKind, detach_action

_PERMISSIVENESS = (OnDetach.SHUTDOWN, OnDetach.STOP, OnDetach.PAUSE, OnDetach.KEEP)
"""By how long a guest may be there: it is gone before the lease ends, at its end, after the grace, or never."""


def most_permissive(*actions: OnDetach) -> OnDetach:
    return max(actions, key=_PERMISSIVENESS.index)


def applied_action(vm: MicroVM, host: Host) -> OnDetach:
    """What `host` does at the end of its lease with `vm` of the present spec."""
    return detach_action(vm.spec) if _ends_by_itself(vm, host) else OnDetach.KEEP


def is_off(host: Host) -> bool:
    """By an operator's word, and no lease from before it is left."""
    return host.confirmed_by is not None and host.phase is HostPhase.FENCED


def fencing_refusal(spec: MicroVMSpec, host: Host) -> str | None:
    """Why `host` cannot run `spec` for want of fencing, in words for an operator; None when it can."""
    if detach_action(spec) is OnDetach.KEEP or host.inventory is None or not host.lease_ttl_ms:
        return None
    driver = spec.provider or _default_driver(host)
    if _fences(host, driver):
        return None
    return (
        f"its driver {driver or 'of no name'} cannot end a microVM by itself when the host is lost, which"
        f" on_detach = {detach_action(spec).value} needs"
    )


def resurrection_refusal(vm: MicroVM, host: Host) -> str | None:
    """Why `vm`, which is placed on the lost `host`, is not given up there; None when it may be once it is fenced."""
    name = host.meta.name
    if vm.phase is MicroVMPhase.DELETING:
        return f"it is being deleted, which host {name} has to confirm"
    if vm.spec.recovery.on_host_failure is not HostFailure.RESTART_ELSEWHERE:
        return f"its recovery.on_host_failure is {vm.spec.recovery.on_host_failure.value}"
    if vm.spec.placement.host == name:
        return f"its placement.host asks for host {name} alone"
    local = local_volumes(vm.spec)
    if local and not vm.spec.recovery.allow_data_loss:
        return (
            f"what is on its local volume {', '.join(local)} would be lost;"
            " recovery.allow_data_loss = true restarts it without"
        )
    if vm.detach is OnDetach.KEEP and host.confirmed_by is None:
        return (
            f"it may still run on host {name}, which never confirmed to end it with its lease;"
            f" `flintctl host confirm-fenced {name}` says that the host is off"
        )
    return None


def recovery_refusal(spec: MicroVMSpec) -> Rejected | None:
    """Why no microVM may ask for such a recovery."""
    recovery = spec.recovery
    if recovery.on_host_failure is HostFailure.RESTART_ELSEWHERE and recovery.on_detach is OnDetach.KEEP:
        return Rejected(
            code=Code.INVALID,
            message="on_detach cannot be keep with on_host_failure = restart_elsewhere: what is kept may still run",
            pointer="/spec/recovery/on_detach",
        )
    return None


def _ends_by_itself(vm: MicroVM, host: Host) -> bool:
    seen = vm.observed.driver if vm.observed is not None else None
    return host.lease_ttl_ms > 0 and _fences(host, seen or vm.spec.provider or _default_driver(host))


def _default_driver(host: Host) -> str | None:
    return host.inventory.drivers[0].name if host.inventory is not None and host.inventory.drivers else None


def _fences(host: Host, driver: str | None) -> bool:
    return host.inventory is not None and any(each.name == driver and each.fences for each in host.inventory.drivers)


def local_volumes(spec: MicroVMSpec) -> list[str]:
    """Names of the volumes that are lost with a host."""
    root = [("root", spec.root_volume)] if spec.root_volume is not None else []
    volumes = [*root, *spec.additional_volumes.items()]
    return sorted(name for name, volume in volumes if volume.kind is VolumeKind.LOCAL)
