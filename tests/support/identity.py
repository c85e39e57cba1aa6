"""Callers by certificates that nobody needs on disk."""

from __future__ import annotations

import datetime

from controlplane.api.gateway.peer import Caller
from controlplane.identity import issuing
from controlplane.identity.names import Party

_NOW = datetime.datetime.now(datetime.UTC)
_DAY = datetime.timedelta(days=1)


def issuer_of(cluster: str = "test") -> issuing.Issuer:
    """Another authority of the cluster at every call."""
    return issuing.new_issuer(cluster, now=_NOW)


_ISSUER = issuer_of()


def caller_of(host: str, issuer: issuing.Issuer = _ISSUER) -> Caller:
    """Who shows a new certificate of this host."""
    party = Party("test", "host", host)
    certificate = issuer.issue(party, issuing.new_key().public_key(), life=_DAY, now=_NOW)
    return Caller(
        party=party,
        serial=issuing.serial_text(certificate),
        expires_at_s=certificate.not_valid_after_utc.timestamp(),
        certificate=certificate,
    )
