"""Initial RAM disks in the kernel's `newc` cpio format, the same bytes for the same contents.

Owners are root, times are zero and inode numbers count up in the order of the entries, so a rebuilt initrd has the
same SHA-256 and the image store sees that nothing changed. The format is described in the Linux kernel's
Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_ALIGNMENT = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """One member: `mode` has the file type bits, `data` is a file's content or a link's target."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(name: str, mode: int = 0o755) -> Entry:
    return Entry(name, stat.S_IFDIR | mode)


def file(name: str, data: bytes, mode: int = 0o644) -> Entry:
    return Entry(name, stat.S_IFREG | mode, data)


def symlink(name: str, target: str) -> Entry:
    return Entry(name, stat.S_IFLNK | 0o777, target.encode())


def character_device(name: str, major: int, minor: int, mode: int = 0o600) -> Entry:
    return Entry(name, stat.S_IFCHR | mode, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """The whole archive, trailer included. Raises ValueError for a name that the format cannot hold."""
    parts: list[bytes] = []
    for inode, entry in enumerate([*entries, Entry("TRAILER!!!", 0)], start=1):
        if not entry.name or "\0" in entry.name or entry.name.startswith("/"):
            raise ValueError(f"{entry.name!r} is not a name for a member of an archive")
        parts += _member(0 if entry.mode == 0 else inode, entry)
    return b"".join(parts)


def _member(inode: int, entry: Entry) -> list[bytes]:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return [header, name, _padding(len(header) + len(name)), entry.data, _padding(len(entry.data))]


def _padding(length: int) -> bytes:
    return bytes(-length % _ALIGNMENT)
