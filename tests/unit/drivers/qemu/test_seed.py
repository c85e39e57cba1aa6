"""The NoCloud seed, read back with another reader."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path
from typing import cast

import pycdlib
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.drivers.qemu import seed
from controlplane.drivers.qemu.command import Nic
from controlplane.model.spec import Interface, Kernel, MicroVMSpec, StaticAddress, Volume

SPEC = MicroVMSpec(vcpu=1, memory_in_mb=128, kernel=Kernel(image="k"))
NICS = (Nic("eth0", "tap0", "02:00:00:00:00:01"), Nic("eth1", "tap1", "02:00:00:00:00:02"))


def read_back(data: bytes) -> tuple[str, dict[str, str]]:
    """(label, files by their Joliet names)."""
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(data))
    try:
        label = iso.pvd.volume_identifier.decode().strip()
        files: dict[str, str] = {}
        for child in iso.list_children(joliet_path="/"):
            if child.is_file():
                name = child.file_identifier().decode("utf-16-be")
                output = io.BytesIO()
                iso.get_file_from_iso_fp(output, joliet_path=f"/{name}")
                files[name] = output.getvalue().decode()
        return label, files
    finally:
        iso.close()


keys = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,30}[A-Za-z0-9])?", fullmatch=True)


@settings(max_examples=40)
@given(st.dictionaries(keys, st.text(max_size=200), min_size=1, max_size=16))
def test_every_key_becomes_a_file(contents: dict[str, str]) -> None:
    assert read_back(seed.build(contents)) == ("cidata", contents)


def test_the_largest_metadata_fits() -> None:
    contents = {f"key{number}": "x" * 65536 for number in range(16)}
    assert read_back(seed.build(contents))[1] == contents


def test_another_reader_finds_the_label(tmp_path: Path) -> None:
    if shutil.which("blkid", path="/usr/sbin:/sbin") is None:
        pytest.skip("needs blkid, which comes with util-linux")
    (tmp_path / "seed").write_bytes(seed.build({"meta-data": "x"}))
    shown = subprocess.run(
        ["/usr/sbin/blkid", "-p", "-s", "LABEL", "-o", "value", str(tmp_path / "seed")], capture_output=True, check=True
    )
    assert shown.stdout.decode().strip() == "cidata"


def test_what_the_user_leaves_out_is_made_up_and_what_he_writes_stays() -> None:
    files = seed.files(SPEC, uid="01UID", name="web", nics=())
    assert yaml.safe_load(files["meta-data"]) == {"instance-id": "01UID", "local-hostname": "web"}
    assert files["user-data"].startswith("#cloud-config\n")
    assert set(files) == {"meta-data", "user-data"}
    own = MicroVMSpec(
        vcpu=1, memory_in_mb=64, kernel=Kernel(image="k"), metadata={"meta-data": "instance-id: mine\n", "extra": "e"}
    )
    files = seed.files(own, uid="01UID", name="web", nics=())
    assert (files["meta-data"], files["extra"]) == ("instance-id: mine\n", "e")


def test_network_config() -> None:
    address = StaticAddress(address="10.0.0.2/24", gateway="10.0.0.1", nameservers=["10.0.0.53", "fd00::53"])
    six = StaticAddress(address="fd00::2/64", gateway="fd00::1")
    spec = MicroVMSpec(
        vcpu=1,
        memory_in_mb=64,
        kernel=Kernel(image="k"),
        interfaces={"eth0": Interface(address=address), "eth1": Interface(address=six)},
    )
    ethernets = yaml.safe_load(seed.network_config(spec, NICS))["ethernets"]
    assert ethernets["eth0"] == {
        "match": {"macaddress": "02:00:00:00:00:01"},
        "set-name": "eth0",
        "dhcp4": False,
        "addresses": ["10.0.0.2/24"],
        "nameservers": {"addresses": ["10.0.0.53", "fd00::53"]},
        "routes": [{"to": "0.0.0.0/0", "via": "10.0.0.1"}],
    }
    assert ethernets["eth1"]["routes"] == [{"to": "::/0", "via": "fd00::1"}]
    assert seed.network_config(SPEC, ()) == ""


def test_interfaces_without_an_address_ask_for_one() -> None:
    spec = MicroVMSpec(vcpu=1, memory_in_mb=64, kernel=Kernel(image="k"), interfaces={"eth0": Interface()})
    config = yaml.safe_load(seed.network_config(spec, NICS[:1]))
    assert config["version"] == 2
    assert config["ethernets"]["eth0"]["dhcp4"] is True


def test_mount_points_name_the_disks_in_their_order() -> None:
    volumes = {
        "z-last": Volume(size_in_mb=1, mount_point="/srv/z"),
        "a-first": Volume(size_in_mb=1, mount_point="/srv/a: b"),
        "m": Volume(size_in_mb=1),
    }
    spec = MicroVMSpec(
        vcpu=1,
        memory_in_mb=64,
        kernel=Kernel(image="k"),
        root_volume=Volume(container_source="r"),
        additional_volumes=volumes,
    )
    vendor = seed.files(spec, uid="u", name="n", nics=())["vendor-data"]
    mounts = cast("list[list[str]]", yaml.safe_load(vendor)["mounts"])
    assert mounts == [["/dev/vdb", "/srv/a: b"], ["/dev/vdd", "/srv/z"]]
