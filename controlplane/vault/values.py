"""One data key at work. Pure but for chance.

A data key is 32 bytes that encrypt (AES-256-GCM, a random nonce for each value) and 32 that make digests
(HMAC-SHA-256). A value and its digest are bound to what it is a value of: neither can be put in the place of another,
and equal secrets of two microVMs look different. The half for digests is carried over from one data key to the next,
because digests are what tells whether a secret changed, and a rotation changes none.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag

from controlplane.model.secrets import SealedValue
from controlplane.ports.secrets import Sealing, VaultError
from controlplane.sealing import KEY_BYTES, decrypt, encrypt


def purpose_of(namespace: str | None, name: str, key: str) -> str:
    """What a value is bound to."""
    return f"metadata {namespace}/{name} {key}"


@dataclass(frozen=True, slots=True)
class OpenDataKey:
    id: str
    encrypts: bytes = field(repr=False)
    digests: bytes = field(repr=False)

    @classmethod
    def new(cls, after: OpenDataKey | None = None) -> OpenDataKey:
        """`after`: the one that it takes the place of."""
        digests = after.digests if after is not None else secrets.token_bytes(KEY_BYTES)
        return cls(secrets.token_hex(8), secrets.token_bytes(KEY_BYTES), digests)

    @classmethod
    def of(cls, id: str, material: bytes) -> OpenDataKey:
        """Raises VaultError."""
        if len(material) != 2 * KEY_BYTES:
            raise VaultError(f"the data key {id} is not {2 * KEY_BYTES} bytes")
        return cls(id, material[:KEY_BYTES], material[KEY_BYTES:])

    @property
    def material(self) -> bytes:
        return self.encrypts + self.digests

    def seal(self, value: str, purpose: str) -> Sealing:
        digest = self.digest(value, purpose)
        box = encrypt(self.encrypts, value.encode(), self._bound(digest, purpose))
        return Sealing(digest, SealedValue(key_id=self.id, box=box))

    def open(self, box: str, digest: str, purpose: str) -> str:
        """Raises VaultError."""
        try:
            return decrypt(self.encrypts, box, self._bound(digest, purpose)).decode()
        except (InvalidTag, ValueError):
            raise VaultError(f"{purpose} does not open with the data key {self.id}: it was changed") from None

    def digest(self, value: str, purpose: str) -> str:
        data = f"{purpose}\0{value}".encode()
        return f"hmac-sha256:{hmac.digest(self.digests, data, hashlib.sha256).hex()}"

    def _bound(self, digest: str, purpose: str) -> bytes:
        return f"flintlock secret 1\0{self.id}\0{purpose}\0{digest}".encode()
