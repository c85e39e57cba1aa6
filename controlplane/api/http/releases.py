"""Releases of the Terraform provider in a directory of this node, as Terraform's network mirror protocol has them.

The directory holds `terraform-provider-flintlock_VERSION_OS_ARCH.zip` files; everything else in it is passed over. What
is told of an archive is reckoned from its bytes: `zh:` is the SHA-256 of the archive, `h1:` that of the list of what
is in it, which is also the hash that Terraform writes for a provider that it took from a directory. An archive is read
once, and again only when it was replaced.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MAX_ARCHIVES = 64
MAX_DOWNLOADS = 16
MAX_ARCHIVE_BYTES = 256 << 20
_NAME = re.compile(
    r"terraform-provider-flintlock_(?P<version>\d{1,6}\.\d{1,6}\.\d{1,6}(-[0-9A-Za-z.-]{1,32})?)"
    r"_(?P<platform>[a-z0-9]{1,16}_[a-z0-9]{1,16})\.zip"
)


@dataclass(frozen=True, slots=True)
class Archive:
    path: Path
    version: str
    platform: str
    """As in `linux_amd64`."""


class Releases:
    """Thread-safe; its methods read the disk."""

    def __init__(self, directory: Path | None) -> None:
        self.places = asyncio.Semaphore(MAX_DOWNLOADS)
        """Of downloads at a time."""
        self._directory = directory
        self._lock = threading.Lock()
        self._hashes: dict[Path, tuple[tuple[int, int], list[str]]] = {}
        """By path: what the file was (size, modified) when it was read, and its hashes."""

    def archives(self) -> list[Archive]:
        """By name, `MAX_ARCHIVES` at most; none where the directory cannot be read."""
        if self._directory is None:
            return []
        try:
            files = sorted(each for each in self._directory.iterdir() if _NAME.fullmatch(each.name) and each.is_file())
        except OSError:
            return []
        found: list[Archive] = []
        for file in files[:MAX_ARCHIVES]:
            named = _NAME.fullmatch(file.name)
            assert named is not None
            found.append(Archive(file, named["version"], named["platform"]))
        return found

    def hashes(self, archive: Archive) -> list[str]:
        """As Terraform writes them. Raises OSError, and ValueError for what is no archive that can be served."""
        status = archive.path.stat()
        if status.st_size > MAX_ARCHIVE_BYTES:
            raise ValueError(f"{archive.path.name} is larger than {MAX_ARCHIVE_BYTES} bytes")
        seen = (status.st_size, status.st_mtime_ns)
        with self._lock:
            known = self._hashes.get(archive.path)
            if known is None or known[0] != seen:
                known = self._hashes[archive.path] = (seen, _hashes_of(archive.path))
            return known[1]


def _hashes_of(path: Path) -> list[str]:
    with path.open("rb") as file:
        whole = _sha256(file)
        listing = hashlib.sha256()
        try:
            with zipfile.ZipFile(file) as archive:
                for name in sorted(archive.namelist()):
                    with archive.open(name) as inner:
                        listing.update(f"{_sha256(inner)}  {name}\n".encode())
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as problem:
            raise ValueError(f"{path.name} is no archive: {problem}") from None
    return [f"h1:{base64.b64encode(listing.digest()).decode()}", f"zh:{whole}"]


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while part := file.read(1 << 20):
        digest.update(part)
    return digest.hexdigest()
