"""The image store: `ROOT/<encoded name>/<tag>/{manifest.json, files/...}`.

An image is written to a temporary folder, flushed, and then renamed to its place in one step; a reader therefore sees
the old image or the new one and never a part. `manifest.json` holds every file's size and SHA-256 and which file plays
which role; what is not in the manifest is not in the image. Files are copied by reflink where the file system can, and
read-only once they are in. A crash leaves at most a folder under `ROOT/.incoming`, which the next `add` sweeps away.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from controlplane.images.names import Reference, check_file_name, parse_reference
from controlplane.model.types import DECODE_ERRORS
from controlplane.ports import DriverError

MAX_FILES = 64
MAX_IMAGE_BYTES = 64 << 30
MAX_MANIFEST_BYTES = 1 << 20
ROLES = ("kernel", "initrd", "disk")
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_CHUNK_BYTES = 1 << 20


class ImageFile(msgspec.Struct, frozen=True):
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What `manifest.json` holds."""

    name: str
    tag: str
    digest: str
    """`sha256:` over the roles and files, so equal content has an equal digest."""
    files: dict[str, ImageFile]
    roles: dict[str, str]
    source: str
    added_at: int
    """Milliseconds since the Unix epoch."""

    @property
    def reference(self) -> str:
        return f"{self.name}:{self.tag}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


_manifests = msgspec.json.Decoder(Manifest)


