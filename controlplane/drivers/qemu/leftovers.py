"""What is on the host of microVMs that are gone: looked for afresh, whatever the steps of the destroy said.

Everything of a microVM can be found by its uid: processes by their mark, taps by the beginning of their names, disks
and files by the folder. Without a uid, only what says by itself whose it is counts: taps by their mark, entries of the
trash and of the quarantine. A folder among those of the microVMs that holds no more than drafts of records is what a
create left that was interrupted at once; one that holds anything else is told, and is not ours to delete. Processes
that belong to nothing are no leftovers but strays, which `list` shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from controlplane.drivers.qemu import network, process
from controlplane.drivers.qemu.guest import Site
from controlplane.drivers.qemu.layout import DRAFTS, Folder, remove_tree
from controlplane.drivers.qemu.quarantine import Manifest
from controlplane.drivers.qemu.threads import to_the_end
from controlplane.model.gc import LeftoverKind
from controlplane.ports import DriverError, Remains

DRIVER = "qemu"


def of(site: Site, uid: str) -> list[Remains]:
    """Blocks for a look at /proc."""
    processes = [
        Remains(DRIVER, LeftoverKind.PROCESS, f"process/{found.pid}", uid=uid)
        for found in process.scan(site.instance)
        if found.tag is not None and found.tag.uid == uid
    ]
    taps = [Remains(DRIVER, LeftoverKind.TAP, f"tap/{name}", uid=uid) for name in network.existing(site.instance, uid)]
    folders = [_folder(path, uid=uid) for path in (site.vms / uid, site.trash / uid) if path.exists()]
    return [*processes, *taps, *folders]


def of_all(site: Site) -> list[Remains]:
    """What no microVM of `list` stands for, by name. Blocks for a look at /proc and into the folders."""
    return sorted((*_taps(site), *_trash(site), *_unfinished(site), *_quarantined(site)), key=lambda each: each.name)


def named(site: Site, name: str) -> Remains | None:
    """What `of_all` calls `name`, if it is there still and nothing was made of it meanwhile."""
    return next((each for each in of_all(site) if each.name == name), None)


async def delete(site: Site, left: Remains) -> None:
    """Raises DriverError. What vanishes by itself meanwhile is no error."""
    if not left.marked:
        raise DriverError("NotOurs", f"{left.name} does not say that it is ours: it is left alone", retryable=False)
    place, _, name = left.name.partition("/")
    try:
        match place:
            case "tap":
                await network.remove_tap(name)
            case "quarantine":
                await to_the_end(site.quarantine.delete, name, "it was ordered")
            case "trash":
                await to_the_end(remove_tree, site.trash / name)
            case _:
                await to_the_end(Folder(site.vms, name).remove, site.trash)
    except OSError as error:
        raise DriverError("StateUnavailable", f"cannot delete {left.name}: {error.strerror}") from error


def _taps(site: Site) -> Iterator[Remains]:
    taps = network.marked(site.instance)
    if not taps:
        return
    alive = {found.tag.uid for found in process.scan(site.instance) if found.tag is not None}
    for tap in taps:
        if tap.uid not in alive and Folder(site.vms, tap.uid).definition() is None:
            yield Remains(
                DRIVER,
                LeftoverKind.TAP,
                f"tap/{tap.name}",
                uid=tap.uid,
                cluster_id=tap.cluster_id,
                epoch=tap.epoch,
                marked=True,
            )


def _trash(site: Site) -> Iterator[Remains]:
    """Nothing gets there but by our rename."""
    if site.trash.is_dir():
        for path in site.trash.iterdir():
            yield _folder(path, marked=True)


def _unfinished(site: Site) -> Iterator[Remains]:
    for path in site.vms.iterdir():
        if path.is_dir() and Folder(site.vms, path.name).definition() is None:
            ours = not path.is_symlink() and all(each.name in DRAFTS for each in path.iterdir())
            yield _folder(path, uid=path.name, marked=ours)


def _quarantined(site: Site) -> Iterator[Remains]:
    for path, entry in site.quarantine.look():
        if entry is None:
            yield Remains(DRIVER, LeftoverKind.VOLUMES, f"quarantine/{path.name}")
            continue
        known: Manifest = entry.manifest
        yield Remains(
            DRIVER,
            LeftoverKind.VOLUMES,
            f"quarantine/{path.name}",
            uid=known.uid,
            cluster_id=known.cluster_id,
            microvm=f"{known.namespace}/{known.name}",
            epoch=known.epoch,
            bytes=entry.bytes,
            marked=True,
        )


def _folder(path: Path, *, uid: str | None = None, marked: bool = False) -> Remains:
    taken = 0
    with suppress(FileNotFoundError):  # it is being deleted
        taken = sum(each.lstat().st_blocks * 512 for each in path.rglob("*"))
    return Remains(DRIVER, LeftoverKind.FOLDER, f"{path.parent.name}/{path.name}", uid=uid, bytes=taken, marked=marked)
