"""From a definition and the host's facts to QEMU's argument list. Pure.

The machine is `microvm` with ACPI (for virtio-mmio discovery and the power button) and a PIT (without it this machine
type hangs). Under TCG the guest is told the speed of the clock: calibrating it on a busy host hangs two boots of five.
Files of the microVM are named relative to its folder, which is QEMU's working directory, because the path of a unix
socket holds 107 bytes and a state folder may be deep. Every virtio device gets its slot, so that the root volume is
/dev/vda and the rest follow in the order of their ids.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from controlplane.drivers.qemu.tag import Tag
from controlplane.model.spec import MicroVMSpec
from controlplane.ports import DriverError

MAX_CMDLINE_BYTES = 2047
"""Linux on x86 cuts a longer kernel command line off."""
MAX_DEVICES = 23
"""virtio-mmio slots of the machine type, without slot 0: its interrupt (GSI 24) never reaches the guest, which then
hangs in its first read."""
CONSOLE = "console.log"
QMP_SOCKET = "qmp.sock"
OPERATOR_SOCKET = "operator.sock"
EVENTS = "events.log"
_SERIAL_LENGTH = 20
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True, slots=True)
class HostFacts:
    binary: str
    version: str
    accelerator: str
    """`kvm` or `tcg`."""
    tsc_khz: int


@dataclass(frozen=True, slots=True)
class Disk:
    name: str
    """Volume id; the guest sees it as the disk's serial number."""
    file: str
    """Relative to the microVM's folder."""
    read_only: bool


@dataclass(frozen=True, slots=True)
class Nic:
    device: str
    tap: str
    mac: str


@dataclass(frozen=True, slots=True)
class Parts:
    """What the definition's references stand for on this host."""

    kernel: Path
    initrd: Path | None
    disks: Sequence[Disk]
    nics: Sequence[Nic]
    network_config: str
    """cloud-init's network-config, for `add_network_config`."""


def build(spec: MicroVMSpec, tag: Tag, parts: Parts, facts: HostFacts, *, paused: bool) -> list[str]:
    """The whole argument list. paused: the guest does not begin before it is told to."""
    return [
        facts.binary,
        "-name", f"guest={escape(str(tag))}",
        "-machine", "microvm,acpi=on,pit=on",
        "-accel", facts.accelerator,
        "-cpu", "host" if facts.accelerator == "kvm" else "max",
        "-m", f"{spec.memory_in_mb}M",
        "-smp", str(spec.vcpu),
        "-nodefaults", "-no-user-config", "-no-reboot",
        "-display", "none",
        "-sandbox", _SANDBOX,
        "-kernel", str(parts.kernel),
        *(("-initrd", str(parts.initrd)) if parts.initrd else ()),
        "-append", kernel_cmdline(spec, parts, facts),
        "-chardev", f"file,id=console,path={CONSOLE},append=on",
        "-serial", "chardev:console",
        "-qmp", f"unix:{QMP_SOCKET},server=on,wait=off",
        "-qmp", f"unix:{OPERATOR_SOCKET},server=on,wait=off",
        "-trace", "enable=qemu_system_shutdown_request",
        "-D", EVENTS,
        *_devices(parts),
        *(("-S",) if paused else ()),
    ]  # fmt: skip


def escape(value: str) -> str:
    """A comma inside an option's value is written twice."""
    return value.replace(",", ",,")


def _devices(parts: Parts) -> Iterator[str]:
    # Linux meets the slots of this machine from the highest to the lowest.
    slot = MAX_DEVICES
    for disk in parts.disks:
        read_only = ",readonly=on" if disk.read_only else ""
        yield from ("-drive", f"if=none,id=disk-{disk.name},file={escape(disk.file)},format=raw{read_only}")
        serial = disk.name[:_SERIAL_LENGTH]
        yield from ("-device", f"virtio-blk-device,drive=disk-{disk.name},serial={serial},bus=virtio-mmio-bus.{slot}")
        slot -= 1
    for nic in parts.nics:
        yield from ("-netdev", f"tap,id=net-{nic.device},ifname={nic.tap},script=no,downscript=no")
        yield from ("-device", f"virtio-net-device,netdev=net-{nic.device},mac={nic.mac},bus=virtio-mmio-bus.{slot}")
        slot -= 1


def kernel_cmdline(spec: MicroVMSpec, parts: Parts, facts: HostFacts) -> str:
    """Our defaults, each replaced by what the user declares under the same key; an empty value is a bare word.

    Raises DriverError(`KernelCommandLineTooLong`).
    """
    arguments = {
        "console": "ttyS0",
        "quiet": "",
        "panic": "-1",
        "mitigations": "off",
        "nokaslr": "",
        "no_timer_check": "",
    }
    if facts.accelerator == "tcg":
        # lpj is loops per jiffy; the kernels in use tick 250 times a second. What the kernel spends on testing its own
        # ciphers is a tenth of an emulated boot.
        arguments |= {"tsc_early_khz": str(facts.tsc_khz), "lpj": str(facts.tsc_khz * 4), "cryptomgr.notests": ""}
    if spec.root_volume is not None:
        partition = spec.root_volume.partition_id
        arguments["root"] = f"PARTUUID={partition}" if partition else "/dev/vda"
        arguments["ro" if spec.root_volume.is_read_only else "rw"] = ""
    arguments["ds"] = "nocloud"
    if spec.kernel.add_network_config and parts.network_config:
        arguments["network-config"] = base64.b64encode(parts.network_config.encode()).decode()
    arguments |= spec.kernel.cmdline
    line = " ".join(f"{key}={value}" if value else key for key, value in arguments.items())
    if len(line.encode()) > MAX_CMDLINE_BYTES:
        raise DriverError(
            "KernelCommandLineTooLong",
            f"the kernel command line would have {len(line.encode())} bytes, {MAX_CMDLINE_BYTES} are the most",
            pointer="/spec/kernel/cmdline",
            retryable=False,
        )
    return line
