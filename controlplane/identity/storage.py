"""Writing secrets and certificates: whole or not at all, on disk before the call returns, with their final mode.

`create` never replaces a file: losing a key to a second run is worse than an error. `replace` is for files whose
content is meant to change, such as the list of tokens.
"""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator


def create(path: Path, data: bytes, *, mode: int) -> None:
    """Raises FileExistsError when there is a file already, which stays as it was."""
    with _temporary(path, data, mode) as temporary:
        os.link(temporary, path)
    _sync_directory(path.parent)


def replace(path: Path, data: bytes, *, mode: int) -> None:
    with _temporary(path, data, mode) as temporary:
        temporary.replace(path)
    _sync_directory(path.parent)


def private_directory(path: Path) -> None:
    """Make a directory that only its owner can enter (parents too, if they are missing)."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)


@contextmanager
def _temporary(path: Path, data: bytes, mode: int) -> Generator[Path]:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)  # whatever the umask is
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
