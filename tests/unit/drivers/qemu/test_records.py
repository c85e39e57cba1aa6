"""A microVM's folder and records, and the causes read from them."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import msgspec
import pytest

from controlplane.drivers.qemu import exits, host, network
from controlplane.drivers.qemu.layout import Folder, Run, sweep
from controlplane.drivers.qemu.tag import Tag
from controlplane.drivers.qemu.threads import to_the_end
from controlplane.model.spec import Interface, Kernel, MicroVMSpec
from controlplane.ports import DriverError, VMDefinition

VM = VMDefinition(
    cluster_id="c",
    uid="01UID",
    namespace="ns",
    name="web",
    epoch=2,
    generation=3,
    labels={"a": "b"},
    spec=MicroVMSpec(
        vcpu=1,
        memory_in_mb=64,
        kernel=Kernel(image="k"),
        interfaces={"eth0": Interface()},
        metadata={"user-data": "s3"},
    ),
)
RUN = Run(VM, "boot-1", 12, "tcg")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "vms", "01UID")


def test_records_come_back_and_are_private(folder: Folder) -> None:
    assert (folder.definition(), folder.run(), folder.exists()) == (None, None, False)
    folder.save_definition(VM)
    folder.save_run(RUN)
    assert (folder.definition(), folder.run()) == (VM, RUN)
    assert [path.stat().st_mode & 0o077 for path in (folder.path, *folder.path.iterdir())] == [0, 0, 0]


def test_secrets_are_in_one_private_file_and_in_no_record(folder: Folder) -> None:
    secret = dataclasses.replace(VM, sensitive={"user-data": "hunter2"})
    folder.save_definition(secret)
    folder.save_run(Run(secret, "boot-1", 12, "tcg"))
    assert folder.sensitive() == {"user-data": "hunter2"}
    assert [path.name for path in folder.path.iterdir() if b"hunter2" in path.read_bytes()] == ["sensitive.json"]
    assert (folder.path / "sensitive.json").stat().st_mode & 0o077 == 0
    assert "hunter2" not in repr(secret)
    folder.save_definition(VM)
    assert folder.sensitive() == {}
    assert not (folder.path / "sensitive.json").exists()


def test_a_crash_while_writing_leaves_the_old_record(folder: Folder) -> None:
    folder.save_definition(VM)
    (folder.path / ".definition.json").write_text('{"half')
    assert folder.definition() == VM
    folder.save_definition(msgspec.structs.replace(RUN).definition)
    assert folder.definition() == VM


def test_a_damaged_record_is_said_to_be_damaged(folder: Folder) -> None:
    folder.save_definition(VM)
    (folder.path / "definition.json").write_text("{}")
    with pytest.raises(DriverError) as refusal:
        folder.definition()
    assert refusal.value.code == "StateUnavailable"
    assert "damaged" in refusal.value.message


def test_removal_is_complete_also_after_a_crash_in_it(folder: Folder, tmp_path: Path) -> None:
    trash = tmp_path / "trash"
    folder.save_definition(VM)
    (trash / "01UID").mkdir(parents=True)
    (trash / "01UID/left").write_text("x")
    (trash / "other").mkdir()
    folder.remove(trash)
    assert not folder.exists()
    assert os.listdir(trash) == ["other"]  # noqa: PTH208
    folder.remove(trash)
    sweep(trash)
    assert os.listdir(trash) == []  # noqa: PTH208
    sweep(tmp_path / "absent")


@pytest.mark.parametrize("uid", ["", "..", "a/b", ".trash", "a\0b", "x" * 300])
def test_uids_that_would_lead_elsewhere_are_refused(tmp_path: Path, uid: str) -> None:
    with pytest.raises(DriverError) as refusal:
        Folder(tmp_path, uid)
    assert refusal.value.code == "InvalidUid"


@pytest.mark.parametrize(
    ("run", "events", "output", "boot", "cause"),
    [
        (None, "", "", "boot-1", "not started"),
        (RUN, "", "", "boot-1", "process is gone (killed or crashed)"),
        (RUN, "", "", "boot-2", "host restarted"),
        (RUN, "qemu_system_shutdown_request reason=6\n", "", "boot-2", "guest powered off"),
        (RUN, "qemu_system_shutdown_request reason=7\n", "", "boot-1", "guest rebooted"),
        (RUN, "qemu_system_shutdown_request reason=8\n", "", "boot-1", "guest panicked"),
        (RUN, "qemu_system_shutdown_request reason=99\n", "", "boot-1", "process is gone (killed or crashed)"),
        (RUN, "", "qemu: terminating on signal 15 from pid 1 (init)\n", "boot-1", "hypervisor was ended by signal 15"),
        (msgspec.structs.replace(RUN, exit_status="signal 9"), "", "", "boot-1", "process exited (signal 9)"),
        (
            msgspec.structs.replace(RUN, exit_status="status 1"),
            "",
            "warning: x\nqemu: no memory\n",
            "boot-1",
            "process exited (status 1): qemu: no memory",
        ),
        (
            msgspec.structs.replace(RUN, stop_requested=True, exit_status="signal 9"),
            "",
            "",
            "boot-1",
            "stopped on request",
        ),
    ],
)
def test_causes(folder: Folder, run: Run | None, events: str, output: str, boot: str, cause: str) -> None:
    folder.save_definition(VM)
    folder.events.write_text("x" * 10_000 + "\n" + events)
    folder.output.write_text(output)
    assert exits.cause(folder, run, boot_id=boot) == cause


def test_taps_have_stable_short_names_of_their_own() -> None:
    names = {
        network.tap_name(instance, uid, device)
        for instance in ("host-1", "host-2")
        for uid in ("01A", "01B")
        for device in ("eth0", "eth1", "a-very-long-interface-name")
    }
    assert len(names) == 12
    assert all(len(name) <= 15 for name in names)
    assert network.tap_name("host-1", "01A", "eth0").startswith(network.tap_prefix("host-1", "01A"))
    assert network.tap_name("host-1", "01A", "eth0") == network.tap_name("host-1", "01A", "eth0")


def test_hardware_addresses_are_the_declared_ones_or_local_and_stable() -> None:
    assert network.mac_address("u", "eth0", Interface(guest_mac="02:AB:00:00:00:01")) == "02:ab:00:00:00:01"
    made = network.mac_address("u", "eth0", Interface())
    assert made == network.mac_address("u", "eth0", Interface())
    assert made != network.mac_address("u", "eth1", Interface())
    assert int(made[:2], 16) & 3 == 2, "neither local nor unicast"


async def test_a_failing_ip_command_names_the_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DriverError) as refusal:
        await network.make(Tag("unit", "c", "01NONE", 1, "demo", "a"), {"eth0": Interface()})
    assert (refusal.value.code, refusal.value.pointer) == ("NetworkFailed", "/spec/interfaces/eth0")
    assert "iproute2" in refusal.value.message


def test_a_host_without_qemu_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DriverError) as refusal:
        host.find_qemu()
    assert refusal.value.code == "HypervisorMissing"
    assert "apt-get install qemu-system-x86" in refusal.value.message


def test_the_clock_of_the_processor(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\ncpu MHz\t\t: 2596.120\n")
    assert host.tsc_khz(tmp_path / "cpuinfo") == 2_596_120
    (tmp_path / "cpuinfo").write_text("processor\t: 0\n")
    assert host.tsc_khz(tmp_path / "cpuinfo") == 1_000_000


async def test_cancelled_file_work_is_waited_for() -> None:
    import asyncio
    import threading

    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go_on.wait(20)
        done.set()

    task = asyncio.create_task(to_the_end(work))
    await asyncio.to_thread(begun.wait, 20)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()
