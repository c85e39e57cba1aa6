"""From what was seen of a microVM to the `Instance` that the agent reports. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.drivers.qemu import network
from controlplane.drivers.qemu.command import HostFacts
from controlplane.drivers.qemu.layout import Folder, Run
from controlplane.drivers.qemu.process import Found
from controlplane.drivers.qemu.qmp import Status
from controlplane.model.resources import ObservedPower
from controlplane.ports import Instance, InterfaceStatus, VMDefinition


@dataclass(frozen=True, slots=True)
class Seen:
    process: Found | None
    power: ObservedPower
    status: Status | None
    """What QEMU itself says; None while it runs no more or does not answer."""
    cause: str | None
    ready: bool


def describe(
    folder: Folder, definition: VMDefinition, run: Run | None, seen: Seen, instance: str, facts: HostFacts
) -> Instance:
    """A process is described by what it was started from, the rest by the definition."""
    found = seen.process
    started = run.definition if run is not None and found is not None else definition
    details = {"folder": str(folder.path)}
    if found is not None:
        details |= {"pid": str(found.pid), "qemu": facts.version}
        if run is not None:
            details["accelerator"] = run.accelerator
    return Instance(
        uid=folder.uid,
        native_id=folder.uid,
        cluster_id=definition.cluster_id,
        namespace=definition.namespace,
        name=definition.name,
        epoch=found.tag.epoch if found is not None and found.tag is not None else definition.epoch,
        generation=started.generation,
        power=seen.power,
        ready=seen.ready,
        vcpu=seen.status.vcpu if seen.status else None,
        memory_in_mb=seen.status.memory_in_mb if seen.status else None,
        cause=seen.cause,
        details=details,
        interfaces={
            nic.device: InterfaceStatus(nic.tap, nic.mac)
            for nic in network.nics(instance, folder.uid, started.spec.interfaces)
        },
    )


def describe_stray(found: Found, known: set[str | None]) -> Instance:
    """A process with our mark that has no folder of ours. It has a uid unless that uid's own microVM is `known`."""
    tag = found.tag
    return Instance(
        uid=tag.uid if tag is not None and tag.uid not in known else None,
        native_id=f"pid-{found.pid}",
        cluster_id=tag.cluster_id if tag else None,
        namespace=tag.namespace if tag else None,
        name=tag.name if tag else found.name.rpartition("/")[2],
        epoch=tag.epoch if tag else None,
        generation=None,
        power=ObservedPower.PAUSED if found.stopped else ObservedPower.RUNNING,
        ready=False,
        vcpu=None,
        memory_in_mb=None,
        cause=None,
        details={"pid": str(found.pid)},
        interfaces={},
    )
