"""Our specs and Flintlock's, both ways, and what Flintlock cannot run. Pure.

Identity travels in labels, because Flintlock assigns a uid of its own: whoever lists a host can tell whose a microVM
is, of which placement and from which generation, even if every file of ours is lost. Metadata is base64 on the wire.
Volumes and interfaces, maps by id here, are lists there. What Flintlock has no field for (power state, kind of a
volume, placement, policies) does not travel.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass, replace

from controlplane.drivers.common import restarts, unsupported
from controlplane.model.spec import (
    Initrd,
    Interface,
    InterfaceType,
    Kernel,
    MicroVMSpec,
    OnDetach,
    PowerState,
    StaticAddress,
    Volume,
    VolumeKind,
    detach_action,
)
from controlplane.ports import VMDefinition
from controlplane.wire.flintlock.types import microvm_pb2 as types

DRIVER_NAME = "flintlockd"
LABEL_PREFIX = "flintlock-controlplane/"
ROOT_VOLUME_ID = "root"

# What upstream's validation of a microVM allows (core/models/microvm.go).
MEMORY_MIN_MB = 1024
MEMORY_MAX_MB = 32768

# What upstream adds to a microVM that does not have it (core/application/commands.go).
ADDED_METADATA = "meta-data"
ADDED_INTERFACE = "eth0"
ADDED_ADDRESS = StaticAddress(address="169.254.0.1/16")

_IFACE_TYPES = {
    InterfaceType.TAP: types.NetworkInterface.TAP,
    InterfaceType.MACVTAP: types.NetworkInterface.MACVTAP,
}
_INTERFACE_TYPES = {wire: ours for ours, wire in _IFACE_TYPES.items()}


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose a microVM on the host is, as its labels say."""

    cluster_id: str
    uid: str
    epoch: int
    generation: int


def identity_labels(vm: VMDefinition) -> dict[str, str]:
    return {
        f"{LABEL_PREFIX}cluster": vm.cluster_id,
        f"{LABEL_PREFIX}uid": vm.uid,
        f"{LABEL_PREFIX}epoch": str(vm.epoch),
        f"{LABEL_PREFIX}generation": str(vm.generation),
    }


def identity(wire: types.MicroVMSpec) -> Identity | None:
    """None when the labels are not ours, or are not what we write."""
    labels = wire.labels
    cluster_id, uid = labels.get(f"{LABEL_PREFIX}cluster", ""), labels.get(f"{LABEL_PREFIX}uid", "")
    epoch, generation = labels.get(f"{LABEL_PREFIX}epoch", ""), labels.get(f"{LABEL_PREFIX}generation", "")
    if not (cluster_id and uid and _is_count(epoch) and _is_count(generation)):
        return None
    return Identity(cluster_id=cluster_id, uid=uid, epoch=int(epoch), generation=int(generation))


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


# -- what cannot be run


def check(spec: MicroVMSpec) -> None:
    """Raise DriverError naming the field that no Flintlock host can carry out."""
    if spec.power_state is not PowerState.RUNNING:
        raise unsupported(
            f"Flintlock has no call that makes a microVM {spec.power_state}: it can only run",
            pointer="/spec/power_state",
        )
    if detach_action(spec) is not OnDetach.KEEP:
        field = "on_host_failure" if spec.recovery.on_detach is None else "on_detach"
        raise unsupported(
            "nothing on a Flintlock host stops a microVM when the host is cut off, so none may be started elsewhere;"
            " use on_host_failure = never with on_detach = keep (or unset), or another provider",
            pointer=f"/spec/recovery/{field}",
        )
    if spec.sensitive_metadata:
        raise unsupported(
            "Flintlock keeps metadata in the open and shows it to whoever lists microVMs; use another provider",
            pointer="/spec/sensitive_metadata",
        )
    if spec.provider not in {None, DRIVER_NAME}:
        raise unsupported(f"this is the {DRIVER_NAME} driver, not {spec.provider}", pointer="/spec/provider")
    if not MEMORY_MIN_MB <= spec.memory_in_mb <= MEMORY_MAX_MB:
        raise unsupported(
            f"Flintlock allows from {MEMORY_MIN_MB} to {MEMORY_MAX_MB} MB of memory, not {spec.memory_in_mb}",
            pointer="/spec/memory_in_mb",
        )
    if spec.root_volume is None:
        raise unsupported("Flintlock needs a root volume", pointer="/spec/root_volume")
    if spec.root_volume.virtiofs_source is not None:
        raise unsupported("Flintlock's root volume cannot be virtiofs", pointer="/spec/root_volume/virtiofs_source")
    virtiofs = 0
    for pointer, volume in _volumes(spec):
        _check_volume(pointer, volume)
        virtiofs += volume.virtiofs_source is not None
        if virtiofs > 1:
            raise unsupported("Flintlock takes one virtiofs volume at most", pointer=f"{pointer}/virtiofs_source")


