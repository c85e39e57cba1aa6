"""Who called: the one party that the client certificate of a gRPC call names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controlplane.identity.names import IdentityError, Party, party_from_pem

_CERTIFICATE = "x509_pem_cert"


def caller(auth_context: Mapping[str, Iterable[bytes]]) -> Party:
    """From `ServicerContext.auth_context()`; TLS has verified the chain. Raises IdentityError."""
    certificates = tuple(auth_context.get(_CERTIFICATE, ()))
    if len(certificates) != 1:
        raise IdentityError("the caller showed no certificate")
    return party_from_pem(certificates[0])
