"""Choosing the distribution's kernel and ordering its modules, over made-up /boot and /lib/modules."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from controlplane.images.kernel import HostKernel, find_kernel, load_order
from controlplane.images.names import parse_reference
from controlplane.ports import DriverError


def install(tmp_path: Path, release: str, *, with_modules: bool = True) -> None:
    boot, modules = tmp_path / "boot", tmp_path / "modules"
    boot.mkdir(exist_ok=True)
    (boot / f"vmlinuz-{release}").write_bytes(b"kernel")
    if with_modules:
        (modules / release).mkdir(parents=True)
        (modules / release / "modules.dep").write_text("")


def chosen(tmp_path: Path) -> HostKernel:
    return find_kernel(tmp_path / "boot", tmp_path / "modules")


def test_the_newest_cloud_kernel_with_modules_wins(tmp_path: Path) -> None:
    for release in ("6.1.0-9-cloud-amd64", "6.1.0-10-cloud-amd64", "6.12.1-amd64"):
        install(tmp_path, release)
    install(tmp_path, "6.1.0-99-cloud-amd64", with_modules=False)
    kernel = chosen(tmp_path)
    assert (kernel.release, kernel.series, kernel.tag) == ("6.1.0-10-cloud-amd64", "6.1", "6.1.0-10-cloud-amd64")
    assert kernel.image.read_bytes() == b"kernel"


def test_any_kernel_is_better_than_none(tmp_path: Path) -> None:
    install(tmp_path, "6.8.0-31-generic")
    assert chosen(tmp_path).series == "6.8"


@pytest.mark.parametrize(
    ("release", "tag"),
    [
        ("6.1.0-56-cloud-amd64", "6.1.0-56-cloud-amd64"),
        ("6.12.117+deb13-cloud-amd64", "6.12.117_deb13-cloud-amd64"),
        ("6.8.0-31-generic", "6.8.0-31-generic"),
    ],
)
def test_every_distributions_kernel_can_be_an_image(tmp_path: Path, release: str, tag: str) -> None:
    install(tmp_path, release)
    assert str(parse_reference(f"demo/kernel:{chosen(tmp_path).tag}")) == f"demo/kernel:{tag}"


def test_without_a_kernel_the_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(DriverError) as refusal:
        chosen(tmp_path)
    assert refusal.value.code == "KernelMissing"
    assert "apt-get install linux-image-cloud-amd64" in refusal.value.message


@pytest.fixture
def kernel(tmp_path: Path) -> HostKernel:
    install(tmp_path, "1.2-x")
    folder = tmp_path / "modules/1.2-x"
    (folder / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    (folder / "modules.dep").write_text(
        "net/net-top.ko.xz: net/middle.ko base.ko\nnet/middle.ko: base.ko\nbase.ko:\nodd.ko.lz4:\n"
    )
    (folder / "net").mkdir()
    (folder / "net/net-top.ko.xz").write_bytes(lzma.compress(b"top"))
    (folder / "net/middle.ko").write_bytes(b"middle")
    (folder / "base.ko").write_bytes(b"base")
    return chosen(tmp_path)


def test_modules_come_after_what_they_need_and_uncompressed(kernel: HostKernel) -> None:
    ordered = load_order(kernel, ["ext4", "net_top", "base"])
    assert [(module.name, module.data) for module in ordered] == [
        ("base", b"base"),
        ("middle", b"middle"),
        ("net_top", b"top"),
    ]


@pytest.mark.parametrize(("name", "word"), [("absent", "no module absent"), ("odd", "compressed as .lz4")])
def test_modules_that_cannot_be_had_are_named(kernel: HostKernel, name: str, word: str) -> None:
    with pytest.raises(DriverError) as refusal:
        load_order(kernel, [name])
    assert refusal.value.code == "KernelModuleMissing"
    assert word in refusal.value.message
