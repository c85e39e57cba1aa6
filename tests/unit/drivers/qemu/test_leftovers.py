"""What is left of microVMs that are gone, without a QEMU: what says whose it is, and what of it is deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from support.builders import microvm_spec

from controlplane.drivers.qemu import leftovers, network
from controlplane.drivers.qemu.command import HostFacts
from controlplane.drivers.qemu.guest import Site
from controlplane.drivers.qemu.layout import Folder
from controlplane.drivers.qemu.quarantine import Quarantine
from controlplane.drivers.qemu.tag import Tag, mark_of, parse_mark
from controlplane.model.spec import Volume, VolumeKind
from controlplane.ports import DriverError, VMDefinition

INSTANCE = "nobody-00000000"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    nothing = cast("Any", None)
    (tmp_path / "vms").mkdir()
    return Site(
        instance=INSTANCE,
        vms=tmp_path / "vms",
        trash=tmp_path / "trash",
        quarantine=Quarantine(tmp_path / "quarantine", tmp_path / "trash", 3600),
        images=nothing,
        facts=HostFacts(Path("/bin/false"), "", "tcg", None),
        boot_id="b",
        wake=lambda: None,
        fence=nothing,
    )


def defined(site: Site, uid: str = "a") -> Folder:
    """A microVM with a local volume."""
    spec = microvm_spec(additional_volumes={"data": Volume(kind=VolumeKind.LOCAL, size_in_mb=1)})
    folder = Folder(site.vms, uid)
    folder.save_definition(
        VMDefinition(cluster_id="c", uid=uid, namespace="demo", name=uid, epoch=3, generation=1, labels={}, spec=spec)
    )
    (folder.path / "disk-data.raw").write_text("precious")
    return folder


def told(site: Site) -> dict[str, bool]:
    """By name, whether it is marked."""
    return {each.name: each.marked for each in leftovers.of_all(site)}


@pytest.fixture
def taps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Devices as the kernel shows them."""
    devices = tmp_path / "net"
    devices.mkdir()
    monkeypatch.setattr(network, "_DEVICES", devices)
    return devices


def add_tap(devices: Path, uid: str, *, alias: str | None = None, instance: str = INSTANCE, name: str = "") -> str:
    name = name or network.tap_name(INSTANCE, uid, "eth0")
    (devices / name).mkdir()
    mark = mark_of(Tag(instance, "c", uid, 3, "demo", "a"))
    (devices / name / "ifalias").write_text(f"{mark if alias is None else alias}\n")
    return name


async def test_what_is_half_deleted_or_half_made_is_told_and_a_microvm_is_not(site: Site, taps: Path) -> None:
    assert (told(site), leftovers.of(site, "a")) == ({}, [])
    defined(site)
    (site.vms / "b").mkdir()
    (site.vms / "b" / ".definition.json").write_text("{")
    (site.trash / "c").mkdir(parents=True)
    (site.trash / "c" / "disk").write_text("x" * 5000)
    assert told(site) == {"trash/c": True, "vms/b": True}
    assert leftovers.of_all(site)[0].bytes >= 5000
    assert [each.name for each in leftovers.of(site, "a")] == ["vms/a"]
    assert [each.name for each in leftovers.of(site, "c")] == ["trash/c"]
    for each in leftovers.of_all(site):
        await leftovers.delete(site, each)
    assert told(site) == {}
    assert Folder(site.vms, "a").definition() is not None


async def test_a_folder_with_something_in_it_is_not_ours_to_delete(site: Site, taps: Path) -> None:
    (site.vms / "b").mkdir()
    (site.vms / "b" / "disk-data.raw").write_text("whose?")
    (left,) = leftovers.of_all(site)
    assert not left.marked
    with pytest.raises(DriverError, match="is left alone") as refusal:
        await leftovers.delete(site, left)
    assert refusal.value.code == "NotOurs"
    assert (site.vms / "b" / "disk-data.raw").exists()


async def test_volumes_in_quarantine_are_told_and_go_when_told_to(site: Site, taps: Path) -> None:
    assert site.quarantine.take(defined(site), 1_000)
    (site.quarantine.path / "somebodys").mkdir()
    kept, unreadable = leftovers.of_all(site)
    assert (kept.name, kept.microvm, kept.epoch, kept.cluster_id) == ("quarantine/a-3", "demo/a", 3, "c")
    assert (kept.marked, kept.bytes > 0) == (True, True)
    assert (unreadable.name, unreadable.marked) == ("quarantine/somebodys", False)
    assert leftovers.of(site, "a") == [], "it is kept on purpose"
    await leftovers.delete(site, kept)
    await leftovers.delete(site, kept)
    assert told(site) == {"quarantine/somebodys": False}


def test_a_tap_is_told_by_its_mark_alone(site: Site, taps: Path) -> None:
    name = add_tap(taps, "gone")
    add_tap(taps, "other", instance="somebody-11111111", name="fl00000000aaaa")
    add_tap(taps, "plain", alias="")
    add_tap(taps, "forged", name="fl00000000bbbb")
    add_tap(taps, "../x", name="fl00000000cccc")
    defined(site, "lives")
    add_tap(taps, "lives")
    (left,) = leftovers.of_all(site)
    assert (left.name, left.uid, left.epoch, left.cluster_id, left.marked) == (f"tap/{name}", "gone", 3, "c", True)
    assert leftovers.named(site, f"tap/{name}") == left
    defined(site, "gone")
    assert leftovers.named(site, f"tap/{name}") is None, "something was made of it meanwhile"


def test_a_mark_is_short_enough_for_an_alias_and_reads_back() -> None:
    tag = Tag("i" * 64 + "-12345678", "c" * 36, "u" * 64, 9_000_001, "n" * 63, "m" * 63)
    assert len(mark_of(tag)) < 256
    read = parse_mark(mark_of(tag))
    assert read is not None
    assert (read.instance, read.cluster_id, read.uid, read.epoch) == (tag.instance, tag.cluster_id, tag.uid, tag.epoch)
    assert parse_mark("") is parse_mark("flintlock/x") is parse_mark("eth0 of the rack") is None