def _volumes(spec: MicroVMSpec) -> Iterator[tuple[str, Volume]]:
    if spec.root_volume is not None:
        yield "/spec/root_volume", spec.root_volume
    for key in sorted(spec.additional_volumes):
        yield f"/spec/additional_volumes/{key}", spec.additional_volumes[key]


def _check_volume(pointer: str, volume: Volume) -> None:
    if volume.container_source is None and volume.virtiofs_source is None:
        raise unsupported(
            "Flintlock fills every volume from a source; none is given", pointer=f"{pointer}/container_source"
        )
    if volume.container_source is not None and volume.virtiofs_source is not None:
        raise unsupported("a volume has one source, not two", pointer=f"{pointer}/virtiofs_source")
    # An update deletes the microVM with its volumes; only a directory of the host outlives that.
    if volume.kind is not VolumeKind.EPHEMERAL and volume.virtiofs_source is None:
        raise unsupported(
            f"Flintlock deletes a microVM's volumes with it, so they cannot be {volume.kind}", pointer=f"{pointer}/kind"
        )


# -- to the wire


def to_wire(vm: VMDefinition, *, provider: str | None = None) -> types.MicroVMSpec:
    """`vm` as a create request carries it. `provider` is Flintlock's, not ours."""
    spec = vm.spec
    wire = types.MicroVMSpec(
        id=vm.name,
        namespace=vm.namespace,
        labels={**vm.labels, **identity_labels(vm)},
        vcpu=spec.vcpu,
        memory_in_mb=spec.memory_in_mb,
        kernel=types.Kernel(
            image=spec.kernel.image,
            cmdline=spec.kernel.cmdline,
            filename=spec.kernel.filename,
            add_network_config=spec.kernel.add_network_config,
        ),
        additional_volumes=[
            _volume_to_wire(key, spec.additional_volumes[key]) for key in sorted(spec.additional_volumes)
        ],
        interfaces=[_interface_to_wire(key, spec.interfaces[key]) for key in sorted(spec.interfaces)],
        metadata={key: base64.b64encode(text.encode()).decode() for key, text in spec.metadata.items()},
        provider=provider,
    )
    if spec.initrd is not None:
        wire.initrd.CopyFrom(types.Initrd(image=spec.initrd.image, filename=spec.initrd.filename))
    if spec.root_volume is not None:
        wire.root_volume.CopyFrom(_volume_to_wire(ROOT_VOLUME_ID, spec.root_volume))
    return wire


def _volume_to_wire(key: str, volume: Volume) -> types.Volume:
    return types.Volume(
        id=key,
        is_read_only=volume.is_read_only,
        mount_point=volume.mount_point,
        source=types.VolumeSource(container_source=volume.container_source, virtiofs_source=volume.virtiofs_source),
        partition_id=volume.partition_id,
        size_in_mb=volume.size_in_mb,
    )


def _interface_to_wire(key: str, interface: Interface) -> types.NetworkInterface:
    wire = types.NetworkInterface(device_id=key, type=_IFACE_TYPES[interface.type], guest_mac=interface.guest_mac)
    if interface.address is not None:
        wire.address.CopyFrom(
            types.StaticAddress(
                address=interface.address.address,
                gateway=interface.address.gateway,
                nameservers=interface.address.nameservers,
            )
        )
    if interface.bridge_name is not None:
        wire.overrides.bridge_name = interface.bridge_name
    return wire


