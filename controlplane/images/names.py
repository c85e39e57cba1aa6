"""Image references as a host's store reads them, and the folders they live in.

A reference is `NAME[:TAG][@sha256:DIGEST]`; the tag is `latest` when there is none. A name becomes one folder by
percent-encoding, so a reference can never reach outside of the store, and different names never meet in one folder.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote

from controlplane.model.types import IMAGE_PATTERN
from controlplane.ports import DriverError

DEFAULT_TAG = "latest"
MAX_REFERENCE_LENGTH = 255
MAX_FILE_NAME_LENGTH = 200
MAX_FILE_DEPTH = 8
_MAX_FOLDER_LENGTH = 200
_FILE_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Reference:
    name: str
    tag: str
    digest: str | None
    """`sha256:...` when the reference pins one."""

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}"

    @property
    def folder(self) -> str:
        """One path component, unique to `name`."""
        encoded = quote(self.name, safe="")
        if len(encoded) <= _MAX_FOLDER_LENGTH:
            return encoded
        # "%%" never appears in a percent-encoded name, so a shortened one cannot be mistaken for another.
        return f"{encoded[:120]}%%{hashlib.sha256(self.name.encode()).hexdigest()}"


def parse_reference(text: str) -> Reference:
    """Raises DriverError(`InvalidImageReference`)."""
    if len(text) > MAX_REFERENCE_LENGTH or re.fullmatch(IMAGE_PATTERN, text) is None:
        raise DriverError(
            "InvalidImageReference",
            f"{text[:MAX_REFERENCE_LENGTH]!r} is not an image reference (NAME[:TAG][@sha256:DIGEST], lower case name)",
            retryable=False,
        )
    rest, _, digest = text.partition("@")
    head, colon, tail = rest.rpartition(":")
    # A colon before the last slash is the port of a registry.
    name, tag = (head, tail) if colon and "/" not in tail else (rest, DEFAULT_TAG)
    if _TAG.fullmatch(tag) is None:
        raise DriverError("InvalidImageReference", f"{tag[:200]!r} in {text!r} is not a tag", retryable=False)
    return Reference(name, tag, digest or None)


def check_file_name(name: str) -> str:
    """A relative path inside an image, such as `boot/vmlinuz`. Raises DriverError(`InvalidImageFile`)."""
    parts = name.split("/")
    fits = len(name) <= MAX_FILE_NAME_LENGTH and len(parts) <= MAX_FILE_DEPTH
    if not fits or any(_FILE_PART.fullmatch(part) is None for part in parts) or PurePosixPath(name).is_absolute():
        raise DriverError(
            "InvalidImageFile",
            f"{name[:MAX_FILE_NAME_LENGTH]!r} is not a file of an image: relative, at most {MAX_FILE_DEPTH} parts of "
            "letters, digits and . _ + -, none of them starting with a dot",
            retryable=False,
        )
    return name
