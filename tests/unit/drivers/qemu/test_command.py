"""QEMU's argument list, as golden text, and the kernel's command line."""

from __future__ import annotations

import base64
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.drivers.qemu.command import Disk, HostFacts, Nic, Parts, build, escape, kernel_cmdline
from controlplane.drivers.qemu.tag import Tag, instance_of, is_part, parse
from controlplane.model.spec import Initrd, Kernel, MicroVMSpec, Volume
from controlplane.ports import DriverError

TCG = HostFacts("/usr/bin/qemu-system-x86_64", "7.2", "tcg", 2_500_000)
KVM = replace(TCG, accelerator="kvm")
SPEC = MicroVMSpec(vcpu=2, memory_in_mb=128, kernel=Kernel(image="k"), initrd=Initrd(image="i"))
TAG = Tag("host-1", "01CLUSTER", "01UID", 3, "ns", "web")
PARTS = Parts(Path("/images/vmlinuz"), Path("/images/initrd"), (), (), "")


def after(argv: list[str], option: str) -> list[str]:
    return [value for name, value in pairwise(argv) if name == option]


def test_the_whole_list() -> None:
    spec = replace(SPEC, root_volume=Volume(container_source="r"), additional_volumes={"data": Volume(size_in_mb=1)})
    parts = replace(
        PARTS,
        disks=(Disk("root", "disk.root.raw", False), Disk("data", "disk-data.raw", True)),
        nics=(Nic("eth0", "fl0123456789ab", "02:00:00:00:00:01"),),
    )
    sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    assert build(spec, TAG, parts, TCG, paused=True) == [
        "/usr/bin/qemu-system-x86_64",
        *("-name", "guest=flintlock/host-1/01CLUSTER/01UID/3/ns/web"),
        *("-machine", "microvm,acpi=on,pit=on", "-accel", "tcg", "-cpu", "max", "-m", "128M", "-smp", "2"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-sandbox", sandbox),
        *("-kernel", "/images/vmlinuz", "-initrd", "/images/initrd", "-append"),
        "console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check tsc_early_khz=2500000 lpj=10000000 "
        "cryptomgr.notests "
        "root=/dev/vda rw ds=nocloud",
        *("-chardev", "file,id=console,path=console.log,append=on", "-serial", "chardev:console"),
        *("-qmp", "unix:qmp.sock,server=on,wait=off", "-qmp", "unix:operator.sock,server=on,wait=off"),
        *("-trace", "enable=qemu_system_shutdown_request", "-D", "events.log"),
        *("-drive", "if=none,id=disk-root,file=disk.root.raw,format=raw"),
        *("-device", "virtio-blk-device,drive=disk-root,serial=root,bus=virtio-mmio-bus.23"),
        *("-drive", "if=none,id=disk-data,file=disk-data.raw,format=raw,readonly=on"),
        *("-device", "virtio-blk-device,drive=disk-data,serial=data,bus=virtio-mmio-bus.22"),
        *("-netdev", "tap,id=net-eth0,ifname=fl0123456789ab,script=no,downscript=no"),
        *("-device", "virtio-net-device,netdev=net-eth0,mac=02:00:00:00:00:01,bus=virtio-mmio-bus.21"),
        "-S",
    ]


def test_kvm_uses_the_host_processor_and_measures_its_own_clock() -> None:
    argv = build(replace(SPEC, initrd=None), TAG, replace(PARTS, initrd=None), KVM, paused=False)
    assert (after(argv, "-accel"), after(argv, "-cpu")) == (["kvm"], ["host"])
    assert "tsc_early_khz" not in after(argv, "-append")[0]
    assert "-initrd" not in argv
    assert "-S" not in argv


@given(st.text(alphabet="ab,=/", max_size=20))
def test_commas_in_values_cannot_become_options(value: str) -> None:
    assert escape(value).replace(",,", "") == value.replace(",", "")
    assert escape(value).replace(",,", ",") == value


def test_the_users_kernel_arguments_replace_ours() -> None:
    kernel = Kernel(image="k", cmdline={"console": "hvc0", "debug": "", "quiet": "0"})
    line = kernel_cmdline(replace(SPEC, kernel=kernel), PARTS, KVM)
    assert line == "console=hvc0 quiet=0 panic=-1 mitigations=off nokaslr no_timer_check ds=nocloud debug"


def test_root_arguments_follow_the_root_volume() -> None:
    volume = Volume(container_source="r", is_read_only=True, partition_id="0fe1-01")
    words = kernel_cmdline(replace(SPEC, root_volume=volume), PARTS, KVM).split()
    assert {"root=PARTUUID=0fe1-01", "ro"} <= set(words)
    assert "rw" not in words


def test_network_config_travels_on_the_command_line_when_asked() -> None:
    spec = replace(SPEC, kernel=Kernel(image="k", add_network_config=True))
    line = kernel_cmdline(spec, replace(PARTS, network_config="version: 2\n"), KVM)
    encoded = line.partition("network-config=")[2].split()[0]
    assert base64.b64decode(encoded) == b"version: 2\n"
    assert "network-config" not in kernel_cmdline(SPEC, replace(PARTS, network_config="version: 2\n"), KVM)


def test_a_command_line_that_linux_would_cut_is_refused() -> None:
    kernel = Kernel(image="k", cmdline={f"a{number}": "x" * 250 for number in range(8)})
    with pytest.raises(DriverError) as refusal:
        kernel_cmdline(replace(SPEC, kernel=kernel), PARTS, TCG)
    assert (refusal.value.code, refusal.value.pointer) == ("KernelCommandLineTooLong", "/spec/kernel/cmdline")


part = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,40}", fullmatch=True)


@given(part, part, part, st.integers(0, 2**63), part, part)
def test_tags_come_back(instance: str, cluster: str, uid: str, epoch: int, namespace: str, name: str) -> None:
    tag = Tag(instance, cluster, uid, epoch, namespace, name)
    assert parse(str(tag)) == tag
    assert instance_of(str(tag)) == instance


@given(st.text(max_size=60))
def test_other_names_of_processes_are_no_tags(text: str) -> None:
    tag = parse(text)
    assert tag is None or text.startswith(f"flintlock/{tag.instance}/")


@pytest.mark.parametrize("text", ["", ".", "..", ".hidden", "a/b", "a b", "ü", "a\n", "x" * 254])
def test_what_cannot_name_a_folder(text: str) -> None:
    assert not is_part(text)