class LocalImageStore:
    """Implements `ports.ImageStore`; several processes may use one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    @property
    def root(self) -> Path:
        return self._root

    # -- reading

    def resolve(self, image: str, filename: str | None, *, role: str) -> Path:
        manifest = self.get(image)
        chosen = self._choose(manifest, filename, role)
        return self._place(parse_reference(image)) / "files" / chosen

    def get(self, image: str) -> Manifest:
        """Raises DriverError(`ImageNotFound`), naming the images that exist."""
        reference = parse_reference(image)
        manifest = self._read(self._place(reference))
        if manifest is None:
            have = ", ".join(found.reference for found in self.list()) or "none"
            raise DriverError("ImageNotFound", f"image {reference} is not on this host (it has: {have})")
        if reference.digest is not None and reference.digest != manifest.digest:
            raise DriverError(
                "ImageNotFound", f"image {reference} is here with digest {manifest.digest}, not {reference.digest}"
            )
        return manifest

    def list(self) -> Sequence[Manifest]:
        """Every image, sorted by name and tag."""
        if not self._root.is_dir():
            return ()
        found = [
            manifest
            for folder in self._root.iterdir()
            if not folder.name.startswith(".") and folder.is_dir()
            for tag in folder.iterdir()
            if (manifest := self._read(tag)) is not None
        ]
        return tuple(sorted(found, key=lambda manifest: (manifest.name, manifest.tag)))

    def verify(self) -> Sequence[str]:
        """Read every byte of every image and say what is wrong; nothing wrong is an empty answer."""
        problems: list[str] = []
        for manifest in self.list():
            files = self._place(Reference(manifest.name, manifest.tag, None)) / "files"
            for name, expected in manifest.files.items():
                try:
                    actual = _describe(files / name)
                except OSError as error:
                    problems.append(f"{manifest.reference}: {name}: {error.strerror}")
                    continue
                if actual != expected:
                    problems.append(
                        f"{manifest.reference}: {name}: content does not match its SHA-256 {expected.sha256}"
                    )
            if _digest(manifest.files, manifest.roles) != manifest.digest:
                problems.append(f"{manifest.reference}: manifest does not match its digest {manifest.digest}")
        return problems

    # -- changing

    def add(self, image: str, files: Mapping[str, Path], roles: Mapping[str, str], *, source: str = "") -> Manifest:
        """Copy `files` (name in the image -> file on this host) in as `image`, replacing what has this name and tag.

        roles: `kernel`, `initrd` or `disk` -> name in `files`. Adding equal content again changes nothing.
        Raises DriverError: `InvalidImageFile`, `InvalidImage`, `ImageStoreFailed`.
        """
        reference = parse_reference(image)
        _check_contents(files, roles)
        try:
            with self._incoming() as folder:
                manifest = self._fill(folder, reference, files, roles, source)
                present = self._read(self._place(reference))
                if present is not None and present.digest == manifest.digest:
                    return present
                self._publish(folder, self._place(reference))
        except OSError as error:
            raise DriverError("ImageStoreFailed", f"cannot add {reference} to {self._root}: {error}") from error
        return manifest

    def remove(self, image: str) -> bool:
        """Remove one name and tag; False when it was not there. Disks made from it are copies and stay."""
        place = self._place(parse_reference(image))
        try:
            if not place.is_dir():
                return False
            with self._incoming() as trash:
                place.rename(trash / "removed")
                _sync(place.parent)
            if not any(place.parent.iterdir()):
                place.parent.rmdir()
        except OSError as error:
            raise DriverError("ImageStoreFailed", f"cannot remove {image} from {self._root}: {error}") from error
        return True

    # -- inside

    def _place(self, reference: Reference) -> Path:
        return self._root / reference.folder / reference.tag

    @staticmethod
    def _read(place: Path) -> Manifest | None:
        try:
            with (place / "manifest.json").open("rb") as file:
                return _manifests.decode(file.read(MAX_MANIFEST_BYTES))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, *DECODE_ERRORS) as error:
            raise DriverError("ImageStoreFailed", f"cannot read {place / 'manifest.json'}: {error}") from error

    @staticmethod
    def _choose(manifest: Manifest, filename: str | None, role: str) -> str:
        if filename is None:
            chosen = manifest.roles.get(role)
            if chosen is None and len(manifest.files) == 1 and not manifest.roles:
                chosen = next(iter(manifest.files))
            wanted = f"a file for the role {role!r}"
        else:
            chosen = filename.removeprefix("/")
            wanted = f"a file {filename!r}"
        if chosen is None or chosen not in manifest.files:
            roles = {name: role for role, name in manifest.roles.items()}
            have = ", ".join(f"{name} ({roles[name]})" if name in roles else name for name in sorted(manifest.files))
            raise DriverError("ImageFileNotFound", f"image {manifest.reference} has not {wanted} (it has: {have})")
        return chosen

    @contextmanager
    def _incoming(self) -> Generator[Path]:
        """A private folder that nobody sees; an exclusive lock keeps other writers from sweeping it."""
        incoming = self._root / ".incoming"
        incoming.mkdir(parents=True, exist_ok=True)
        with (incoming / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in incoming.iterdir():
                if left.is_dir():
                    shutil.rmtree(left)
            folder = Path(tempfile.mkdtemp(dir=incoming))
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _fill(
        self, folder: Path, reference: Reference, files: Mapping[str, Path], roles: Mapping[str, str], source: str
    ) -> Manifest:
        described: dict[str, ImageFile] = {}
        for name in sorted(files):
            target = folder / "files" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_file(files[name], target)
            described[name] = _describe(target)
            target.chmod(0o444)
            _sync(target)
        if sum(file.size for file in described.values()) > MAX_IMAGE_BYTES:
            raise DriverError("InvalidImage", f"{reference} is over {MAX_IMAGE_BYTES >> 30} GiB", retryable=False)
        manifest = Manifest(
            name=reference.name,
            tag=reference.tag,
            digest=_digest(described, roles),
            files=described,
            roles=dict(sorted(roles.items())),
            source=source,
            added_at=time.time_ns() // 1_000_000,
        )
        (folder / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
        _sync(folder / "manifest.json")
        for directory in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
            directory.chmod(0o755)
            _sync(directory)
        return manifest

    @staticmethod
    def _publish(folder: Path, place: Path) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            _exchange(folder, place)
        else:
            folder.rename(place)
        _sync(place.parent)
        _sync(place.parent.parent)


def copy_file(source: Path, target: Path) -> None:
    """Copy the bytes of a file, sharing blocks where the file system can. Raises OSError."""
    with source.open("rb") as reader, target.open("xb") as writer:
        try:
            fcntl.ioctl(writer.fileno(), 0x40049409, reader.fileno())  # FICLONE
        except OSError:
            shutil.copyfileobj(reader, writer, _CHUNK_BYTES)


def _check_contents(files: Mapping[str, Path], roles: Mapping[str, str]) -> None:
    if not 1 <= len(files) <= MAX_FILES:
        raise DriverError("InvalidImage", f"an image has 1 to {MAX_FILES} files, not {len(files)}", retryable=False)
    for name, path in files.items():
        check_file_name(name)
        if not path.is_file():
            raise DriverError("InvalidImageFile", f"{path} (to become {name}) is not a file", retryable=False)
    for role, name in roles.items():
        if role not in ROLES:
            raise DriverError("InvalidImage", f"{role!r} is not a role (use {', '.join(ROLES)})", retryable=False)
        if name not in files:
            raise DriverError(
                "InvalidImage", f"role {role!r} names {name!r}, which is not a file of it", retryable=False
            )


def _describe(path: Path) -> ImageFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return ImageFile(size=file.tell(), sha256=digest)


def _digest(files: Mapping[str, ImageFile], roles: Mapping[str, str]) -> str:
    canonical = msgspec.json.encode(
        {"files": {name: file.sha256 for name, file in files.items()}, "roles": dict(roles)}, order="deterministic"
    )
    return f"sha256:{hashlib.sha256(canonical).hexdigest()}"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(first: Path, second: Path) -> None:
    """Swap two folders in one step, so that a replaced image is never missing (Linux `renameat2`)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, bytes(first), _AT_FDCWD, bytes(second), _RENAME_EXCHANGE) == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(code, os.strerror(code), str(second))
    # This file system cannot swap: the image is absent for an instant, and never half.
    second.rename(first.parent / f"{first.name}-replaced")
    first.rename(second)