# -- from the wire


def from_wire(wire: types.MicroVMSpec) -> MicroVMSpec:
    """What the host runs, in our terms; what does not travel has its default. Raises ValueError for bad metadata."""
    return MicroVMSpec(
        vcpu=wire.vcpu,
        memory_in_mb=wire.memory_in_mb,
        kernel=Kernel(
            image=wire.kernel.image,
            filename=wire.kernel.filename if wire.kernel.HasField("filename") else None,
            cmdline=dict(wire.kernel.cmdline),
            add_network_config=wire.kernel.add_network_config,
        ),
        initrd=_initrd_from_wire(wire.initrd) if wire.HasField("initrd") else None,
        root_volume=_volume_from_wire(wire.root_volume) if wire.HasField("root_volume") else None,
        additional_volumes={volume.id: _volume_from_wire(volume) for volume in wire.additional_volumes},
        interfaces={interface.device_id: _interface_from_wire(interface) for interface in wire.interfaces},
        metadata={key: _decode(key, value) for key, value in wire.metadata.items()},
    )


def _decode(key: str, value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError(f"metadata {key}: not base64 of UTF-8 text") from error


def _initrd_from_wire(wire: types.Initrd) -> Initrd:
    return Initrd(image=wire.image, filename=wire.filename if wire.HasField("filename") else None)


def _volume_from_wire(wire: types.Volume) -> Volume:
    source = wire.source
    return Volume(
        container_source=source.container_source if source.HasField("container_source") else None,
        virtiofs_source=source.virtiofs_source if source.HasField("virtiofs_source") else None,
        is_read_only=wire.is_read_only,
        mount_point=wire.mount_point if wire.HasField("mount_point") else None,
        partition_id=wire.partition_id if wire.HasField("partition_id") else None,
        size_in_mb=wire.size_in_mb if wire.HasField("size_in_mb") else None,
    )


def _interface_from_wire(wire: types.NetworkInterface) -> Interface:
    address = None
    if wire.HasField("address"):
        address = StaticAddress(
            address=wire.address.address,
            gateway=wire.address.gateway if wire.address.HasField("gateway") else None,
            nameservers=list(wire.address.nameservers),
        )
    return Interface(
        type=_INTERFACE_TYPES[wire.type],
        guest_mac=wire.guest_mac if wire.HasField("guest_mac") else None,
        address=address,
        bridge_name=wire.overrides.bridge_name if wire.overrides.HasField("bridge_name") else None,
    )


def carries(wire: types.MicroVMSpec, wanted: MicroVMSpec) -> bool:
    """Whether the host's microVM already has the configuration of `wanted`.

    Flintlock adds an instance id to the metadata and an interface for it; where `wanted` has neither, they are no
    difference.
    """
    try:
        found = from_wire(wire)
    except (ValueError, KeyError):
        return False
    added_metadata = {ADDED_METADATA} - wanted.metadata.keys()
    added_interfaces = {ADDED_INTERFACE} - wanted.interfaces.keys()
    found = replace(
        found,
        metadata={key: text for key, text in found.metadata.items() if key not in added_metadata},
        interfaces={
            key: interface
            for key, interface in found.interfaces.items()
            if key not in added_interfaces or interface.address != ADDED_ADDRESS
        },
    )
    return not restarts(_as_travelled(found), _as_travelled(wanted))


def _as_travelled(spec: MicroVMSpec) -> MicroVMSpec:
    """Without what the wire has no field for."""
    return replace(
        spec,
        provider=None,
        root_volume=replace(spec.root_volume, kind=VolumeKind.EPHEMERAL) if spec.root_volume else None,
        additional_volumes={
            key: replace(volume, kind=VolumeKind.EPHEMERAL) for key, volume in spec.additional_volumes.items()
        },
    )
