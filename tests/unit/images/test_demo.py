"""The demo images are the same bytes each time; that they boot is shown by the driver's tests."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from controlplane.images.demo import add_demo_images, build_root
from controlplane.images.ext4 import make_ext4
from controlplane.images.kernel import find_kernel
from controlplane.images.store import LocalImageStore
from controlplane.ports import DriverError

needs_mke2fs = pytest.mark.skipif(
    shutil.which("mke2fs", path="/usr/sbin:/sbin") is None, reason="needs mke2fs: apt-get install e2fsprogs"
)


@needs_mke2fs
def test_filling_a_store_twice_changes_nothing(tmp_path: Path) -> None:
    try:
        find_kernel()
    except DriverError as error:
        pytest.skip(error.message)
    store = LocalImageStore(tmp_path / "images")
    demo = add_demo_images(store)
    listed = {manifest.reference: manifest for manifest in store.list()}
    assert {"demo/kernel:latest", demo.kernel.reference, "demo/initrd:1", "demo/root:1"} <= set(listed)
    for image, role in (("demo/kernel", "kernel"), ("demo/initrd:1", "initrd"), ("demo/root:1", "disk")):
        assert store.resolve(image, None, role=role).stat().st_size > 0
    assert add_demo_images(store) == demo
    assert {manifest.reference: manifest for manifest in store.list()} == listed


@needs_mke2fs
def test_the_root_volume_does_not_depend_on_the_time(tmp_path: Path) -> None:
    build_root(tmp_path / "one")
    second = time.time_ns() // 1_000_000_000
    while time.time_ns() // 1_000_000_000 == second:
        time.sleep(0.05)
    build_root(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@needs_mke2fs
def test_a_tree_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/big").write_bytes(b"x" * (4 << 20))
    with pytest.raises(DriverError) as refusal:
        make_ext4(tmp_path / "disk", tmp_path / "tree", size_in_mb=2)
    assert refusal.value.code == "Mke2fsFailed"
