"""Container images become images of the store: real skopeo and umoci, a layout on disk and a registry on loopback."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from controlplane.images.oci import import_image
from controlplane.images.store import LocalImageStore
from controlplane.ports import DriverError

TOOLS = ("skopeo", "umoci", "mke2fs")
needs_tools = pytest.mark.skipif(
    not all(shutil.which(tool, path="/usr/bin:/usr/sbin:/bin:/sbin") for tool in TOOLS),
    reason="needs apt-get install skopeo umoci e2fsprogs",
)


def make_layout(tmp_path: Path, tree: dict[str, bytes]) -> Path:
    """An OCI layout with the tag `t` that holds `tree`."""
    layout, source = tmp_path / "layout", tmp_path / "tree"
    for name, data in tree.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    (source / "boot").mkdir(parents=True, exist_ok=True)
    (source / "boot/initrd-link").symlink_to("/etc/hostname")
    for command in (
        ["init", "--layout", str(layout)],
        ["new", "--image", f"{layout}:t"],
        *(
            ["insert", "--rootless", "--image", f"{layout}:t", str(entry), f"/{entry.name}"]
            for entry in sorted(source.iterdir())
        ),
    ):
        subprocess.run(["umoci", *command], check=True, capture_output=True)
    return layout


@pytest.fixture
def store(tmp_path: Path) -> LocalImageStore:
    return LocalImageStore(tmp_path / "images")


@needs_tools
def test_a_system_image_becomes_a_disk_and_its_kernel(store: LocalImageStore, tmp_path: Path) -> None:
    layout = make_layout(
        tmp_path,
        {"etc/hostname": b"inside\n", "boot/vmlinuz-1": b"kernel", "boot/initrd.img-1": b"initrd", "boot/map": b"m"},
    )
    manifest = import_image(store, f"oci:{layout}:t", image="os/small:1")
    assert manifest.roles == {"disk": "rootfs.ext4", "initrd": "boot/initrd.img-1", "kernel": "boot/vmlinuz-1"}
    assert set(manifest.files) == set(manifest.roles.values())
    assert store.resolve("os/small:1", None, role="kernel").read_bytes() == b"kernel"
    disk = store.resolve("os/small:1", None, role="disk")
    shown = subprocess.run(["/usr/sbin/debugfs", "-R", "cat /etc/hostname", str(disk)], capture_output=True, check=True)
    assert shown.stdout == b"inside\n"


@needs_tools
def test_a_kernel_image_gets_no_disk(store: LocalImageStore, tmp_path: Path) -> None:
    layout = make_layout(tmp_path, {"boot/vmlinux": b"kernel"})
    assert import_image(store, f"oci:{layout}:t", image="k").roles == {"kernel": "boot/vmlinux"}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """host:port of a registry that speaks plain HTTP on loopback."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("needs apt-get install docker-registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configuration = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (tmp_path / "registry.yml").write_text(json.dumps(configuration))
    process = subprocess.Popen(
        [program, "serve", str(tmp_path / "registry.yml")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=5):
                break
            assert time.monotonic() < deadline, "the registry did not come up"
            assert process.poll() is None, "the registry ended"
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@needs_tools
def test_an_image_is_fetched_from_a_registry(store: LocalImageStore, tmp_path: Path, registry: str) -> None:
    layout = make_layout(tmp_path, {"etc/hostname": b"fetched\n"})
    target = f"docker://{registry}/team/os:1"
    subprocess.run(
        ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}:t", target],
        check=True,
        capture_output=True,
    )
    manifest = import_image(store, f"{registry}/team/os:1", size_in_mb=8)
    assert (manifest.reference, manifest.roles) == (f"{registry}/team/os:1", {"disk": "rootfs.ext4"})
    assert manifest.files["rootfs.ext4"].size == 8 << 20
    with pytest.raises(DriverError) as refusal:
        import_image(store, f"docker://{registry}/team/absent:1")
    assert refusal.value.code == "ImagePullFailed"
    assert "absent" in refusal.value.message


@pytest.mark.parametrize("source", ["oci:/tmp/layout:t", "docker://UPPER", "--help"])
def test_bad_sources_are_refused_before_anything_runs(store: LocalImageStore, source: str) -> None:
    with pytest.raises(DriverError) as refusal:
        import_image(store, source)
    assert refusal.value.code == "InvalidImageReference"
