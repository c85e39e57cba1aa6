"""Sealing: secrets in the replicated state that only the cluster's nodes can read.

Envelope encryption. Every secret is encrypted with a data key of its own, and the data key with a key-encryption key
that is never in the state: it lies in a file of mode 0600 on each node, the key ring. So whoever gets hold of a log, a
snapshot or a backup has none of the secrets. Both layers are AES-256-GCM and bound to the purpose of the secret, so
that one cannot be put in the place of another.

The key ring, JSON: `{"version": 1, "keys": [{"id": "...", "key": "<base64, 32 bytes>"}]}`. The first key seals, all of
them open. To rotate, put a new key at the end on every node, then at the front; what was sealed before still opens, and
an old key can go once nothing names it.
"""

from __future__ import annotations

import base64
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from controlplane.model.credentials import Sealed

KEY_BYTES = 32
_NONCE_BYTES = 12
_MAX_FILE_BYTES = 64 * 1024


class SealingError(Exception):
    """What is sealed cannot be opened, or the key ring cannot be used; the message says which key is missing."""


class _Key(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    key: Annotated[str, StringConstraints(max_length=64)]


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1]
    keys: Annotated[list[_Key], Field(min_length=1, max_length=16)]


@dataclass(frozen=True, slots=True)
class SealingKey:
    id: str
    secret: bytes

    def __repr__(self) -> str:
        return f"SealingKey({self.id})"


class KeyRing:
    """The key-encryption keys of a cluster, the one that seals first."""

    def __init__(self, keys: tuple[SealingKey, ...]) -> None:
        self._keys = keys

    @classmethod
    def new(cls) -> KeyRing:
        return cls((SealingKey(secrets.token_hex(8), secrets.token_bytes(KEY_BYTES)),))

    @classmethod
    def parse(cls, document: str | bytes) -> KeyRing:
        """Raises SealingError, without any of the keys in its message."""
        try:
            file = _File.model_validate_json(document)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            raise SealingError(f"/{'/'.join(map(str, first['loc']))}: {first['msg']}") from None
        keys = tuple(SealingKey(each.id, _decoded(number, each.key)) for number, each in enumerate(file.keys))
        if len({key.id for key in keys}) != len(keys):
            raise SealingError("/keys: two keys have one id")
        return cls(keys)

    @classmethod
    def load(cls, path: Path) -> KeyRing:
        """Raises SealingError naming the file."""
        try:
            mode = path.stat().st_mode
            with path.open("rb") as file:
                document = file.read(_MAX_FILE_BYTES)
        except OSError as error:
            raise SealingError(f"{path}: the key ring cannot be read: {error.strerror}") from None
        if mode & 0o077:
            raise SealingError(f"{path}: others than its owner can use it; run: chmod 600 {path}")
        try:
            return cls.parse(document)
        except SealingError as error:
            raise SealingError(f"{path}: {error}") from None

    def document(self) -> str:
        """What the file holds; `parse` reads it."""
        keys = [_Key(id=key.id, key=base64.b64encode(key.secret).decode()) for key in self._keys]
        return _File(version=1, keys=keys).model_dump_json(indent=2) + "\n"

    def seal(self, secret: bytes, purpose: str) -> Sealed:
        """`purpose` has to be given again to open it."""
        key = self._keys[0]
        data_key = secrets.token_bytes(KEY_BYTES)
        return Sealed(
            key_id=key.id,
            wrapped=encrypt(key.secret, data_key, _bound("key", key.id, purpose)),
            box=encrypt(data_key, secret, _bound("box", key.id, purpose)),
        )

    def open(self, sealed: Sealed, purpose: str) -> bytes:
        """Raises SealingError: another key ring, another purpose, or it was tampered with."""
        key = next((key for key in self._keys if key.id == sealed.key_id), None)
        if key is None:
            raise SealingError(f"{purpose} is sealed with the key {sealed.key_id}, which this node's key ring lacks")
        try:
            data_key = decrypt(key.secret, sealed.wrapped, _bound("key", key.id, purpose))
            return decrypt(data_key, sealed.box, _bound("box", key.id, purpose))
        except (InvalidTag, ValueError):
            raise SealingError(
                f"{purpose} does not open with the key {key.id}: it was changed, or is not that"
            ) from None


def _decoded(number: int, text: str) -> bytes:
    try:
        secret = base64.b64decode(text, validate=True)
    except ValueError:
        secret = b""
    if len(secret) != KEY_BYTES:
        raise SealingError(f"/keys/{number}/key: not {KEY_BYTES} bytes in base64")
    return secret


def _bound(layer: str, key_id: str, purpose: str) -> bytes:
    return f"flintlock sealed 1\0{layer}\0{key_id}\0{purpose}".encode()


def encrypt(key: bytes, data: bytes, bound: bytes) -> str:
    """AES-256-GCM: nonce and ciphertext in base64; `bound` has to be given again to decrypt it."""
    nonce = os.urandom(_NONCE_BYTES)
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, data, bound)).decode()


def decrypt(key: bytes, text: str, bound: bytes) -> bytes:
    """Raises InvalidTag, ValueError."""
    data = base64.b64decode(text, validate=True)
    return AESGCM(key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], bound)
