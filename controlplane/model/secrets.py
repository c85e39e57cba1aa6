"""What the state holds of secrets that users declare: ciphertexts, and the keys to them, sealed.

A value is encrypted with a *data key*; the data key lies beside it, sealed with a key-encryption key that is never in
the state (`controlplane.sealing`). What a value is compared by is its digest, a part of the spec; so a spec says that a
secret changed, and never what it is.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from controlplane.model.credentials import Sealed
from controlplane.model.types import KEYED_DIGEST_PATTERN, record

SecretDigest = Annotated[str, StringConstraints(pattern=KEYED_DIGEST_PATTERN)]
"""Keyed, so that nobody can try guesses on it, and bound to what it is a value of."""


@record
class SealedValue:
    """A secret that the data key `key_id` encrypts."""

    key_id: str
    box: str
    """Nonce and ciphertext (AES-256-GCM), in base64."""


@record
class DataKey:
    """Encrypts secrets. The newest one does; earlier ones stay until nothing is sealed with them."""

    id: str
    number: int
    """Counts the data keys of the cluster."""
    key: Sealed
    actor: str
    at: int
    """Milliseconds since the Unix epoch."""
