"""Who called: the one party that the client certificate of a gRPC call names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from controlplane.identity.names import IdentityError, Party, party_from_pem

_CERTIFICATE = "x509_pem_cert"

_party = lru_cache(maxsize=1024)(party_from_pem)
"""Agents and nodes call every second with the same certificate, and what it names never changes."""


def caller(auth_context: Mapping[str, Iterable[bytes]]) -> Party:
    """From `ServicerContext.auth_context()`; TLS has verified the chain. Raises IdentityError."""
    certificates = tuple(auth_context.get(_CERTIFICATE, ()))
    if len(certificates) != 1:
        raise IdentityError("the caller showed no certificate")
    return _party(certificates[0])
