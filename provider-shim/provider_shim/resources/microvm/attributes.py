"""What a user writes about a microVM. Names are Flintlock's; `on_change` repeats the effects that the API publishes."""

from __future__ import annotations

from provider_shim.framework.schema import Attribute, Nested
from provider_shim.framework.types import BOOL, NUMBER, STRING, ListOf, MapOf
from provider_shim.framework.validate import at_most, between, cidr, ip_address, matches, one_of
from provider_shim.resources.common import (
    DEVICE_KEYS,
    NAME,
    annotations_attribute,
    host_labels_attribute,
    labels_attribute,
    spread_attribute,
)

_IMAGE = matches(
    r"(?=.{1,255}$)[a-z0-9]+([._/:-][a-z0-9]+)*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[a-f0-9]{64})?",
    "an image reference, such as registry/kernel:6.1",
)
_MAC = matches(r"([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}", "a MAC address, such as 02:00:00:00:00:01")
_BRIDGE = matches(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", "the name of a Linux bridge, at most 15 characters")
_DRIVER = matches(r"[a-z][a-z0-9_-]{0,31}", "a driver, such as qemu or flintlockd")


def _image(what: str) -> Attribute:
    return Attribute(type=STRING, required=True, validators=(_IMAGE,), description=f"Image that holds the {what}.")


def _filename(what: str) -> Attribute:
    return Attribute(type=STRING, optional=True, description=f"File of the {what} in the image.")


_KERNEL = Nested(
    "single",
    {
        "image": _image("kernel"),
        "filename": _filename("kernel"),
        "cmdline": Attribute(
            type=MapOf(STRING),
            optional=True,
            validators=(at_most(64),),
            description="Kernel arguments by name, added to the driver's own; an empty value is a bare flag.",
        ),
        "add_network_config": Attribute(
            type=BOOL, default=False, description="Whether to pass the interfaces as a `network-config` argument."
        ),
    },
)
_INITRD = Nested("single", {"image": _image("initial ramdisk"), "filename": _filename("initial ramdisk")})
_VOLUME = Nested(
    "single",
    {
        "kind": Attribute(
            type=STRING,
            default="ephemeral",
            validators=(one_of("ephemeral", "local", "shared"),),
            description="`ephemeral`: filled from its source when the microVM is created or regenerated, worth nothing "
            "afterwards; `local`: lives on one host and is worth keeping; `shared`: reachable from every host.",
        ),
        "container_source": Attribute(
            type=STRING, optional=True, validators=(_IMAGE,), description="Image that the volume is filled from."
        ),
        "virtiofs_source": Attribute(type=STRING, optional=True, description="Directory of the host to share."),
        "is_read_only": Attribute(type=BOOL, default=False, description="Whether the guest may only read it."),
        "mount_point": Attribute(type=STRING, optional=True, description="Where cloud-init mounts it in the guest."),
        "partition_id": Attribute(type=STRING, optional=True, description="UUID of the boot partition."),
        "size_in_mb": Attribute(
            type=NUMBER,
            optional=True,
            validators=(between(1, 16 * 1024 * 1024),),
            description="Size in MB; unset means as large as its source.",
        ),
    },
)
_ADDRESS = Nested(
    "single",
    {
        "address": Attribute(
            type=STRING, required=True, validators=(cidr,), description="Address with prefix length: `10.0.0.2/24`."
        ),
        "gateway": Attribute(
            type=STRING, optional=True, validators=(ip_address,), description="Address of the default gateway."
        ),
        "nameservers": Attribute(
            type=ListOf(STRING),
            optional=True,
            validators=(at_most(8), ip_address),
            description="Addresses of name servers.",
        ),
    },
)
_INTERFACE = Nested(
    "map",
    {
        "type": Attribute(
            type=STRING, default="tap", validators=(one_of("tap", "macvtap"),), description="`tap` or `macvtap`."
        ),
        "guest_mac": Attribute(
            type=STRING, optional=True, validators=(_MAC,), description="MAC address in the guest; unset: generated."
        ),
        "address": Attribute(type=_ADDRESS, optional=True, description="Static address; unset means DHCP."),
        "bridge_name": Attribute(
            type=STRING,
            optional=True,
            validators=(_BRIDGE,),
            description="Bridge of the host that a tap is attached to.",
        ),
    },
)
_PLACEMENT = Nested(
    "single",
    {
        "host": Attribute(type=STRING, optional=True, validators=(NAME,), description="The one host it may run on."),
        "policy": Attribute(
            type=STRING,
            optional=True,
            validators=(NAME,),
            description="Name of a `flintlock_placement_policy` whose constraints are added.",
        ),
        "required_host_labels": host_labels_attribute("Only hosts with all of these labels are considered."),
        "spread": spread_attribute(),
    },
)
_RECOVERY = Nested(
    "single",
    {
        "on_host_failure": Attribute(
            type=STRING,
            default="never",
            validators=(one_of("never", "restart_elsewhere"),),
            description="`never`: wait for the host; `restart_elsewhere`: start it on another host, from its images, "
            "once it certainly runs on the lost one no more.",
        ),
        "on_detach": Attribute(
            type=STRING,
            optional=True,
            validators=(one_of("pause", "stop", "shutdown", "keep"),),
            description="What its host does with it when it is cut off from the control plane for as long as its lease "
            "lasts: `pause` (halted at once, killed a little later), `stop` (killed at once), `shutdown` (asked to "
            "power off at half of that time, killed at its end) or `keep` (runs on). Unset: `pause` with "
            "`restart_elsewhere`, which excludes `keep`; `keep` with `never`.",
        ),
        "allow_data_loss": Attribute(
            type=BOOL,
            default=False,
            description="Whether to restart it elsewhere although it has a `local` volume, without what is on it.",
        ),
        "policy": Attribute(
            type=STRING,
            optional=True,
            validators=(NAME,),
            description="Name of a `flintlock_failover_policy` that says when and in what order it is restarted "
            "elsewhere; unset: as soon as its host is fenced, the oldest first.",
        ),
    },
)

INTENT: dict[str, Attribute] = {
    "labels": labels_attribute("Labels to select by; live."),
    "annotations": annotations_attribute(),
    "vcpu": Attribute(
        type=NUMBER, required=True, on_change="restart", validators=(between(1, 64),), description="Virtual CPUs."
    ),
    "memory_in_mb": Attribute(
        type=NUMBER,
        required=True,
        on_change="restart",
        validators=(between(64, 1024 * 1024),),
        description="Memory in MB.",
    ),
    "kernel": Attribute(type=_KERNEL, required=True, on_change="restart", description="Kernel to boot."),
    "initrd": Attribute(type=_INITRD, optional=True, on_change="restart", description="Initial ramdisk."),
    "root_volume": Attribute(type=_VOLUME, optional=True, on_change="replace", description="Root disk."),
    "additional_volumes": Attribute(
        type=Nested("map", _VOLUME.attributes),
        optional=True,
        on_change="replace",
        validators=(DEVICE_KEYS, at_most(16)),
        description="Further disks, by id.",
    ),
    "interfaces": Attribute(
        type=_INTERFACE,
        optional=True,
        on_change="restart",
        validators=(DEVICE_KEYS, at_most(8)),
        description="Network interfaces, by device id.",
    ),
    "metadata": Attribute(
        type=MapOf(STRING),
        optional=True,
        sensitive=True,
        on_change="restart",
        validators=(DEVICE_KEYS, at_most(16)),
        description="Documents for the guest's metadata service (cloud-init), by name: `user-data`, `meta-data`, ...",
    ),
    "sensitive_metadata": Attribute(
        type=MapOf(STRING),
        optional=True,
        sensitive=True,
        on_change="restart",
        validators=(DEVICE_KEYS, at_most(16)),
        description="Further metadata, by name, that the control plane keeps sealed and never shows: it tells by "
        "digests whether a value was changed elsewhere. In Terraform's own state it stands as it is written.",
    ),
    "driver": Attribute(
        type=STRING,
        optional=True,
        on_change="replace",
        validators=(_DRIVER,),
        description="Driver to run it with (`qemu`, `flintlockd`, `simulated`); unset means whatever the host offers. "
        "The API calls it `provider`, a name that Terraform keeps for itself.",
    ),
    "power_state": Attribute(
        type=STRING,
        default="running",
        on_change="live",
        validators=(one_of("running", "stopped", "paused"),),
        description="`running`, `stopped` or `paused`.",
    ),
    "drift_policy": Attribute(
        type=STRING,
        default="repair",
        on_change="live",
        validators=(one_of("repair", "report"),),
        description="What the control plane does when it finds the microVM changed: `repair` it at once, or `report` "
        "it and leave it alone until the next apply.",
    ),
    "placement": Attribute(
        type=_PLACEMENT,
        optional=True,
        on_change="live",
        description="Where it may run. A change holds from its next placement on; nothing is moved by it.",
    ),
    "recovery": Attribute(
        type=_RECOVERY, optional=True, on_change="live", description="What happens when its host is lost."
    ),
}
