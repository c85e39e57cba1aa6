"""What is still on the host of a microVM that was destroyed: looked for afresh, whatever the steps of the destroy said.

Everything of a microVM can be found by its uid: processes by their mark, taps by the beginning of their names, disks
and files by the folder. A tap alone does not say whose it is, so without a uid only folders are told.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from controlplane.drivers.qemu import network, process
from controlplane.drivers.qemu.guest import Site
from controlplane.drivers.qemu.layout import Folder


def of(site: Site, uid: str) -> list[str]:
    """Blocks for a look at /proc."""
    processes = [f"process {found.pid}" for found in process.scan(site.instance) if _is_of(found, uid)]
    taps = [f"tap {name}" for name in network.existing(site.instance, uid)]
    folders = [f"folder {path}" for path in (site.vms / uid, site.trash / uid) if path.exists()]
    return [*processes, *taps, *folders]


def of_all(site: Site) -> list[str]:
    """Folders that no microVM of `list` stands for."""
    return sorted(f"folder {path}" for path in _nobodys(site))


def _is_of(found: process.Found, uid: str) -> bool:
    return found.tag is not None and found.tag.uid == uid


def _nobodys(site: Site) -> Iterator[Path]:
    if site.trash.is_dir():
        yield from site.trash.iterdir()
    for path in site.vms.iterdir():
        if path.is_dir() and Folder(site.vms, path.name).definition() is None:
            yield path
