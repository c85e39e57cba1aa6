"""The NoCloud seed: a small ISO labelled `cidata`, from which cloud-init and the demo guest take who they are.

Every key of the spec's metadata becomes a file of that name. What the user leaves out is made up: `meta-data` from the
uid and the name, `network-config` (version 2) from the static addresses, `vendor-data` from the mount points.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence

import pycdlib

from controlplane.drivers.qemu.command import Nic
from controlplane.model.spec import MicroVMSpec

LABEL = "cidata"
_FIRST_DISK = ord("a")


def files(spec: MicroVMSpec, *, uid: str, name: str, nics: Sequence[Nic]) -> dict[str, str]:
    """What the seed holds, by file name."""
    made = {"meta-data": f"instance-id: {uid}\nlocal-hostname: {name}\n", "user-data": "#cloud-config\n{}\n"}
    network = network_config(spec, nics)
    if network:
        made["network-config"] = network
    mounts = list(_mounts(spec))
    if mounts:
        made["vendor-data"] = "#cloud-config\nmounts:\n" + "".join(f"- {json.dumps(mount)}\n" for mount in mounts)
    return made | dict(spec.metadata)


def network_config(spec: MicroVMSpec, nics: Sequence[Nic]) -> str:
    """netplan's version 2 for every interface, matched by hardware address; empty without interfaces.

    Interfaces without a static address are brought up with DHCP.
    """
    lines = ["version: 2", "ethernets:"]
    for nic in nics:
        lines += [f"  {nic.device}:", "    match:", f'      macaddress: "{nic.mac}"', f"    set-name: {nic.device}"]
        address = spec.interfaces[nic.device].address
        if address is None:
            lines.append("    dhcp4: true")
            continue
        lines += ["    dhcp4: false", "    addresses:", f'      - "{address.address}"']
        if address.nameservers:
            lines += [
                "    nameservers:",
                "      addresses:",
                *(f'        - "{server}"' for server in address.nameservers),
            ]
        if address.gateway:
            destination = "::/0" if ":" in address.gateway else "0.0.0.0/0"
            lines += ["    routes:", f'      - to: "{destination}"', f'        via: "{address.gateway}"']
    return "\n".join([*lines, ""]) if nics else ""


def _mounts(spec: MicroVMSpec) -> Iterator[list[str]]:
    """cloud-init mounts for the additional volumes that ask for one."""
    first = _FIRST_DISK + (1 if spec.root_volume else 0)
    for position, volume_id in enumerate(sorted(spec.additional_volumes)):
        mount_point = spec.additional_volumes[volume_id].mount_point
        if mount_point:
            yield [f"/dev/vd{chr(first + position)}", mount_point]


def build(contents: dict[str, str]) -> bytes:
    """The ISO, with Joliet and Rock Ridge names."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=LABEL)
    try:
        for position, (name, text) in enumerate(sorted(contents.items())):
            data = text.encode()
            iso.add_fp(
                io.BytesIO(data), len(data), iso_path=f"/F{position:07}.;1", rr_name=name, joliet_path=f"/{name}"
            )
        output = io.BytesIO()
        iso.write_fp(output)
        return output.getvalue()
    finally:
        iso.close()
