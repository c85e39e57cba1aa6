"""Looks for known secrets in bytes and files, however they are written: as they are, in base64 at any offset, in hex,
or as JSON and URLs have them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote


def forms(secret: str) -> set[bytes]:
    """Of base64 the part that depends on nothing beside the secret."""
    data = secret.encode()
    assert len(data) >= 8, "what is shorter turns up by chance"
    found = {data, data.hex().encode(), data.hex().upper().encode(), quote(secret).encode()}
    found.add(json.dumps(secret)[1:-1].encode())
    for offset in range(3):
        text = base64.b64encode(b"\0" * offset + data).decode()
        inner = text[4 if offset else 0 : len(text) // 4 * 4 - 4]
        found |= {inner.encode(), inner.replace("+", "-").replace("/", "_").encode()}
    return found


def found_in(data: bytes, secrets: Mapping[str, str]) -> set[str]:
    """Names of the secrets that are in `data`."""
    return {name for name, secret in secrets.items() if any(form in data for form in forms(secret))}


def found_below(directory: Path, secrets: Mapping[str, str]) -> set[tuple[str, str]]:
    """(name of a secret, path below `directory`) of every file that has it; links are not followed."""
    found: set[tuple[str, str]] = set()
    for path in directory.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # it was replaced meanwhile
            continue
        found |= {(name, str(path.relative_to(directory))) for name in found_in(data, secrets)}
    return found
