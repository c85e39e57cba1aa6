"""The public keys of one issuer, by the id that its tokens name.

They are fetched when they are first needed, again (beside the requests) once they are old, and when a token names a key
that is not known: so a new key counts at once. Whoever sends tokens with made-up keys causes one fetch in `AGAIN_S` and
no more. While the issuer cannot be reached, the keys of before hold for a day.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from controlplane.identity.oidc import fetch
from controlplane.identity.oidc.fetch import FetchError, Json
from controlplane.identity.oidc.settings import Algorithm, OidcIssuer

MAX_KEYS = 64
MAX_ID_CHARS = 256
FRESH_S = 600.0
AGAIN_S = 10.0
"""So long after a fetch there is no other."""
KEPT_S = 86_400.0
"""So long keys hold of which the issuer does not say any more that they are its own."""
_PATIENCE_S = 4 * fetch.TIMEOUT_S
"""For the two documents."""
_MIN_RSA_BITS = 2048
_CURVES = {Algorithm.ES256: "secp256r1", Algorithm.ES384: "secp384r1", Algorithm.ES512: "secp521r1"}

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
_log = structlog.get_logger("identity.oidc")


class IssuerKeys:
    """`now` is a monotonic clock in seconds."""

    def __init__(self, issuer: OidcIssuer, *, now: Callable[[], float]) -> None:
        self._issuer = issuer
        self._now = now
        self._keys: Mapping[str | None, PublicKey] = {}
        self._fetched = float("-inf")
        """When the keys were fetched."""
        self._tried = float("-inf")
        self._fetching = asyncio.Lock()
        self._beside: asyncio.Task[None] | None = None
        """A fetch that nobody waits for."""

    async def find(self, key_id: str | None, algorithm: Algorithm) -> PublicKey | None:
        """The key of that id if it is one for `algorithm`; without an id, the only key that there is."""
        age_s = self._now() - self._fetched
        if age_s > KEPT_S or self._look_up(key_id) is None:
            await self._refresh()
        elif age_s > FRESH_S and (self._beside is None or self._beside.done()):
            # An issuer that is slow holds nobody up whose key is known.
            self._beside = asyncio.create_task(self._refresh())
        if self._now() - self._fetched > KEPT_S:
            return None
        key = self._look_up(key_id)
        return key if key is not None and fits(key, algorithm) else None

    def _look_up(self, key_id: str | None) -> PublicKey | None:
        if key_id is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(key_id)

    async def _refresh(self) -> None:
        async with self._fetching:
            if self._now() - self._tried < AGAIN_S:
                return
            self._tried = self._now()
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    self._keys = await asyncio.to_thread(fetch_keys, self._issuer)
            except (FetchError, TimeoutError) as error:
                reason = str(error) or f"it takes longer than {_PATIENCE_S:g} s"
                _log.warning("oidc.keys_not_fetched", issuer=self._issuer.issuer, reason=reason)
            else:
                self._fetched = self._now()


def fetch_keys(issuer: OidcIssuer) -> Mapping[str | None, PublicKey]:
    """Blocks. Raises FetchError."""
    document = fetch.discover(issuer.issuer, issuer.ca_file)
    return read_keys(fetch.fetch(fetch.endpoint(document, "jwks_uri"), issuer.ca_file))


def read_keys(document: Json) -> Mapping[str | None, PublicKey]:
    """The keys of a JWK set that verify signatures; what else is there is left out. Raises FetchError."""
    listed: object = document.get("keys")
    if not isinstance(listed, list):
        raise FetchError("the key set has no list `keys`")
    if len(cast("list[object]", listed)) > MAX_KEYS:
        raise FetchError(f"the key set has over {MAX_KEYS} keys")
    keys: dict[str | None, PublicKey] = {}
    for each in cast("list[object]", listed):
        if isinstance(each, dict) and (key := _read_key(cast("Json", each))) is not None:
            key_id = cast("Json", each).get("kid")
            if key_id is None or (isinstance(key_id, str) and len(key_id) <= MAX_ID_CHARS):
                keys[key_id] = key
    return keys


def _read_key(document: Json) -> PublicKey | None:
    if document.get("use", "sig") != "sig" or document.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    try:
        key: Any = jwt.PyJWK(document).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(key, rsa.RSAPublicKey):
        return key if key.key_size >= _MIN_RSA_BITS else None
    return key if isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) else None


def fits(key: PublicKey, algorithm: Algorithm) -> bool:
    """A key verifies its own kind of signature and no other, whatever a token says."""
    match key:
        case rsa.RSAPublicKey():
            return algorithm.value[:2] in ("RS", "PS")
        case ec.EllipticCurvePublicKey():
            return _CURVES.get(algorithm) == key.curve.name
        case ed25519.Ed25519PublicKey():
            return algorithm is Algorithm.ED25519
