"""Bearer tokens of the API.

A token is 256 random bits, so its SHA-256 is as hard to guess as the token itself and no slow hash is needed. The
file holds only digests, with the name and roles that each stands for:

    {"version": 1, "tokens": [{"name": "operator", "roles": ["admin"], "sha256": "<64 hex digits>"}]}

The roles hold everywhere, whatever is declared; `user` and `groups` (optional) say whose token it is, for role
bindings.

It is read again whenever it changes, so that a token is revoked by removing its entry. A file that has become
unreadable or malformed changes nothing: the tokens of the last good reading hold, and the error is logged once per
change.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import structlog
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from controlplane.identity import storage
from controlplane.identity.names import IdentityError
from controlplane.identity.principal import Principal
from controlplane.model.types import Name, SubjectName

PREFIX = "flk_"
"""So that secret scanners and people recognize a token that has leaked."""
_MAX_FILE_BYTES = 1024 * 1024
_MAX_BEARER_CHARS = 512

_log = structlog.get_logger("identity.tokens")


class TokenEntry(BaseModel):
    """One line of the tokens file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    roles: list[Name]
    user: SubjectName | None = None
    groups: list[SubjectName] = []
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1]
    tokens: list[TokenEntry]


def new_token() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def entry_for(token: str, *, name: str, roles: Sequence[str]) -> TokenEntry:
    """What the tokens file holds of `token`."""
    return TokenEntry(name=name, roles=sorted(roles), sha256=digest_of(token))


def write_tokens(path: Path, entries: Sequence[TokenEntry]) -> None:
    """Replace the tokens file by one that holds `entries`."""
    document = _File(version=1, tokens=list(entries)).model_dump(exclude_defaults=True)
    storage.replace(path, json.dumps(document, indent=2).encode() + b"\n", mode=0o600)


class TokenAuthenticator:
    """Answers whose token a request carries."""

    def __init__(self, path: Path, entries: Sequence[TokenEntry], stamp: tuple[int, ...] | None) -> None:
        self._path = path
        self._stamp = stamp
        self._take(entries)

    @classmethod
    def from_file(cls, path: Path) -> TokenAuthenticator:
        """Raises IdentityError naming the file and the field."""
        stamp = _stamp(path)
        return cls(path, read_tokens(path), stamp)

    def authenticate(self, bearer: str) -> Principal | None:
        """The principal that `bearer` belongs to. Takes the same time whichever entry matches, or none."""
        self._reload_if_changed()
        if not bearer or len(bearer) > _MAX_BEARER_CHARS:
            return None
        digest = digest_of(bearer)
        found: Principal | None = None
        for sha256, principal in self._known:
            if hmac.compare_digest(sha256, digest):
                found = principal
        return found

    def _take(self, entries: Sequence[TokenEntry]) -> None:
        self._known = tuple((entry.sha256, _principal(entry)) for entry in entries)

    def _reload_if_changed(self) -> None:
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._take(read_tokens(self._path))
        except IdentityError as error:
            _log.error("tokens_file_not_reloaded", error=str(error), kept=len(self._known))
        else:
            _log.info("tokens_file_reloaded", path=str(self._path), tokens=len(self._known))


def _principal(entry: TokenEntry) -> Principal:
    return Principal(
        name=entry.name,
        roles=frozenset(entry.roles),
        user=entry.user,
        groups=frozenset(entry.groups),
        token=entry.name,
    )


def digest_of(token: str) -> str:
    """What is kept of a token: its SHA-256, in hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - for every request, and the path's own takes several times as long
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size)


def read_tokens(path: Path) -> list[TokenEntry]:
    """The entries of a tokens file. Raises IdentityError naming the file and the field."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise IdentityError(f"{path}: the tokens file cannot be read: {error.strerror}") from error
    if len(data) > _MAX_FILE_BYTES:
        raise IdentityError(f"{path}: the tokens file is over {_MAX_FILE_BYTES} bytes")
    try:
        return _File.model_validate_json(data).tokens
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = "/".join(str(part) for part in first["loc"])
        raise IdentityError(f"{path}: /{where}: {first['msg']}") from error
