"""Join tokens as text: `flj_<id>.<secret>.<fingerprint>`.

The secret is 256 random bits, of which the state holds the SHA-256. The fingerprint is that of the cluster's authority:
whoever joins trusts this authority and no other, so it knows that it speaks to the cluster before it says the secret.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field

from controlplane.identity.names import IdentityError

PREFIX = "flj_"
_TEXT = re.compile(r"flj_([0-9A-Z]{26})\.([A-Za-z0-9_-]{43})\.([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class JoinTokenText:
    id: str
    secret: str = field(repr=False)
    fingerprint: str
    """SHA-256 of the authority's certificate, in hex."""

    @property
    def text(self) -> str:
        return f"{PREFIX}{self.id}.{self.secret}.{self.fingerprint}"

    @property
    def sha256(self) -> str:
        """What the state holds of the secret."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


def new(id: str, fingerprint: str) -> JoinTokenText:
    return JoinTokenText(id=id, secret=secrets.token_urlsafe(32), fingerprint=fingerprint)


def parse(text: str) -> JoinTokenText:
    """Raises IdentityError, which does not repeat the text."""
    found = _TEXT.fullmatch(text)
    if found is None:
        raise IdentityError("not a join token: it looks like flj_ID.SECRET.FINGERPRINT")
    return JoinTokenText(id=found[1], secret=found[2], fingerprint=found[3])
