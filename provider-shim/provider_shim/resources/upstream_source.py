"""`flintlock_vms`: microVMs in the shape of Flintlock's first provider, for configurations written for that.

`vms[*].spec` is Flintlock's MicroVMSpec (volumes and interfaces are lists, labels are called `label`),
`vms[*].status` its MicroVMStatus. New configurations do better with `flintlock_microvms`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from provider_shim.client import segment
from provider_shim.framework.call import Call
from provider_shim.framework.schema import Attribute, Nested, Schema
from provider_shim.framework.types import STRING, Object
from provider_shim.resources.common import NAME
from provider_shim.resources.sources import ConnectedSource, observed, observed_list, pick

_STATES = {
    "pending": "PENDING",
    "placed": "PENDING",
    "active": "CREATED",
    "failed": "FAILED",
    "moving": "PENDING",
    "deleting": "DELETING",
}


def _one(description: str, attributes: dict[str, Attribute]) -> Attribute:
    return Attribute(type=Nested("single", attributes), computed=True, description=description)


_SOURCE = {
    "container_source": observed("string", "Image it is filled from."),
    "virtiofs_source": observed("string", "Directory of the host."),
}
_VOLUME = {
    "id": observed("string", "Id of the volume."),
    "is_read_only": observed("bool", "Whether the guest may only read it."),
    "mount_point": observed("string", "Where it is mounted in the guest."),
    "partition_id": observed("string", "UUID of the boot partition."),
    "size_in_mb": observed("number", "Size in MB."),
    "source": _one("Where it is filled from.", _SOURCE),
}
_KERNEL = {
    "image": observed("string", "Image that holds the kernel."),
    "filename": observed("string", "File in the image."),
    "cmdline": observed("labels", "Kernel arguments."),
    "add_network_config": observed("bool", "Whether the network-config argument is passed."),
}
_INITRD = {
    "image": observed("string", "Image that holds the initial ramdisk."),
    "filename": observed("string", "File in the image."),
}
_ADDRESS = {
    "address": observed("string", "Address in CIDR notation."),
    "gateway": observed("string", "Default gateway."),
    "nameservers": observed("strings", "Name servers."),
}
_INTERFACE = {
    "device_id": observed("string", "Id of the interface."),
    "type": observed("string", "`TAP` or `MACVTAP`."),
    "guest_mac": observed("string", "MAC address in the guest."),
    "address": _one("Static address.", _ADDRESS),
    "overrides": _one("Overrides of the host's settings.", {"bridge_name": observed("string", "Bridge of the host.")}),
}
_INTERFACE_STATUS = {
    "host_device_name": observed("string", "Device on the host."),
    "mac_address": observed("string", "MAC address."),
}
_SPEC = {
    "id": observed("string", "Name of the microVM."),
    "namespace": observed("string", "Namespace of the microVM."),
    "uid": observed("string", "Identity of the microVM."),
    "label": observed("labels", "Labels of the microVM."),
    "vcpu": observed("number", "Virtual CPUs."),
    "memory_in_mb": observed("number", "Memory in MB."),
    "kernel": _one("Kernel.", _KERNEL),
    "initrd": _one("Initial ramdisk.", _INITRD),
    "root_volume": _one("Root volume.", _VOLUME),
    "additional_volumes": observed_list("Further volumes, sorted by id.", _VOLUME),
    "interfaces": observed_list("Network interfaces, sorted by id.", _INTERFACE),
    "created_at": observed("string", "When it was created."),
    "updated_at": observed("string", "When it was last changed."),
    "deleted_at": observed("string", "When its deletion was asked for."),
    "provider": observed("string", "Driver that was asked for."),
}
_STATUS = {
    "state": observed("string", "`PENDING`, `CREATED`, `FAILED` or `DELETING`."),
    "network_interfaces": Attribute(
        type=Nested("map", _INTERFACE_STATUS), computed=True, description="Observed interfaces, by id."
    ),
    "retry": observed("number", "How often it was tried again; the control plane counts placements here."),
}


class UpstreamVMsSource(ConnectedSource):
    type_name = "flintlock_vms"
    schema: ClassVar = Schema(
        description="MicroVMs in the shape of Flintlock's own API; see `flintlock_microvms` for all that is observed.",
        attributes={
            "namespace": Attribute(
                type=STRING, optional=True, validators=(NAME,), description="Only this namespace; unset means all."
            ),
            "vms": observed_list(
                "The microVMs, sorted by namespace and name.",
                {"spec": _one("What is declared.", _SPEC), "status": _one("What is observed.", _STATUS)},
            ),
        },
    )

    def read(self, call: Call, config: Object) -> Object:
        namespace = config.get("namespace")
        path = "/microvms" if namespace is None else f"/namespaces/{segment(namespace)}/microvms"
        found = sorted(self.items(path, {}), key=lambda vm: (vm["namespace"], vm["name"]))
        return {**config, "vms": [{"spec": _spec(each), "status": _status(each)} for each in found]}


def _spec(stored: dict[str, Any]) -> Object:
    spec: dict[str, Any] = stored["spec"]
    root: Any = spec.get("root_volume")
    volumes: dict[str, Any] = spec.get("additional_volumes") or {}
    interfaces: dict[str, Any] = spec.get("interfaces") or {}
    return {
        **pick(_SPEC, spec, stored),
        "id": stored["name"],
        "label": stored.get("labels"),
        "deleted_at": stored.get("deletion_requested_at"),
        "kernel": pick(_KERNEL, spec["kernel"]),
        "initrd": pick(_INITRD, spec["initrd"]) if spec.get("initrd") else None,
        "root_volume": _volume("root", root) if root else None,
        "additional_volumes": [_volume(name, volumes[name]) for name in sorted(volumes)],
        "interfaces": [_interface(name, interfaces[name]) for name in sorted(interfaces)],
    }


def _volume(name: str, volume: dict[str, Any]) -> Object:
    return {**pick(_VOLUME, volume), "id": name, "source": pick(_SOURCE, volume)}


def _interface(name: str, interface: dict[str, Any]) -> Object:
    address: Any = interface.get("address")
    bridge = interface.get("bridge_name")
    return {
        **pick(_INTERFACE, interface),
        "device_id": name,
        "type": str(interface.get("type") or "tap").upper(),
        "address": pick(_ADDRESS, address) if address else None,
        "overrides": {"bridge_name": bridge} if bridge else None,
    }


def _status(stored: dict[str, Any]) -> Object:
    status: dict[str, Any] = stored.get("status") or {}
    interfaces: dict[str, Any] = status.get("interfaces") or {}
    return {
        "state": _STATES.get(str(status.get("phase")), "PENDING"),
        "retry": max(int(status.get("epoch") or 0) - 1, 0),
        "network_interfaces": {
            name: {"host_device_name": each.get("host_device"), "mac_address": each.get("mac_address")}
            for name, each in interfaces.items()
        },
    }
