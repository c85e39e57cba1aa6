"""What every store checks alike: names that cannot leave it, a bound on sizes, and that bytes are what was promised."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from controlplane.ports import StoreError

MAX_OBJECT_BYTES = 64 << 20
"""More than any chunk or manifest; what claims to be larger is not one."""
MAX_NAME_CHARS = 400
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_name(name: str) -> str:
    """`name`, if it is a relative path of safe segments. Raises StoreError."""
    if len(name) > MAX_NAME_CHARS or not all(_SEGMENT.fullmatch(segment) for segment in name.split("/")):
        raise StoreError("invalid", f"{name[:80]!r} is not an object's name: segments of A-Z a-z 0-9 . _ - are needed")
    return name


def check_prefix(prefix: str) -> str:
    """`prefix` without a slash at its end; empty means everything. Raises StoreError."""
    bare = prefix.rstrip("/")
    return check_name(bare) if bare else ""


def collect(name: str, data: Iterable[bytes], sha256: str) -> bytes:
    """All of `data`, bounded, and exactly what `sha256` says. Raises StoreError."""
    if not _SHA256.fullmatch(sha256):
        raise StoreError("invalid", f"{name}: {sha256[:80]!r} is not a SHA-256 in hex")
    collected = bytearray()
    for part in data:
        collected += part
        check_size(name, len(collected))
    check_content(name, collected, sha256)
    return bytes(collected)


def check_size(name: str, size: int) -> None:
    if size > MAX_OBJECT_BYTES:
        raise StoreError("too_large", f"{name}: over {MAX_OBJECT_BYTES} bytes, which no part of a snapshot has")


def check_content(name: str, data: bytes | bytearray, sha256: str | None) -> None:
    """Raises StoreError (`damaged`) unless `data` has that hash; None asks for nothing."""
    if sha256 is None:
        return
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise StoreError(
            "damaged",
            f"{name}: its bytes ({len(data)}) have the SHA-256 {found[:16]}..., {sha256[:16]}... was expected",
            hint="it was altered or cut short; use another snapshot or another copy of this store",
        )


def not_found(name: str, location: str) -> StoreError:
    return StoreError("not_found", f"{location}: there is no {name}")
